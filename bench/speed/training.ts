// One OmniQuant training step (forward, loss, backward) on a block of wiki-40m's shape, 1 x 1024 tokens, ours beside torch.
// node scripts/bench.mjs bench/speed/training.ts [threads, default 2] [steps, default 10]
// PYTHON names an interpreter with torch, default python3.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Parameter } from "../../src/autograd/index.js";
import type { ClippingLogits, Engine } from "../../src/engine/engine.js";
import type { ActivationScheme } from "../../src/model/activation-scheme.js";
import { type BlockWeights, blockLinears, blockVectors } from "../../src/model/block.js";
import { parseModelConfig } from "../../src/model/config.js";
import { createRopeTables } from "../../src/model/rope.js";
import { createEngine } from "../../src/node/engines.js";
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

interface Timing {
  milliseconds: number;
  /** Beyond the block's weights, most at a time. */
  peakBytes: number;
}

async function time(engine: Engine, grid: GridScheme, activations: ActivationScheme | undefined): Promise<Timing> {
  return engine.scope(async () => {
    const random = createRandom(0, "training");
    const normal = (shape: number[], spread: number) => {
      const size = shape.reduce((a, b) => a * b, 1);
      return engine.upload(
        Float32Array.from({ length: size }, () => spread * random.normal()),
        shape,
        "f32",
      );
    };
    const weights: BlockWeights = { linears: {}, vectors: {} };
    for (const { slot, rows, columns } of blockLinears(config, 0))
      weights.linears[slot] = { weight: normal([rows, columns], columns ** -0.5) };
    for (const { slot, size } of blockVectors(config, 0))
      weights.vectors[slot] = engine.upload(new Float32Array(size).fill(1), [size], "f32");
    const grids = Object.fromEntries(Object.keys(weights.linears).map((slot) => [slot, grid]));
    const clipping: Record<string, ClippingLogits> = {};
    for (const [slot, { weight }] of Object.entries(weights.linears)) {
      const shape = [weight.shape[0], groupsOf(grid, weight.shape[1])];
      const logits = () => engine.upload(new Float32Array(shape[0] * shape[1]).fill(4), shape, "f32");
      clipping[slot] = { upper: logits(), lower: logits() };
    }
    const plan = activations ? planTransform(config, activations) : { sites: [], linears: {}, norms: {} };
    const transform = new Transform(engine, plan);
    const by = transform.identity();
    const named = (tensors: Record<string, F32>): Parameter[] =>
      Object.entries(tensors).map(([name, tensor]) => ({ name, tensor, rate: 0 }));
    const rope = createRopeTables(engine, config, TOKENS);
    const job = {
      block: {
        engine,
        config,
        name: "block",
        weights,
        grids,
        context: (running: Engine, scheme?: ActivationScheme) => ({
          engine: running,
          config,
          layer: 0,
          rope,
          start: 0,
          activations: scheme,
        }),
      },
      activations,
      weights: (running: Engine) => clippedBlock(running, transform.apply(running, weights, by), grids, clipping),
      parameters: [...named(by.scale), ...Object.values(clipping).flatMap((logits) => named({ ...logits }))],
    };
    const x = normal([1, TOKENS, config.hidden], 1);
    const target = normal([1, TOKENS, config.hidden], 1);
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

function torch(): { torch: string; w3g128: number; w4a4: number } {
  const script = fileURLToPath(new URL("../bench/speed/training.py", import.meta.url)); // from build/
  const environment = { ...process.env, OMP_NUM_THREADS: `${threads}` };
  const { stdout, stderr, status } = spawnSync(process.env.PYTHON ?? "python3", [script, `${threads}`, `${steps}`], {
    env: environment,
  });
  if (status !== 0) throw new Error(`torch did not run: ${stderr}`);
  return JSON.parse(stdout.toString());
}

const peer = torch();
console.log(
  `torch ${peer.torch}, ${threads} threads: W3 g128 ${peer.w3g128.toFixed(0)} ms, W4A4 ${peer.w4a4.toFixed(0)} ms`,
);
const weightBytes = 4 * blockLinears(config, 0).reduce((sum, { rows, columns }) => sum + rows * columns, 0);
for (const name of ["blas", "wasm"] as const) {
  const { engine } = await createEngine(name, { threads });
  const settings = [
    ["W3 g128, clipping", { bits: 3, group: 128, symmetric: false }, undefined, peer.w3g128],
    [
      "W4A4, clipping and transformation",
      { bits: 4, group: "channel", symmetric: false },
      { input: 4, query: 4, key: 4, value: 4 },
      peer.w4a4,
    ],
  ] as const;
  for (const [title, grid, activations, theirs] of settings) {
    const { milliseconds, peakBytes } = await time(engine, grid, activations);
    const memory = (peakBytes / weightBytes).toFixed(1);
    console.log(
      `${name}: ${title}: ${milliseconds.toFixed(0)} ms a step, ${(milliseconds / theirs).toFixed(2)} of torch's time; ` +
        `${(peakBytes / 1e6).toFixed(0)} MB beside the weights, ${memory} times theirs`,
    );
  }
  await engine.close();
}
