import { describe, expect, it } from "vitest";
import { normalTensor, syntheticBlock } from "../../../test/synthetic.js";
import { createReferenceEngine } from "../../engine/reference/index.js";
import type { BlockWeights } from "../../model/block.js";
import { parseModelConfig } from "../../model/config.js";
import { createRopeTables } from "../../model/rope.js";
import { forwardBlock } from "../../model/stages.js";
import { createRandom } from "../../random.js";
import type { TrainingBlock, TrainingStreams } from "./block.js";
import { quantizeOmniquant } from "./omniquant.js";
import type { OmniquantScheme } from "./scheme.js";
import type { TrainingResult } from "./train.js";

const words = {
  model_type: "llama",
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 1,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 11,
};
const WINDOWS = 4;

/** A block, windows of 8 tokens with two loud channels, and what it makes of them. */
async function setup(
  damage?: (weights: BlockWeights, engine: ReturnType<typeof createReferenceEngine>) => void,
  config = parseModelConfig(words),
) {
  const engine = createReferenceEngine();
  const random = createRandom(3);
  const weights = syntheticBlock(engine, config, random);
  const rope = createRopeTables(engine, config, 8);
  const loud = engine.upload(
    Float32Array.from({ length: config.hidden }, (_, i) => (i % 7 === 2 ? 8 : 1)),
    [config.hidden],
    "f32",
  );
  const inputs = Array.from({ length: WINDOWS }, () =>
    engine.multiply(normalTensor(engine, random, [1, 8, config.hidden], 1), loud),
  );
  const block: TrainingBlock = {
    engine,
    config,
    name: "block 0",
    weights,
    grids: Object.fromEntries(
      Object.keys(weights.linears).map((slot) => [slot, { bits: 3, group: 8, symmetric: false }]),
    ),
    context: (running, activations) => ({ engine: running, config, layer: 0, rope, start: 0, activations }),
  };
  const targets = inputs.map((input) => forwardBlock(block.context(engine), weights, input));
  damage?.(weights, engine);
  const streams: TrainingStreams = {
    windows: WINDOWS,
    input: async (window) => engine.copy(inputs[window]),
    target: async (window) => engine.copy(targets[window]),
  };
  return { engine, block, streams };
}

const scheme: OmniquantScheme = {
  epochs: 3,
  batch: 1,
  schedule: "cosine",
  warmUp: 0,
  clipNorm: 0,
  clipSpikes: 0,
  clipping: true,
  clippingRate: 1e-2,
  transform: true,
  transformRate: 5e-3,
  augment: true,
  train: "weight",
  tuneEpochs: 3,
  scaleRate: 1e-3,
  zeroRate: 1e-2,
  weightRate: 1e-2,
};

async function quantized(changed: Partial<OmniquantScheme>) {
  const { engine, block, streams } = await setup();
  const results: Record<string, TrainingResult> = {};
  const onTrained = (stage: string, result: TrainingResult) => {
    results[stage] = result;
  };
  const before = engine.liveBytes();
  const block0 = await engine.scope(() =>
    quantizeOmniquant(block, streams, { ...scheme, ...changed }, { seed: 0, storage: "f16", progress: { onTrained } }),
  );
  expect(engine.liveBytes()).toBe(before);
  return { ...block0, results };
}

describe("quantizeOmniquant", () => {
  it("lowers the loss in each stage", async () => {
    const { results } = await quantized({ transform: false, epochs: 40, tuneEpochs: 10 });
    for (const stage of ["clip", "tune"]) {
      expect(results[stage].improved, stage).toBe(true);
      expect(results[stage].endLoss, stage).toBeLessThan(results[stage].startLoss);
    }
    expect(results.tune.startLoss).toBeLessThan(results.clip.startLoss);
  });

  it("keeps the start where training does not beat it, and says so", async () => {
    const wild = await quantized({ train: "clip", transformRate: 10, clippingRate: 10 });
    expect(wild.results.clip.improved).toBe(false);
    expect(wild.results.clip.endLoss).toBe(wild.results.clip.startLoss);
    const start = await quantized({ train: "clip", epochs: 0 });
    expect(wild.linears).toEqual(start.linears);
    expect(wild.vectors).toEqual(start.vectors);
  });

  it("trains what it is told to", async () => {
    const clip = await quantized({ train: "clip" });
    expect(Object.keys(clip.results)).toEqual(["clip"]);
    expect((await quantized({ transform: false })).vectors).toEqual({});
    const rounded = await quantized({ clipping: false, transform: false, train: "clip" });
    expect(rounded.results).toEqual({}); // nothing to train: rounding to nearest
  });

  it("follows the schedule", async () => {
    const at = (schedule: OmniquantScheme["schedule"], changed: Partial<OmniquantScheme>) =>
      quantized({ schedule, ...changed }).then(({ results }) => results);
    const several = { transform: false, epochs: 10, tuneEpochs: 5 };
    const losses = [await at("cosine", several), await at("linear", several), await at("constant", several)];
    for (const stage of ["clip", "tune"]) {
      expect(losses.every((results) => results[stage].improved)).toBe(true);
      expect(new Set(losses.map((results) => results[stage].endLoss)).size, stage).toBe(3);
    }
    // the first step has the whole rate in all of them
    const one = { epochs: 1, tuneEpochs: 1, batch: WINDOWS };
    expect(await at("constant", one)).toEqual(await at("cosine", one));
  });

  it("raises the learning rates", async () => {
    const steady = { transform: false, epochs: 10, tuneEpochs: 5 };
    const { results, ...block } = await quantized(steady);
    expect(await quantized({ ...steady, warmUp: 1 })).toEqual({ results, ...block });
    const slow = await quantized({ ...steady, warmUp: 20 });
    for (const stage of ["clip", "tune"]) expect(slow.results[stage].endLoss).not.toBe(results[stage].endLoss);
    // in a tenth of the steps at most
    const most = await quantized({ ...steady, warmUp: 1e30 });
    const tenth = (steady.epochs * WINDOWS) / 10;
    const clip = async (warmUp: number) => (await quantized({ ...steady, train: "clip", warmUp })).results.clip;
    expect(await clip(tenth)).toEqual(most.results.clip);
    expect(await clip(tenth - 1)).not.toEqual(most.results.clip);
  });

  it("bounds the norm of gradients by those before", async () => {
    const steady = { transform: false, epochs: 10, tuneEpochs: 5 };
    const { results, ...block } = await quantized(steady);
    expect(await quantized({ ...steady, clipSpikes: 1e6 })).toEqual({ results, ...block }); // no spike is as large
    const some = await quantized({ ...steady, clipSpikes: 1.05 });
    for (const stage of ["clip", "tune"]) expect(some.results[stage].endLoss).not.toBe(results[stage].endLoss);
  });

  it("bounds the norm of gradients", async () => {
    const steady = { transform: false, epochs: 10, tuneEpochs: 5 };
    const { results, ...block } = await quantized(steady);
    expect(await quantized({ ...steady, clipNorm: 1e6 })).toEqual({ results, ...block }); // more than any gradient here
    const some = await quantized({ ...steady, clipNorm: 1e-4 });
    for (const stage of ["clip", "tune"]) expect(some.results[stage].endLoss).not.toBe(results[stage].endLoss);
    // far below AdamW's epsilon: nothing moves
    const still = await quantized({ ...steady, clipNorm: 1e-30 });
    expect(still.linears).toEqual((await quantized({ ...steady, epochs: 0, tuneEpochs: 0 })).linears);
    expect(still.linears).not.toEqual(block.linears);
  });

  it("holds few copies of the weights", async () => {
    const wide = { ...words, hidden_size: 128, intermediate_size: 256 }; // 8 tokens: activations are next to nothing
    const { engine, block, streams } = await setup(undefined, parseModelConfig(wide));
    for (const slot of Object.keys(block.grids)) block.grids[slot] = { bits: 3, group: "channel", symmetric: false };
    const bytes = 4 * Object.values(block.weights.linears).reduce((sum, { weight }) => sum + weight.size, 0);
    const before = engine.liveBytes() - bytes;
    const peaks: Record<string, number> = {};
    const onTrained = (stage: string) => {
      peaks[stage] = (engine.peakBytes() - before) / bytes;
      engine.resetPeak();
    };
    const once = { ...scheme, epochs: 1, tuneEpochs: 1 };
    await quantizeOmniquant(block, streams, once, { seed: 0, storage: "f16", progress: { onTrained } });
    // as loaded, as transformed, and as rounded, which gives way to gradients; then a linear in between, and activations
    expect(peaks.clip).toBeLessThan(4.5);
    // as loaded, as trained, two moments, and as rounded, which gives way to gradients
    expect(peaks.tune).toBeLessThan(6);
  });

  it("names the tensor that is not finite from the start", async () => {
    const spoil = (change: (weights: BlockWeights, engine: ReturnType<typeof createReferenceEngine>) => void) =>
      setup(change).then(({ block, streams }) =>
        quantizeOmniquant(block, streams, scheme, { seed: 0, storage: "f16", progress: {} }),
      );
    const nan = Float32Array.of(Number.NaN);
    await expect(spoil(({ linears }, engine) => engine.write(linears.up.weight, nan, 5))).rejects.toMatchObject({
      kind: "numeric",
      message: expect.stringMatching(/block 0, calibration window 0: the weight of up is not finite/),
    });
    await expect(spoil(({ vectors }, engine) => engine.write(vectors.mlpNorm, nan))).rejects.toMatchObject({
      message: expect.stringMatching(/mlpNorm is not finite/),
    });
    const huge = new Float32Array(16 * 16).fill(3e38);
    await expect(spoil(({ linears }, engine) => engine.write(linears.output.weight, huge))).rejects.toMatchObject({
      message: expect.stringMatching(/the stream after output is not finite/),
    });
  });
});
