// OmniQuant on a block of random weights: a step of the first training (forward, loss, backward), ours beside torch; then the most
// memory that all of a block's training takes, as the defaults have it: both trainings, everything counted.
// node scripts/bench.mjs bench/speed/training.ts [--threads 2] [--steps 10] [--shape wiki-40m|7b] [--engines blas,wasm]
//   [--precision f32] [--settings w3,w4a4] [--parts steps,memory]
// wiki-40m: 1 x 1024 tokens; 7b: LLaMA-2-7B's block, 1 x 2048 tokens, for `--engines cuda --precision f16`.
// PYTHON names an interpreter with torch, default python3; without torch ours stand alone. For cuda torch runs on the card, eager,
// under autocast to f16.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import type { Parameter } from "../../src/autograd/index.js";
import type { ClippingLogits, Engine, Precision } from "../../src/engine/engine.js";
import type { ActivationScheme } from "../../src/model/activation-scheme.js";
import { type BlockWeights, blockLinears, blockVectors } from "../../src/model/block.js";
import { parseModelConfig } from "../../src/model/config.js";
import { createRopeTables } from "../../src/model/rope.js";
import { forwardBlock } from "../../src/model/stages.js";
import { createEngine, type EngineChoice } from "../../src/node/engines.js";
import { resolveRecipe, trainingOf } from "../../src/pipeline/recipe.js";
import type { TrainingBlock } from "../../src/quant/omniquant/block.js";
import { quantizeOmniquant } from "../../src/quant/omniquant/omniquant.js";
import { clippedBlock, groupsOf } from "../../src/quant/omniquant/quantizer.js";
import type { GridScheme } from "../../src/quant/omniquant/scheme.js";
import { lossAndGradients } from "../../src/quant/omniquant/train.js";
import { planTransform, Transform } from "../../src/quant/omniquant/transform.js";
import { createRandom } from "../../src/random.js";
import type { F32 } from "../../src/tensor/index.js";

const { values: args } = parseArgs({
  options: {
    threads: { type: "string", default: "2" },
    steps: { type: "string", default: "10" },
    shape: { type: "string", default: "wiki-40m" },
    engines: { type: "string", default: "blas,wasm" },
    precision: { type: "string", default: "f32" },
    settings: { type: "string", default: "w3,w4a4" },
    parts: { type: "string", default: "steps,memory" },
  },
});
const [threads, steps] = [Number(args.threads), Number(args.steps)];
const engines = args.engines.split(",") as EngineChoice[];
const precision = args.precision as Precision;
const [asked, parts] = [new Set(args.settings.split(",")), new Set(args.parts.split(","))];
const WARM_UP = 3;
const SHAPES = {
  "wiki-40m": { hidden: 512, heads: 8, keyValueHeads: 4, mlp: 1408, tokens: 1024 },
  "7b": { hidden: 4096, heads: 32, keyValueHeads: 32, mlp: 11008, tokens: 2048 },
} as const;
const extents = SHAPES[args.shape as keyof typeof SHAPES];
const TOKENS = extents.tokens;
const config = parseModelConfig({
  model_type: "llama",
  hidden_size: extents.hidden,
  num_hidden_layers: 1,
  num_attention_heads: extents.heads,
  num_key_value_heads: extents.keyValueHeads,
  intermediate_size: extents.mlp,
  max_position_embeddings: TOKENS,
  vocab_size: 8,
});

const shape = [1, TOKENS, config.hidden];
const weightBytes = 4 * blockLinears(config, 0).reduce((sum, { rows, columns }) => sum + rows * columns, 0);
const random = createRandom(0, "training");
const numbers = Float32Array.from({ length: 2 ** 20 + 7 }, () => random.normal());
let drawn = 0;
/** Normal numbers; after a million of them they come again, out of step with the rows of a matrix. */
function normal(size: number, spread: number): Float32Array {
  const scaled = numbers.map((x) => spread * x);
  const result = new Float32Array(size);
  for (let at = 0; at < size; ) {
    const part = scaled.subarray(drawn, drawn + size - at);
    result.set(part, at);
    at += part.length;
    drawn = (drawn + part.length) % numbers.length;
  }
  return result;
}

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
      weights: (running: Engine) => clippedBlock(running, transform.factored(running, weights, by), grids, clipping),
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
  /** "2 threads", or the card. */
  device: string;
  w3g128: number;
  w4a4: number;
}

function torch(): Peer | undefined {
  const script = fileURLToPath(new URL("../bench/speed/training.py", import.meta.url)); // from build/
  const environment = { ...process.env, OMP_NUM_THREADS: `${threads}` };
  const device = engines.includes("cuda") ? "cuda" : "cpu";
  const { hidden, heads, keyValueHeads, mlp } = extents;
  const shape = [hidden, heads, keyValueHeads, mlp, TOKENS].join(",");
  const { stdout, stderr, status } = spawnSync(
    process.env.PYTHON ?? "python3",
    [script, `${threads}`, `${steps}`, shape, device],
    { env: environment },
  );
  if (status === 0) return JSON.parse(stdout.toString());
  if (/No module named '(torch|numpy)'/.test(`${stderr}`)) return undefined;
  throw new Error(`torch did not run: ${stderr}`);
}

const peer = torch();
console.log(
  peer
    ? `torch ${peer.torch}, ${peer.device}: W3 g128 ${peer.w3g128.toFixed(1)} ms, W4A4 ${peer.w4a4.toFixed(1)} ms`
    : "no torch: set PYTHON to compare",
);
const W3: GridScheme = { bits: 3, group: 128, symmetric: false };
const W4: GridScheme = { bits: 4, group: "channel", symmetric: false };
const copies = (bytes: number) =>
  `${(bytes / 1e6).toFixed(0)} MB, ${(bytes / weightBytes).toFixed(1)} times the weights`;
for (const name of engines) {
  const { engine } = await createEngine(name, { threads, precision });
  console.log(engine.description);
  const settings = [
    ["w3", "W3 g128, clipping", W3, undefined, peer?.w3g128],
    ["w4a4", "W4A4, clipping and transformation", W4, { input: 4, query: 4, key: 4, value: 4 }, peer?.w4a4],
  ] as const;
  for (const [word, title, grid, activations, theirs] of parts.has("steps") ? settings : []) {
    if (!asked.has(word)) continue;
    const { milliseconds, peakBytes } = await timeStep(engine, grid, activations);
    const ratio = theirs === undefined ? "" : `, ${(milliseconds / theirs).toFixed(2)} of torch's time`;
    console.log(
      `${name}: ${title}: ${milliseconds.toFixed(1)} ms a step${ratio}; beside the weights ${copies(peakBytes)}`,
    );
  }
  const wholes = [
    ["w3", "W3 g128", W3, 16],
    ["w4a4", "W4A4", W4, 4],
  ] as const;
  for (const [word, title, grid, activations] of parts.has("memory") ? wholes : []) {
    if (!asked.has(word)) continue;
    const { clip, tune } = await peaks(engine, grid, activations);
    console.log(
      `${name}: ${title}, all of a block's training: clipping and transformation ${copies(clip)}; ` +
        `scales, zeros and weights ${copies(tune)}`,
    );
  }
  await engine.close();
}
