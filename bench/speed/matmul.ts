// f32 products on the wasm engine beside the machine's BLAS, at equal threads in one run.
// node scripts/bench.mjs bench/speed/matmul.ts [side of the square product, default 1024]
import { createBlasEngine } from "../../src/engine/blas/index.js";
import type { Engine } from "../../src/engine/engine.js";
import { createWasmEngine } from "../../src/engine/wasm/engine.js";
import { enableRelaxedSimd } from "../../src/node/engines.js";
import { nodeWorkers } from "../../src/node/threads.js";

const side = Number(process.argv[2] ?? 1024);
const ROUNDS = 12;

/** GFLOP/s of one round of `matmul(x, W, { transposeB: true })`. */
function round(engine: Engine, n: number): number {
  return engine.scope(() => {
    const fill = (factor: number) => Float32Array.from({ length: n * n }, (_, i) => Math.sin(i * factor));
    const a = engine.upload(fill(1.1), [n, n], "f32");
    const b = engine.upload(fill(1.7), [n, n], "f32");
    const start = performance.now();
    engine.matmul(a, b, { transposeB: true });
    return (2 * n ** 3) / (performance.now() - start) / 1e6;
  });
}

const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1];

enableRelaxedSimd();
const engines: { label: string; engine: Engine; speeds: number[] }[] = [];
for (const threads of [1, 2]) {
  const spawnWorker = nodeWorkers();
  const add = (label: string, engine: Engine) => engines.push({ label: `${label} ${threads}`, engine, speeds: [] });
  add("plain", await createWasmEngine({ threads, spawnWorker, reproducible: true }));
  add("wasm", await createWasmEngine({ threads, spawnWorker }));
  const blas = await createBlasEngine({ threads, spawnWorker });
  if ("engine" in blas) add("blas", blas.engine);
  else console.log(blas.reason);
}
// the library has one thread count for the whole process, so the engines take turns by threads
for (const threads of [1, 2]) {
  const mine = engines.filter(({ engine }) => engine.threads === threads);
  if (mine.some(({ engine }) => engine.name === "blas")) await createBlasEngine({ threads });
  for (let turn = 0; turn < ROUNDS; turn++)
    for (const { engine, speeds } of mine) {
      const speed = round(engine, side);
      if (turn >= 3) speeds.push(speed);
    }
}
const speedOf = new Map(engines.map(({ label, speeds }) => [label, median(speeds)]));
for (const { label, engine } of engines)
  console.log(
    `${label.padEnd(8)} ${(speedOf.get(label) as number).toFixed(1).padStart(6)} GFLOP/s  ${engine.description}`,
  );
for (const kind of ["plain", "wasm"])
  for (const threads of [1, 2]) {
    const blas = speedOf.get(`blas ${threads}`);
    const mine = speedOf.get(`${kind} ${threads}`) as number;
    if (blas) console.log(`${kind} ${threads} / blas ${threads}: ${(mine / blas).toFixed(3)}`);
  }
for (const kind of ["plain", "wasm"])
  console.log(
    `${kind} 2 / ${kind} 1: ${((speedOf.get(`${kind} 2`) as number) / (speedOf.get(`${kind} 1`) as number)).toFixed(2)}`,
  );
await Promise.all(engines.map(({ engine }) => engine.close()));
