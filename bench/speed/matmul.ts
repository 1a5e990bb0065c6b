// f32 products on the wasm engine beside the machine's BLAS, at equal threads in one run.
// node scripts/bench.mjs bench/speed/matmul.ts [side of the square product, default 1024] [rounds, default 15]
import { createBlasEngine } from "../../src/engine/blas/index.js";
import { findBlas } from "../../src/engine/blas/library.js";
import type { Engine } from "../../src/engine/engine.js";
import { createWasmEngine } from "../../src/engine/wasm/engine.js";
import { enableRelaxedSimd } from "../../src/node/engines.js";
import { nodeWorkers } from "../../src/node/threads.js";

const side = Number(process.argv[2] ?? 1024);
const rounds = Number(process.argv[3] ?? 15);
const THREADS = [1, 2];
const WARM_UP = 3;

interface Row {
  label: string;
  engine: Engine;
  /** GFLOP/s of each round. */
  speeds: number[];
}

/** GFLOP/s of one `matmul(x, W, { transposeB: true })`. */
function measure(engine: Engine, n: number): number {
  return engine.scope(() => {
    const fill = (factor: number) => Float32Array.from({ length: n * n }, (_, i) => Math.sin(i * factor));
    const a = engine.upload(fill(1.1), [n, n], "f32");
    const b = engine.upload(fill(1.7), [n, n], "f32");
    const start = performance.now();
    engine.matmul(a, b, { transposeB: true });
    return (2 * n ** 3) / (performance.now() - start) / 1e6;
  });
}

enableRelaxedSimd();
const rows: Row[] = [];
for (const threads of THREADS) {
  const spawnWorker = nodeWorkers();
  const add = (label: string, engine: Engine) => rows.push({ label: `${label} ${threads}`, engine, speeds: [] });
  add("plain", await createWasmEngine({ threads, spawnWorker, reproducible: true }));
  add("wasm", await createWasmEngine({ threads, spawnWorker }));
  const blas = await createBlasEngine({ threads, spawnWorker });
  if ("engine" in blas) add("blas", blas.engine);
  else console.log(blas.reason);
}
// all take turns, so that what else the machine does meets all alike
for (let round = -WARM_UP; round < rounds; round++)
  for (const threads of THREADS) {
    await findBlas(threads); // a library has one thread count for the whole process
    for (const { engine, speeds } of rows.filter((row) => row.engine.threads === threads)) {
      const speed = measure(engine, side);
      if (round >= 0) speeds.push(speed);
    }
  }

const best = new Map<string, number>();
for (const { label, engine, speeds } of rows) {
  speeds.sort((a, b) => a - b);
  best.set(label, speeds[speeds.length - 1]);
  const [median, most] = [speeds[speeds.length >> 1], speeds[speeds.length - 1]].map((speed) => speed.toFixed(1));
  console.log(
    `${label.padEnd(8)} best ${most.padStart(6)}  median ${median.padStart(6)} GFLOP/s  ${engine.description}`,
  );
}
const ratio = (one: string, other: string) => {
  const [a, b] = [best.get(one), best.get(other)];
  if (a !== undefined && b !== undefined) console.log(`${one} / ${other}: ${(a / b).toFixed(3)} (best of ${rounds})`);
};
for (const kind of ["plain", "wasm"]) {
  for (const threads of THREADS) ratio(`${kind} ${threads}`, `blas ${threads}`);
  ratio(`${kind} 2`, `${kind} 1`);
}
ratio("blas 2", "blas 1");
for (const { engine } of rows) await engine.close();
