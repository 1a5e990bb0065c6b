// OmniQuant on a block of wiki-40m's shape, 1 x 1024 tokens: a step of the first training (forward, loss, backward), ours beside torch; then
// the most memory that all of a block's training takes, as the defaults have it: both trainings, everything counted.
// node scripts/bench.mjs bench/speed/training.ts [threads, default 2] [steps, default 10]
// PYTHON names an interpreter with torch, default python3; without torch ours stand alone.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Parameter } from "../../src/autograd/index.js";
import type { ClippingLogits, Engine } from "../../src/engine/engine.js";
import type { ActivationScheme } from "../../src/model/activation-scheme.js";
import { type BlockWeights, blockLinears, blockVectors } from "../../src/model/block.js";
import { parseModelConfig } from "../../src/model/config.js";
import { createRopeTables } from "../../src/model/rope.js";
import { forwardBlock } from "../../src/model/stages.js";
import { createEngine } from "../../src/node/engines.js";
import { resolveRecipe, trainingOf } from "../../src/pipeline/recipe.js";
import type { TrainingBlock } from "../../src/quant/omniquant/block.js";
import { quantizeOmniquant } from "../../src/quant/omniquant/omniquant.js";
import { clippedBlock, groupsOf } from "../../src/quant/omniquant/quantizer.js";
import type { GridScheme } from "../../src/quant/omniquant/scheme.js";
import { lossAndGradients } from "../../src/quant/omniquant/train.js";
import { planTransform, Transform } from "../../src/quant/omniquant/transform.js";
import { createRandom } from "../../src/random.js";
import type { F32 } from "../../src/tensor/index.js";

const [threads, steps] = [Number(process.argv[2] ?? 2), Number(process.argv[3] ?? 10)];
const [WARM_UP, TOKENS] = [3, 1024];
const config = parseModelConfig({
  model_type: "llama",
  hidden_size: 512,
  num_hidden_layers: 1,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  intermediate_size: 1408,
  vocab_size: 8,
});

const shape = [1, TOKENS, config.hidden];
const weightBytes = 4 * blockLinears(config, 0).reduce((sum, { rows, columns }) => sum + rows * columns, 0);
const random = createRandom(0, "training");
const normal = (size: number, spread: number) => Float32Array.from({ length: size }, () => spread * random.normal());

/** A block with random weights, and all linears on one grid; in the current scope. */
function randomBlock(engine: Engine, grid: GridScheme): TrainingBlock {
  const weights: BlockWeights = { linears: {}, vectors: {} };
  for (const { slot, rows, columns } of blockLinears(config, 0))
    weights.linears[slot] = { weight: engine.upload(normal(rows * columns, columns ** -0.5), [rows, columns], "f32") };
  for (const { slot, size } of blockVectors(config, 0))
    weights.vectors[slot] = engine.upload(new Float32Array(size).fill(1), [size], "f32");
  const grids = Object.fromEntries(Object.keys(weights.linears).map((slot) => [slot, grid]));
  const rope = createRopeTables(engine, config, TOKENS);
  const context: TrainingBlock["context"] = (running, activations) => ({
    engine: running,
    config,
    layer: 0,
    rope,
    start: 0,
    activations,
  });
  return { engine, config, name: "block", weights, grids, context };
}

interface Timing {
  milliseconds: number;
  /** Beyond the block's weights, most at a time. */
  peakBytes: number;
}

async function timeStep(engine: Engine, grid: GridScheme, activations: ActivationScheme | undefined): Promise<Timing> {
  return engine.scope(async () => {
    const block = randomBlock(engine, grid);
    const { weights, grids } = block;
    const clipping: Record<string, ClippingLogits> = {};
    for (const [slot, { weight }] of Object.entries(weights.linears)) {
      const extents = [weight.shape[0], groupsOf(grid, weight.shape[1])];
      const logits = () => engine.upload(new Float32Array(extents[0] * extents[1]).fill(4), extents, "f32");
      clipping[slot] = { upper: logits(), lower: logits() };
    }
    const plan = activations ? planTransform(config, activations) : { sites: [], linears: {}, norms: {} };
    const transform = new Transform(engine, plan);
    const by = transform.identity();
    const named = (tensors: Record<string, F32>): Parameter[] =>
      Object.entries(tensors).map(([name, tensor]) => ({ name, tensor, rate: 0 }));
    const job = {
      block,
      activations,
      weights: (running: Engine) => clippedBlock(running, transform.apply(running, weights, by), grids, clipping),
      parameters: [...named(by.scale), ...Object.values(clipping).flatMap((logits) => named({ ...logits }))],
    };
    const x = engine.upload(normal(TOKENS * config.hidden, 1), shape, "f32");
    const target = engine.upload(normal(TOKENS * config.hidden, 1), shape, "f32");
    const times: number[] = [];
    engine.resetPeak();
    const before = engine.liveBytes();
    for (let step = 0; step < WARM_UP + steps; step++) {
      const since = performance.now();
      await engine.scope(async () => {
        await lossAndGradients(job, x, target);
      });
      times.push(performance.now() - since);
    }
    transform.dispose();
    const sorted = times.slice(WARM_UP).sort((a, b) => a - b);
    return { milliseconds: sorted[Math.floor(sorted.length / 2)], peakBytes: engine.peakBytes() - before };
  });
}

/** Most bytes of a block's quantization at a time, the block's weights and all else included, until the end of each training. */
async function peaks(engine: Engine, grid: GridScheme, activations: 4 | 16): Promise<Record<string, number>> {
  const recipe = resolveRecipe({ method: "omniquant", activations, epochs: 1, tuneEpochs: 1 });
  const result: Record<string, number> = {};
  await engine.scope(async () => {
    const block = randomBlock(engine, grid);
    const inputs = [0, 1].map(() => normal(TOKENS * config.hidden, 1)); // outside the engine, as the streams keep them
    const load = (values: Float32Array) => engine.upload(values, shape, "f32");
    const targets: Float32Array[] = [];
    for (const input of inputs) {
      targets.push(
        await engine.scope(() => engine.read(forwardBlock(block.context(engine), block.weights, load(input)))),
      );
    }
    const streams = {
      windows: inputs.length,
      input: async (window: number) => load(inputs[window]),
      target: async (window: number) => load(targets[window]),
    };
    const onTrained = (stage: string) => {
      result[stage] = engine.peakBytes();
      engine.resetPeak();
    };
    engine.resetPeak();
    await quantizeOmniquant(block, streams, trainingOf(recipe), { seed: 0, storage: "f16", progress: { onTrained } });
  });
  return result;
}

interface Peer {
  torch: string;
  w3g128: number;
  w4a4: number;
}

function torch(): Peer | undefined {
  const script = fileURLToPath(new URL("../bench/speed/training.py", import.meta.url)); // from build/
  const environment = { ...process.env, OMP_NUM_THREADS: `${threads}` };
  const { stdout, stderr, status } = spawnSync(process.env.PYTHON ?? "python3", [script, `${threads}`, `${steps}`], {
    env: environment,
  });
  if (status === 0) return JSON.parse(stdout.toString());
  if (/No module named '(torch|numpy)'/.test(`${stderr}`)) return undefined;
  throw new Error(`torch did not run: ${stderr}`);
}

const peer = torch();
console.log(
  peer
    ? `torch ${peer.torch}, ${threads} threads: W3 g128 ${peer.w3g128.toFixed(0)} ms, W4A4 ${peer.w4a4.toFixed(0)} ms`
    : "no torch: set PYTHON to compare",
);
const W3: GridScheme = { bits: 3, group: 128, symmetric: false };
const W4: GridScheme = { bits: 4, group: "channel", symmetric: false };
const copies = (bytes: number) =>
  `${(bytes / 1e6).toFixed(0)} MB, ${(bytes / weightBytes).toFixed(1)} times the weights`;
for (const name of ["blas", "wasm"] as const) {
  const { engine } = await createEngine(name, { threads });
  const settings = [
    ["W3 g128, clipping", W3, undefined, peer?.w3g128],
    ["W4A4, clipping and transformation", W4, { input: 4, query: 4, key: 4, value: 4 }, peer?.w4a4],
  ] as const;
  for (const [title, grid, activations, theirs] of settings) {
    const { milliseconds, peakBytes } = await timeStep(engine, grid, activations);
    const ratio = theirs === undefined ? "" : `, ${(milliseconds / theirs).toFixed(2)} of torch's time`;
    console.log(
      `${name}: ${title}: ${milliseconds.toFixed(0)} ms a step${ratio}; beside the weights ${copies(peakBytes)}`,
    );
  }
  const wholes = [
    ["W3 g128", W3, 16],
    ["W4A4", W4, 4],
  ] as const;
  for (const [title, grid, activations] of wholes) {
    const { clip, tune } = await peaks(engine, grid, activations);
    console.log(
      `${name}: ${title}, all of a block's training: clipping and transformation ${copies(clip)}; ` +
        `scales, zeros and weights ${copies(tune)}`,
    );
  }
  await engine.close();
}
