import { describe, expect, it } from "vitest";
import { normalTensor, syntheticBlock } from "../../../test/synthetic.js";
import { createReferenceEngine } from "../../engine/reference/index.js";
import { memoryError } from "../../errors.js";
import { parseModelConfig } from "../../model/config.js";
import { createRopeTables } from "../../model/rope.js";
import { forwardBlock } from "../../model/stages.js";
import { resolveRecipe, trainingOf } from "../../pipeline/recipe.js";
import { createRandom } from "../../random.js";
import type { F32 } from "../../tensor/index.js";
import type { TrainingBlock, TrainingStreams } from "./block.js";
import { quantizeOmniquant } from "./omniquant.js";

const config = parseModelConfig({
  ...{ model_type: "llama", hidden_size: 16, intermediate_size: 24, num_hidden_layers: 1, vocab_size: 11 },
  ...{ num_attention_heads: 4, num_key_value_heads: 2 },
});
const [WINDOWS, TOKENS] = [4, 8];

/** Trains a block in batches of two, on an engine whose attention gradient refuses what `refuses` says. */
async function train(refuses: (call: number, batch: number) => boolean) {
  const engine = createReferenceEngine();
  const random = createRandom(5);
  const weights = syntheticBlock(engine, config, random);
  const rope = createRopeTables(engine, config, TOKENS);
  const inputs = Array.from({ length: WINDOWS }, () => normalTensor(engine, random, [1, TOKENS, config.hidden], 1));
  const block: TrainingBlock = {
    ...{ engine, config, name: "block 0", weights },
    grids: Object.fromEntries(
      Object.keys(weights.linears).map((slot) => [slot, { bits: 3, group: 8, symmetric: false }]),
    ),
    context: (running, activations) => ({ engine: running, config, layer: 0, rope, start: 0, activations }),
  };
  const targets = inputs.map((input) => forwardBlock(block.context(engine), weights, input));
  const streams: TrainingStreams = {
    windows: WINDOWS,
    input: async (window) => engine.copy(inputs[window]),
    target: async (window) => engine.copy(targets[window]),
  };
  const attentionGrad = engine.attentionGrad.bind(engine);
  let calls = 0;
  engine.attentionGrad = (q: F32, ...rest) => {
    if (refuses(calls++, q.shape[0])) throw memoryError("no room for 7 MB more");
    return attentionGrad(q, ...rest);
  };
  const warnings: string[] = [];
  const before = engine.liveBytes();
  const scheme = trainingOf(resolveRecipe({ method: "omniquant", batch: 2, epochs: 2, tuneEpochs: 2 }));
  const options = {
    ...{ seed: 0, storage: "f16" as const },
    progress: { onWarning: (message: string) => void warnings.push(message) },
  };
  const result = await engine
    .scope(() => quantizeOmniquant(block, streams, scheme, options))
    .catch((error: unknown) => ({ error }));
  expect(engine.liveBytes()).toBe(before);
  return { result, warnings };
}

describe("a step that does not fit", () => {
  it("is taken with activations computed again: the same bytes", async () => {
    const undisturbed = await train(() => false);
    const { result, warnings } = await train((call) => call === 1);
    expect(result).toEqual(undisturbed.result);
    expect(undisturbed.warnings).toEqual([]);
    expect(warnings).toEqual([expect.stringMatching(/block 0.*no room for 7 MB.*computed again/)]);
  });

  it("is taken a window at a time where that is not enough: nearly the same", async () => {
    const undisturbed = await train(() => false);
    const { result, warnings } = await train((_, batch) => batch > 1);
    expect(warnings).toHaveLength(4); // two in each training
    expect(warnings[1]).toMatch(/a window at a time/);
    if ("error" in result || "error" in undisturbed.result) throw new Error("it did not end");
    for (const [slot, { record }] of Object.entries(undisturbed.result.linears)) {
      const other = result.linears[slot as keyof typeof result.linears].record;
      if (record.kind !== "affine" || other.kind !== "affine") throw new Error("grids were wanted");
      const [scale, got] = [record.scale, other.scale];
      for (let i = 0; i < scale.length; i++) expect(Math.abs(got[i] / scale[i] - 1)).toBeLessThan(2e-3);
    }
  });

  it("is an error in the end", async () => {
    const { result } = await train(() => true);
    expect(result).toMatchObject({ error: { kind: "memory", message: expect.stringMatching(/no room for 7 MB/) } });
  });
});
