// Weighted k-means of 180k x 4 vectors into 256, ours beside scikit-learn's Lloyd: same data, same start, same threads, turn by turn.
// node scripts/bench.mjs bench/speed/kmeans.ts [threads, default 2] [rounds, default 3]
// PYTHON names an interpreter with scikit-learn, default python3.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createWasmEngine } from "../../src/engine/wasm/engine.js";
import { nodeWorkers } from "../../src/node/threads.js";
import { kmeans } from "../../src/quant/vptq/kmeans.js";
import { createRandom, shuffled } from "../../src/random.js";

const [threads, rounds] = [Number(process.argv[2] ?? 2), Number(process.argv[3] ?? 3)];
const [ROWS, COLUMNS, V, CODEWORDS, ITERATIONS] = [512, 1408, 4, 256, 100];
const n = (ROWS * COLUMNS) / V;

/** Weights of a linear: normal with some heavy columns; each vector weighs as its column does. */
const random = createRandom(0);
const columnScale = Float32Array.from({ length: COLUMNS }, () => Math.exp(0.2 * random.normal()));
const columnWeight = Float32Array.from({ length: COLUMNS }, () => Math.exp(random.normal()));
const vectorsOfColumn = ROWS / V;
const x = Float32Array.from({ length: n * V }, (_, i) => columnScale[Math.floor(i / ROWS)] * random.normal());
const weights = Float32Array.from({ length: n }, (_, i) => columnWeight[Math.floor(i / vectorsOfColumn)]);
const start = new Float32Array(CODEWORDS * V);
for (const [k, i] of shuffled(n, random).subarray(0, CODEWORDS).entries())
  start.set(x.subarray(i * V, (i + 1) * V), k * V);

interface Run {
  seconds: number;
  iterations: number;
  objective: number;
  centroids: Float32Array;
}

const engine = await createWasmEngine({ threads, spawnWorker: nodeWorkers() });

/** `tolerance` 0 runs all iterations, as scikit-learn does on such data. */
function ours(tolerance: number | undefined): Promise<Run> {
  return engine.scope(async () => {
    const vectors = engine.upload(x, [n, V], "f32");
    const factors = engine.upload(weights, [n], "f32");
    const initial = engine.upload(start, [CODEWORDS, V], "f32");
    const begin = performance.now();
    const options = { iterations: ITERATIONS + 1, tolerance, initial, random };
    const result = await kmeans(engine, vectors, factors, CODEWORDS, options);
    const seconds = (performance.now() - begin) / 1000;
    const centroids = await engine.read(result.centroids);
    return { seconds, iterations: result.iterations - 1, objective: result.objective, centroids };
  });
}

function scikit(folder: string): Run {
  const script = fileURLToPath(new URL("../bench/speed/kmeans_sklearn.py", import.meta.url)); // from build/
  const environment = { ...process.env, OMP_NUM_THREADS: `${threads}`, OPENBLAS_NUM_THREADS: `${threads}` };
  const args = [script, folder, `${V}`, `${CODEWORDS}`, `${ITERATIONS}`];
  const { stdout, stderr, status } = spawnSync(process.env.PYTHON ?? "python3", args, { env: environment });
  if (status !== 0) throw new Error(`scikit-learn did not run: ${stderr}`);
  const { centroids, ...rest } = JSON.parse(stdout.toString());
  return { ...rest, centroids: Float32Array.from(centroids) };
}

/** sum of weight times squared distance to the nearest centroid, f64: the same measure for both. */
function objective(centroids: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < n; i++) {
    let least = Number.POSITIVE_INFINITY;
    for (let c = 0; c < CODEWORDS; c++) {
      let distance = 0;
      for (let t = 0; t < V; t++) distance += (x[i * V + t] - centroids[c * V + t]) ** 2;
      if (distance < least) least = distance;
    }
    sum += weights[i] * least;
  }
  return sum;
}

const folder = mkdtempSync(join(tmpdir(), "kmeans-"));
try {
  for (const [name, data] of Object.entries({ x, weights, start })) writeFileSync(join(folder, name), data);
  const runs: Record<string, Run[]> = { "ours, to the end": [], "ours, default tolerance": [], "scikit-learn": [] };
  await ours(undefined); // compiles the kernels
  for (let round = 0; round < rounds; round++) {
    runs["ours, to the end"].push(await ours(0));
    runs["ours, default tolerance"].push(await ours(undefined));
    runs["scikit-learn"].push(scikit(folder));
  }
  const median = (of: Run[]) => [...of].sort((a, b) => a.seconds - b.seconds)[of.length >> 1];
  const theirs = median(runs["scikit-learn"]);
  const least = objective(theirs.centroids);
  console.log(`${n} x ${V} into ${CODEWORDS}, ${engine.description}`);
  for (const [name, all] of Object.entries(runs)) {
    const run = median(all);
    const value = objective(run.centroids);
    console.log(
      `${name.padEnd(24)} ${run.seconds.toFixed(3)} s, ${run.iterations} iterations, objective ${value.toFixed(1)}, ` +
        `${(value / least).toFixed(5)} of scikit-learn's, ${(theirs.seconds / run.seconds).toFixed(2)} times its speed`,
    );
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
  await engine.close();
}
