import { readFileSync } from "node:fs";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { type CheckpointModel, openCheckpointModel } from "../checkpoint/open.js";
import type { Engine } from "../engine/engine.js";
import { createReferenceEngine } from "../engine/reference/index.js";
import { memoryFolder, memoryOutput } from "../files/memory.js";
import { dequantize } from "../quant/dequantize.js";
import { createRandom } from "../random.js";
import type { QuantizeEvent } from "./events.js";
import { fitRecipe, planOf, quantize, quantizeLinears } from "./job.js";
import { type Journal, memoryJournal } from "./journal.js";
import { planTotals } from "./plan.js";
import { type RecipeInput, resolveRecipe } from "./recipe.js";
import { type JobShare, shareOf } from "./share.js";

const FIXTURE = "test/golden/families/llama-gqa-llama3-tied";
const files = new Map(
  ["config.json", "model.safetensors"].map((name) => [name, new Uint8Array(readFileSync(`${FIXTURE}/${name}`))]),
);

let engine: Engine;
let model: CheckpointModel;
let tokens: Int32Array;
beforeAll(async () => {
  engine = createReferenceEngine();
  model = await openCheckpointModel(memoryFolder("tiny", files));
  const random = createRandom(7);
  tokens = Int32Array.from({ length: 400 }, () => random.integer(model.model.vocabulary));
});

const small: RecipeInput = { codebook: 16, vectorLength: 4, samples: 4, window: 24, iterations: 10, refine: 1 };

/** Two blocks, two trainings of one epoch each, four windows. */
const TRAINING_STEPS = 16;
const trained: RecipeInput = {
  method: "omniquant",
  bits: 3,
  group: 16,
  samples: 4,
  window: 24,
  epochs: 1,
  tuneEpochs: 1,
};

async function run(
  recipe: RecipeInput,
  options: {
    journal?: Journal;
    resume?: boolean;
    signal?: AbortSignal;
    share?: JobShare;
    onEvent?: (event: QuantizeEvent) => void;
  } = {},
) {
  const output = memoryOutput();
  const result = await quantize(model, recipe, {
    engine,
    output,
    calibration: tokens,
    calibrationName: "random tokens",
    ...options,
  });
  return { result, files: output.files };
}

describe("quantize", () => {
  const recipes: [string, RecipeInput][] = [
    ["vptq, quantized stream", { ...small }],
    ["vptq, full-precision stream", { ...small, propagate: "full" }],
    ["vptq, residual", { ...small, residual: [8] }],
    ["vptq, two residual stages", { ...small, residual: [8, 4] }],
    ["vptq, outliers and groups", { ...small, outliers: 5, outlierVectorLength: 2, outlierCodebook: 8, groups: 2 }],
    ["vptq, groups that do not divide", { ...small, groups: 3 }],
    ["vptq, a residual larger than the main codebook", { ...small, codebook: 8, residual: [16] }],
    ["vptq, column norm", { ...small, norm: "column" }],
    ["vptq, row norm", { ...small, norm: "row" }],
    ["vptq, rows and columns normalised", { ...small, norm: "both" }],
    ["vptq, the correction from one window", { ...small, correctionShare: 0.2 }],
    ["vptq, a length that does not divide", { ...small, vectorLength: 6 }],
    ["gptq", { method: "gptq", bits: 3, group: 16, samples: 4, window: 24 }],
    [
      "gptq, act-order, symmetric",
      { method: "gptq", bits: 4, group: 16, symmetric: true, actOrder: true, samples: 4, window: 24 },
    ],
    ["omniquant", { ...trained }],
    ["omniquant, clipping and transformation alone", { ...trained, train: "clip", epochs: 2, batch: 2 }],
    [
      "omniquant, scales, symmetric, a group that does not divide",
      { ...trained, train: "scale", symmetric: true, group: 24 },
    ],
    ["omniquant, activations", { ...trained, bits: 6, group: "channel", activations: 6, kv: 8 }],
    ["rtn, channel", { method: "rtn", bits: 8, group: "channel" }],
    ["rtn, a group that does not divide", { method: "rtn", bits: 2, group: 24 }],
  ];

  it.each(recipes)("writes what it planned and reads it back: %s", async (_name, recipe) => {
    const { result, files: written } = await run(recipe);
    const planned = planOf(model.model, resolveRecipe(recipe));
    expect(result.bitsPerWeight).toBeCloseTo(planTotals(planned).bitsPerWeight, 10);
    const back = await openCheckpointModel(memoryFolder("back", written));
    expect(back.format).toBe(result.format);
    expect(back.layers.map(({ name }) => name).sort()).toEqual(planned.map(({ spec }) => spec.name).sort());
    // every bit on disk was counted
    const bits = back.layers.reduce((sum, layer) => sum + layer.bits, 0);
    expect(bits).toBe(planned.reduce((sum, linear) => sum + linear.bits, 0));
    for (const { name, shape } of back.layers) {
      const decoded = dequantize(await back.record(name));
      const original = await model.weights.read(`${name}.weight`, [shape.rows, shape.columns]);
      expect(decoded).not.toEqual(original);
      expect(decoded.every(Number.isFinite)).toBe(true);
    }
    // an error of 1 is that of writing zeros
    for (const { name, proxyError } of result.linears) {
      expect(proxyError, name).toBeGreaterThan(0);
      expect(proxyError, name).toBeLessThan(1);
    }
    const report = await back.report();
    expect(report).toMatchObject({ bitsPerWeight: expect.any(Number), calibration: "random tokens" });
  });

  it("gives the same bytes again, and another seed others", async () => {
    const [first, second, other] = [await run(small), await run(small), await run({ ...small, seed: 1 })];
    expect(first.files.get("model.safetensors")).toEqual(second.files.get("model.safetensors"));
    expect(first.files.get("bitwright.json")).toEqual(second.files.get("bitwright.json"));
    expect(other.files.get("model.safetensors")).not.toEqual(first.files.get("model.safetensors"));
  });

  it.each(["full", "quantized"] as const)("resumes to the same bytes wherever it stopped (%s)", async (propagate) => {
    const recipe = { ...small, propagate };
    const whole = await run(recipe);
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 13 }), async (stopAfter) => {
        const journal = memoryJournal();
        const abort = new AbortController();
        let done = 0;
        const onEvent = (event: QuantizeEvent) => {
          if (event.type === "linear" && ++done === stopAfter) abort.abort();
        };
        await expect(run(recipe, { journal, signal: abort.signal, onEvent })).rejects.toMatchObject({
          kind: "aborted",
        });
        let resumed = 0;
        const count = (event: QuantizeEvent) => {
          if (event.type === "linear" && event.resumed) resumed++;
        };
        const again = await run(recipe, { journal, resume: true, onEvent: count });
        expect(resumed).toBe(stopAfter);
        expect(again.files).toEqual(whole.files);
      }),
      { numRuns: 4 },
    );
  });

  it("keeps what is on its way into the journal when it is stopped, and tells of a journal that fails", async () => {
    const journal = memoryJournal();
    const { write } = journal;
    const begun: string[] = [];
    const kept: string[] = [];
    const slow: Journal = {
      ...journal,
      async write(name, bytes) {
        begun.push(name);
        await new Promise((resolve) => setTimeout(resolve, 20));
        if (begun.length > 4) throw new Error("no room");
        await write(name, bytes);
        kept.push(name);
      },
    };
    const abort = new AbortController();
    const onEvent = ({ type }: QuantizeEvent) => type === "linear" && abort.abort();
    await expect(run(small, { journal: slow, signal: abort.signal, onEvent })).rejects.toMatchObject({
      kind: "aborted",
    });
    expect(kept).toEqual(begun);
    expect(kept.length).toBeGreaterThan(1);
    const told: string[] = [];
    const tell = (event: QuantizeEvent) => event.type === "linear" && !event.resumed && told.push(event.name);
    await expect(run(small, { journal: slow, resume: true, onEvent: tell })).rejects.toThrow("no room");
    expect(told.map((name) => `${name}.unit`)).toEqual(kept.slice(kept.length - told.length));
    const whole = await run(small);
    expect((await run(small, { journal, resume: true })).files).toEqual(whole.files);
  });

  it("resumes training within a block to the same bytes", async () => {
    const recipe = { ...trained, clipSpikes: 1.01 }; // so that the norms before the stop count
    const whole = await run(recipe);
    expect(whole.files).not.toEqual((await run({ ...trained, clipSpikes: 0 })).files);
    for (const stopAt of [3, 7, 9, 15]) {
      const journal = memoryJournal();
      const abort = new AbortController();
      let steps = 0;
      const onEvent = (event: QuantizeEvent) => {
        if (event.type === "step" && ++steps === stopAt) abort.abort();
      };
      await expect(run(recipe, { journal, signal: abort.signal, onEvent })).rejects.toMatchObject({
        kind: "aborted",
      });
      let again = 0;
      const count = (event: QuantizeEvent) => {
        if (event.type === "step") again++;
      };
      const resumed = await run(recipe, { journal, resume: true, onEvent: count });
      expect(again).toBe(TRAINING_STEPS - stopAt); // no step is done twice
      expect(resumed.files).toEqual(whole.files);
    }
  });

  it("transforms with clipping alone where that was published", () => {
    const { model: config } = model;
    const fitted = (input: RecipeInput, norm: "rms" | "layer" = "rms") =>
      fitRecipe({ method: "omniquant", ...input }, { ...config, norm }, 1000).let;
    expect(fitted({})).toBe(true);
    expect(fitted({ train: "clip" })).toBe(false);
    expect(fitted({ train: "clip" }, "layer")).toBe(true);
    expect(fitted({ train: "clip", activations: 4 })).toBe(true);
    expect(fitted({ train: "clip", kv: 4 })).toBe(true);
    expect(fitted({ train: "clip", let: true })).toBe(true);
    expect(fitted({ let: false }, "layer")).toBe(false);
  });

  it("refuses to mix whole-block training with other methods", async () => {
    await expect(run({ ...trained, overrides: [{ match: "*.o_proj", method: "rtn" }] })).rejects.toMatchObject({
      kind: "usage",
      message: expect.stringMatching(/o_proj is to be quantized by rtn/),
    });
    const { files: written } = await run({ ...trained, overrides: [{ match: "*.o_proj", keep: true }] });
    const back = await openCheckpointModel(memoryFolder("back", written));
    expect(back.layers.some(({ name }) => name.endsWith("o_proj"))).toBe(false);
  });

  it("stores how activations are quantized, and what the transformation made of the norms", async () => {
    const { files: written } = await run({ ...trained, activations: 6, kv: 8 });
    const back = await openCheckpointModel(memoryFolder("back", written));
    expect(back.activations).toMatchObject({ input: 6, query: 6, key: 8, value: 8 });
    const norm = "model.layers.0.input_layernorm.weight";
    const shape = [model.model.hidden];
    expect(await back.weights.read(norm, shape)).not.toEqual(await model.weights.read(norm, shape));
    const plain = await run({ ...trained, let: false });
    const kept = await openCheckpointModel(memoryFolder("kept", plain.files));
    expect(await kept.weights.read(norm, shape)).toEqual(await model.weights.read(norm, shape));
    expect(kept.activations).toBeUndefined();
  });

  it("does an entry again that the journal holds damaged", async () => {
    const journal = memoryJournal();
    const whole = await run(small, { journal });
    await journal.write("model.layers.0.self_attn.o_proj.unit", Uint8Array.of(1, 2, 3));
    expect((await run(small, { journal, resume: true })).files).toEqual(whole.files);
  });

  it("gives the same bytes when runs share its blocks", async () => {
    const recipe: RecipeInput = { ...small, propagate: "full", asymmetric: 0 };
    const journal = memoryJournal();
    const passed: number[][] = [];
    const share = (index: number, others?: () => Promise<void>) => {
      const blocks: number[] = [];
      passed[index] = blocks;
      const onEvent = (event: QuantizeEvent) => {
        if (event.type === "block") blocks.push(event.block);
      };
      return { journal, share: { ...shareOf(index, 2), others }, onEvent };
    };
    const first = await run(recipe, {
      ...share(0, async () => {
        // an engine of its own, as in another process
        const options = { engine: createReferenceEngine(), calibration: tokens, calibrationName: "random tokens" };
        await quantizeLinears(model, recipe, { ...options, resume: true, ...share(1) });
      }),
    });
    expect(passed).toEqual([[0], [0, 1]]);
    expect(first.files).toEqual((await run(recipe)).files);
  });

  it("leaves linears alone and mixes methods", async () => {
    const { files: written } = await run({
      ...small,
      overrides: [
        { match: "*.down_proj", keep: true },
        { match: "*.o_proj", method: "rtn", bits: 4, group: 16 },
      ],
    });
    const back = await openCheckpointModel(memoryFolder("back", written));
    expect(back.format).toBe("bitwright");
    expect(back.layers.some(({ name }) => name.endsWith("down_proj"))).toBe(false);
    expect(
      await back.weights.read("model.layers.0.mlp.down_proj.weight", await shapeOf("model.layers.0.mlp.down_proj")),
    ).toEqual(
      await model.weights.read("model.layers.0.mlp.down_proj.weight", await shapeOf("model.layers.0.mlp.down_proj")),
    );
    expect((await back.record("model.layers.1.self_attn.o_proj")).kind).toBe("affine");
  });

  it("lets a timer stop it, though it computes without a pause", async () => {
    const abort = new AbortController();
    setTimeout(() => abort.abort(), 20);
    await expect(run(small, { signal: abort.signal })).rejects.toMatchObject({ kind: "aborted" });
  });

  it("frees everything", async () => {
    const before = engine.liveBytes();
    await run(small);
    expect(engine.liveBytes()).toBe(before);
    const abort = new AbortController();
    await expect(
      run(small, { signal: abort.signal, onEvent: (event) => event.type === "pass" && abort.abort() }),
    ).rejects.toThrow();
    expect(engine.liveBytes()).toBe(before);
  });

  it.each([
    [{ ...small, samples: 1000 }, /400 tokens.*16 windows of 24.*1000/],
    [{ ...small, codebook: 4096 }, /main codebook has 4096 codewords.*vectors of 4/],
    [{ ...small, overrides: [{ match: "*.nothing", keep: true }] }, /matches no linear: \*\.nothing/],
    [{ ...small, overrides: [{ match: "*", keep: true }] }, /keeps every linear/],
  ] as [RecipeInput, RegExp][])("refuses %j", async (recipe, message) => {
    await expect(run(recipe)).rejects.toThrow(message);
    await expect(run(recipe)).rejects.toMatchObject({ kind: "usage" });
  });

  const shapeOf = async (name: string) => {
    const { spec } = planOf(model.model, resolveRecipe({})).find((linear) => linear.spec.name === name)!;
    return [spec.rows, spec.columns];
  };
});
