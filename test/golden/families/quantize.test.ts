import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type CheckpointModel, openCheckpointModel } from "../../../src/checkpoint/open.js";
import type { Engine } from "../../../src/engine/engine.js";
import { memoryFolder, memoryOutput } from "../../../src/files/memory.js";
import { blockLinears } from "../../../src/model/block.js";
import { openDecoder } from "../../../src/model/decoder.js";
import { createEngine } from "../../../src/node/engines.js";
import { quantize } from "../../../src/pipeline/job.js";
import type { RecipeInput } from "../../../src/pipeline/recipe.js";
import { createRandom } from "../../../src/random.js";
import { EIGHT_BITS } from "../../tolerances.js";
import { expectedLogits, FIXTURES } from "./fixtures.js";

// Every method on every family: the checkpoint is read back, has every linear quantized, and runs.

const small = { samples: 3, window: 24 };
const METHODS: [string, RecipeInput][] = [
  ["vptq", { ...small, codebook: 16, vectorLength: 4, iterations: 5, refine: 1 }],
  ["vptq, full-precision stream", { ...small, codebook: 16, vectorLength: 4, iterations: 5, propagate: "full" }],
  ["gptq", { ...small, method: "gptq", bits: 3, group: 16 }],
  ["rtn", { method: "rtn", bits: 4, group: 16 }],
  ["omniquant", { ...small, method: "omniquant", bits: 4, group: 16, epochs: 1, tuneEpochs: 1 }],
  [
    "omniquant, activations too",
    { ...small, method: "omniquant", bits: 6, group: "channel", activations: 8, epochs: 1, tuneEpochs: 1 },
  ],
];

let engine: Engine;
beforeAll(async () => {
  engine = (await createEngine("wasm", { threads: 2 })).engine;
});
afterAll(async () => {
  expect(engine.liveBytes()).toBe(0);
  await engine.close();
});

const open = (fixture: string): Promise<CheckpointModel> => {
  const read = (name: string) =>
    new Uint8Array(readFileSync(fileURLToPath(new URL(`${fixture}/${name}`, import.meta.url))));
  const names = ["config.json", "model.safetensors"];
  return openCheckpointModel(memoryFolder(fixture, new Map(names.map((name) => [name, read(name)]))));
};

async function quantized(model: CheckpointModel, recipe: RecipeInput): Promise<CheckpointModel> {
  const random = createRandom(3);
  const calibration = Int32Array.from({ length: 200 }, () => random.integer(model.model.vocabulary));
  const output = memoryOutput();
  await quantize(model, recipe, { engine, output, calibration, calibrationName: "random tokens" });
  return openCheckpointModel(memoryFolder("back", output.files));
}

async function logits({ model, weights }: CheckpointModel, tokens: number[][]): Promise<Float32Array> {
  const decoder = await openDecoder(engine, model, weights);
  try {
    return await engine.scope(async () => engine.read(await decoder.logits(tokens)));
  } finally {
    decoder.close();
  }
}

describe.each(FIXTURES)("%s", (fixture) => {
  it.each(METHODS)("%s", async (_name, recipe) => {
    const model = await open(fixture);
    const back = await quantized(model, recipe);
    const linears = Array.from({ length: model.model.layers }, (_, index) => blockLinears(model.model, index)).flat();
    expect(back.layers.map(({ name }) => name).sort()).toEqual(linears.map(({ name }) => name).sort());
    const { tokens } = expectedLogits(fixture);
    expect((await logits(back, tokens)).every(Number.isFinite)).toBe(true);
  });

  it.each([
    ["gptq", { method: "gptq" }],
    // the transformation alone leaves the function as it was; clipping and trained weights do not
    [
      "omniquant, its transformation folded into what is stored",
      { method: "omniquant", activations: 8, epochs: 2, train: "clip", lwc: false },
    ],
  ] as [string, RecipeInput][])("gives nearly the logits of transformers at eight bits: %s", async (_name, words) => {
    const { tokens, logits: expected } = expectedLogits(fixture);
    const recipe: RecipeInput = { ...small, ...words, bits: 8, group: 8 };
    const got = await logits(await quantized(await open(fixture), recipe), tokens);
    const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const squares = expected.reduce((sum, value, at) => sum + (got[at] - value) ** 2, 0);
    expect(Math.sqrt(squares / expected.length) / largest).toBeLessThan(EIGHT_BITS);
  });
});
