// Operations of block training on one sequence of 1024 tokens: milliseconds each, best of several.
// node scripts/bench.mjs bench/speed/gradients.ts [threads, default 2] [tokens, default 1024]

import { createWasmEngine } from "../../src/engine/wasm/engine.js";
import { enableRelaxedSimd } from "../../src/node/engines.js";
import { nodeWorkers } from "../../src/node/threads.js";
import { createRandom } from "../../src/random.js";
import type { F32 } from "../../src/tensor/index.js";

const [threads, tokens] = [Number(process.argv[2] ?? 2), Number(process.argv[3] ?? 1024)];
enableRelaxedSimd();
const engine = await createWasmEngine({ threads, spawnWorker: nodeWorkers() });
const random = createRandom(0);

function normal(...shape: number[]): F32 {
  const size = shape.reduce((product, extent) => product * extent, 1);
  return engine.upload(
    Float32Array.from({ length: size }, () => random.normal()),
    shape,
    "f32",
  );
}

function time(name: string, body: () => unknown): void {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 12; round++) {
    const begin = performance.now();
    engine.scope(() => {
      body();
    });
    best = Math.min(best, performance.now() - begin);
  }
  console.log(`${name.padEnd(44)} ${best.toFixed(2)} ms`);
}

console.log(engine.description);
const [q, k, v, grad] = [8, 4, 4, 8].map((heads) => normal(1, tokens, heads, 64));
const slopes = normal(8);
for (const [what, options] of Object.entries({
  "": { scale: 0.125 },
  ", window 256": { scale: 0.125, window: 256 },
  ", slopes": { scale: 0.125, slopes },
})) {
  const output = engine.attention(q, k, v, options);
  time(`attention [1, ${tokens}, 8, 64], 4 key heads${what}`, () => engine.attention(q, k, v, options));
  time(`attentionGrad${what}`, () => engine.attentionGrad(q, k, v, output, grad, options));
}
const [x, g] = [normal(tokens, 512), normal(tokens, 512)];
const [weight, bias] = [normal(512), normal(512)];
time(`rmsNorm [${tokens}, 512]`, () => engine.rmsNorm(x, weight, 1e-5));
time("rmsNormGrad", () => engine.rmsNormGrad(x, weight, 1e-5, g));
time("layerNorm", () => engine.layerNorm(x, weight, bias, 1e-5));
time("layerNormGrad", () => engine.layerNormGrad(x, weight, 1e-5, g));
time("sumRows", () => engine.sumRows(x));
const [gate, up, h] = [normal(tokens, 1408), normal(tokens, 1408), normal(tokens, 1408)];
time(`siluMultiply [${tokens}, 1408]`, () => engine.siluMultiply(gate, up));
time("siluMultiplyGrad", () => engine.siluMultiplyGrad(gate, up, h));
time("gelu", () => engine.gelu(gate));
time("geluGrad", () => engine.geluGrad(gate, h));
const [first, second] = [engine.create(gate.shape), engine.create(gate.shape)];
const options = { rate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, decay: 0, step: 1 };
time("adamwStep", () => engine.adamwStep(gate, h, first, second, options));
const [a, b] = [normal(1024, 1024), normal(1024, 1024)];
time("matmul 1024^3", () => engine.matmul(a, b));
await engine.close();
