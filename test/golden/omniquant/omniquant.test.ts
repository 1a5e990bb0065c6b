import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { AdamW, type Parameter } from "../../../src/autograd/index.js";
import type { ClippingLogits, Engine } from "../../../src/engine/engine.js";
import { createReferenceEngine } from "../../../src/engine/reference/index.js";
import type { ActivationScheme } from "../../../src/model/activation-scheme.js";
import type { BlockWeights } from "../../../src/model/block.js";
import { parseModelConfig } from "../../../src/model/config.js";
import { createRopeTables } from "../../../src/model/rope.js";
import { forwardBlock } from "../../../src/model/stages.js";
import type { TrainingBlock } from "../../../src/quant/omniquant/block.js";
import { clippedBlock, gridOptions } from "../../../src/quant/omniquant/quantizer.js";
import type { GridScheme } from "../../../src/quant/omniquant/scheme.js";
import { lossAndGradients } from "../../../src/quant/omniquant/train.js";
import { planTransform, Transform, type TransformParameters } from "../../../src/quant/omniquant/transform.js";
import type { F32 } from "../../../src/tensor/index.js";
import { TRAINING_GOLDEN } from "../../tolerances.js";
import { wasmEngines } from "../../wasm-engines.js";

// One OmniQuant block step, and three steps of AdamW, against torch (make.py, README.md).

interface Stored {
  shape: number[];
  dtype: "f32" | "u8";
  data: string;
}
interface Golden {
  shape: {
    family: "llama" | "opt";
    width: number;
    heads: number;
    keyValueHeads: number;
    headSize: number;
    mlp: number;
    epsilon: number;
    ropeTheta: number;
    tokens: number;
  };
  scheme: { bits: number; group: number; activationBits: number };
  x: Stored;
  target: Stored;
  reference: Stored;
  output: Stored;
  trainedOutput: Stored;
  losses: number[];
  block: Record<string, Stored>;
  parameters: Record<string, Stored>;
  gradients: Record<string, Stored>;
  trained: Record<string, Stored>;
  folded: Record<string, Stored>;
  quantized: Record<string, { codes: Stored; scale: Stored; zero: Stored }>;
}

function values({ dtype, data }: Stored): Float32Array | Uint8Array {
  const bytes = new Uint8Array(Buffer.from(data, "base64"));
  return dtype === "u8" ? bytes : new Float32Array(bytes.buffer);
}
const floats = (stored: Stored): Float32Array => values(stored) as Float32Array;

const load = (name: string): Golden =>
  JSON.parse(readFileSync(new URL(`./${name}.json`, import.meta.url), "utf8")) as Golden;

function configOf({ shape }: Golden) {
  const shared = { hidden_size: shape.width, num_hidden_layers: 1, num_attention_heads: shape.heads, vocab_size: 8 };
  return parseModelConfig(
    shape.family === "llama"
      ? {
          ...shared,
          model_type: "llama",
          num_key_value_heads: shape.keyValueHeads,
          intermediate_size: shape.mlp,
          rms_norm_eps: shape.epsilon,
          rope_theta: shape.ropeTheta,
        }
      : { ...shared, model_type: "opt", ffn_dim: shape.mlp, activation_function: "relu", do_layer_norm_before: true },
  );
}

/** The golden's names of vectors ("mlpNorm.bias") and linears are ours but for the norms' biases. */
function blockOf(engine: Engine, golden: Golden): BlockWeights {
  const weights: BlockWeights = { linears: {}, vectors: {} };
  for (const [key, stored] of Object.entries(golden.block)) {
    const [slot, part] = key.split(".");
    const tensor = engine.upload(floats(stored), stored.shape, "f32");
    if (slot.endsWith("Norm")) weights.vectors[part === "bias" ? `${slot}Bias` : slot] = tensor;
    else weights.linears[slot] = { ...weights.linears[slot], [part]: tensor };
  }
  return weights;
}

async function expectClose(engine: Engine, got: F32, expected: Stored, what: string) {
  const own = await engine.read(got);
  const wanted = floats(expected);
  expect(own.length, what).toBe(wanted.length);
  const largest = wanted.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const apart = own.reduce((most, value, i) => Math.max(most, Math.abs(value - wanted[i])), 0);
  expect(apart / largest, `${what}: largest difference over largest value`).toBeLessThanOrEqual(TRAINING_GOLDEN);
}

async function follow(engine: Engine, golden: Golden) {
  const config = configOf(golden);
  const weights = blockOf(engine, golden);
  const bits = golden.scheme.activationBits;
  const activations: ActivationScheme | undefined =
    bits > 0 ? { input: bits, query: bits, key: bits, value: bits } : undefined;
  const grid: GridScheme = { bits: golden.scheme.bits, group: golden.scheme.group || "channel", symmetric: false };
  const grids = Object.fromEntries(Object.keys(weights.linears).map((slot) => [slot, grid]));
  const rope = createRopeTables(engine, config, golden.shape.tokens);
  const block: TrainingBlock = {
    engine,
    config,
    name: "golden",
    weights,
    grids,
    context: (running, scheme) => ({ engine: running, config, layer: 0, rope, start: 0, activations: scheme }),
  };
  const transform = new Transform(engine, planTransform(config, activations));
  const tensors: Record<string, F32> = {};
  for (const [key, stored] of Object.entries(golden.parameters)) {
    const size = stored.shape.reduce((a, b) => a * b, 1);
    const isSite = key.startsWith("scale.") || key.startsWith("shift.");
    tensors[key] = engine.upload(floats(stored), isSite ? [size] : stored.shape, "f32");
  }
  const own = transform.identity();
  const from = (prefix: string, sites: Record<string, F32>) =>
    Object.fromEntries(Object.keys(sites).map((site) => [site, tensors[`${prefix}.${site}`]]));
  const by: TransformParameters = { scale: from("scale", own.scale), shift: from("shift", own.shift) };
  expect(Object.keys(tensors).filter((key) => /^(scale|shift)\./.test(key)).length, "sites").toBe(
    Object.keys(by.scale).length + Object.keys(by.shift).length,
  );
  const clipping: Record<string, ClippingLogits> = Object.fromEntries(
    Object.keys(grids).map((slot) => [slot, { upper: tensors[`${slot}.upper`], lower: tensors[`${slot}.lower`] }]),
  );
  const job = {
    block,
    activations,
    weights: (running: Engine) => clippedBlock(running, transform.factored(running, weights, by), grids, clipping),
    parameters: Object.entries(tensors).map(
      ([name, tensor]): Parameter => ({ name, tensor, rate: /^(scale|shift)\./.test(name) ? 5e-3 : 1e-2 }),
    ),
  };
  const x = engine.upload(floats(golden.x), golden.x.shape, "f32");
  const target = engine.upload(floats(golden.target), golden.target.shape, "f32");
  const outputs = () => forwardBlock(block.context(engine, activations), job.weights(engine), x);

  await expectClose(engine, forwardBlock(block.context(engine), weights, x), golden.reference, "full precision");
  await expectClose(engine, outputs(), golden.output, "output at the start");
  const optimizer = new AdamW(engine, job.parameters);
  for (let step = 0; step < 3; step++) {
    const { value, gradients } = await lossAndGradients(job, x, target);
    // computed again part by part, to the same bits
    const again = await lossAndGradients({ ...job, memory: 0 }, x, target);
    expect(again.value).toBe(value);
    for (const [i, gradient] of gradients.entries())
      expect(await engine.read(again.gradients[i])).toEqual(await engine.read(gradient));
    expect(Math.abs(value / golden.losses[step] - 1), `loss ${step}`).toBeLessThanOrEqual(TRAINING_GOLDEN);
    if (step === 0)
      for (const [i, { name }] of job.parameters.entries())
        await expectClose(engine, gradients[i], golden.gradients[name], `gradient of ${name}`);
    await optimizer.step(gradients, 1);
  }
  const { value } = await lossAndGradients(job, x, target);
  expect(Math.abs(value / golden.losses[3] - 1), "loss 3").toBeLessThanOrEqual(TRAINING_GOLDEN);
  for (const { name, tensor } of job.parameters) await expectClose(engine, tensor, golden.trained[name], name);
  await expectClose(engine, outputs(), golden.trainedOutput, "output after three steps");
  const folded = transform.apply(engine, weights, by);
  for (const [key, stored] of Object.entries(golden.folded)) {
    const [slot, part] = key.split(".");
    const got = slot.endsWith("Norm")
      ? folded.vectors[part === "bias" ? `${slot}Bias` : slot]
      : folded.linears[slot].bias;
    if (!got) throw new Error(`${key} is missing`);
    await expectClose(engine, got, stored, `folded ${key}`);
  }
  for (const [slot, expected] of Object.entries(golden.quantized)) {
    const { weight } = folded.linears[slot];
    const options = gridOptions(grid, weight.shape[1]);
    const trained = engine.clippedGrid(weight, clipping[slot], options);
    expect(await engine.read(trained.scale), `scales of ${slot}`).toEqual(floats(expected.scale));
    expect(await engine.read(trained.zero), `zeros of ${slot}`).toEqual(Float32Array.from(values(expected.zero)));
    const codes = await engine.read(engine.affineCodes(weight, trained, options));
    expect(codes, `codes of ${slot}`).toEqual(values(expected.codes));
  }
}

const CASES = ["llama-w3", "llama-w4a4", "opt-w3", "opt-w4a4"];

describe("block training as torch does it, reference engine", () => {
  for (const name of CASES) it(name, () => follow(createReferenceEngine(), load(name)));
});

describe("and in wasm", () => {
  const { engines } = wasmEngines();
  for (const name of CASES) {
    it(name, async () => {
      for (const engine of engines) await engine.scope(() => follow(engine, load(name)));
    });
  }
});
