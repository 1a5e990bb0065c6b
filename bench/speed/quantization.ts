// The quantization operations of the wasm engine at the sizes of a 40M-parameter model.
// node scripts/bench.mjs bench/speed/quantization.ts [threads, default 2]
import type { Engine } from "../../src/engine/engine.js";
import { createWasmEngine } from "../../src/engine/wasm/engine.js";
import { nodeWorkers } from "../../src/node/threads.js";
import { createRandom } from "../../src/random.js";
import type { F32 } from "../../src/tensor/index.js";

const ROUNDS = 5;
const engine = await createWasmEngine({ threads: Number(process.argv[2] ?? 2), spawnWorker: nodeWorkers() });
console.log(engine.description);

/** Medians of the wall time of `body` and of the processor time of all threads, which is the steadier one on a busy machine. */
async function time(label: string, body: () => unknown): Promise<void> {
  const times: number[] = [];
  const spent: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const before = process.cpuUsage();
    const start = performance.now();
    await engine.scope(async () => {
      await body();
    });
    times.push(performance.now() - start);
    const { user, system } = process.cpuUsage(before);
    spent.push((user + system) / 1000);
  }
  const median = (values: number[]) => values.sort((a, b) => a - b)[ROUNDS >> 1].toFixed(2);
  console.log(`${label.padEnd(58)} ${median(times).padStart(9)} ms, ${median(spent).padStart(9)} ms of processor`);
}

function normal(engine: Engine, shape: number[], seed: string, factor = 1): F32 {
  const random = createRandom(1, seed);
  const size = shape.reduce((a, b) => a * b, 1);
  return engine.upload(
    Float32Array.from({ length: size }, () => factor * random.normal()),
    shape,
    "f32",
  );
}

function unitUpper(engine: Engine, columns: number): F32 {
  const upper = engine.read(normal(engine, [columns, columns], "feedback", 0.3 / Math.sqrt(columns)));
  const tensor = engine.create([columns, columns]);
  void upper.then((data) => {
    for (let i = 0; i < columns; i++)
      data.fill(0, i * columns, i * columns + i).fill(1, i * columns + i, i * columns + i + 1);
    engine.write(tensor, data);
  });
  return tensor;
}

async function codebooks(n: number, v: number, codewords: number): Promise<void> {
  await engine.scope(async () => {
    const x = normal(engine, [n, v], "x");
    const weights = engine.create([n]);
    let codebook = engine.upload((await engine.read(x)).slice(0, codewords * v), [codewords, v], "f32");
    let { indices } = engine.nearestCodeword(x, codebook);
    for (let iteration = 0; iteration < 5; iteration++) {
      const ones = engine.upload(new Float32Array(n).fill(1), [n], "f32");
      const { sums, totals } = engine.segmentSum(x, ones, indices, codewords);
      const [sum, total] = [await engine.read(sums), await engine.read(totals)];
      codebook = engine.upload(
        sum.map((value, i) => value / Math.max(1, total[Math.floor(i / v)])),
        [codewords, v],
        "f32",
      );
      indices = engine.nearestCodeword(x, codebook, indices).indices;
    }
    const size = `${n} x ${v} into ${codewords}`;
    await time(`nearestCodeword ${size}`, () => engine.nearestCodeword(x, codebook));
    await time(`nearestCodeword ${size}, from the last assignment`, () => engine.nearestCodeword(x, codebook, indices));
    await time(`segmentSum ${size}`, () => engine.segmentSum(x, weights, indices, codewords));
  });
}

async function sweeps(rows: number, columns: number, v: number, stages: number[], beam = 1): Promise<void> {
  await engine.scope(async () => {
    const weights = normal(engine, [columns, rows], "w");
    const feedback = unitUpper(engine, columns);
    await engine.read(feedback);
    const segment = {
      begin: 0,
      end: columns,
      stages: stages.map((codewords, stage) => normal(engine, [codewords, v], `c${stage}`, 0.6 ** stage)),
    };
    const label = `O = ${rows}, I = ${columns}, v${v} k${stages.join("+")}${beam > 1 ? ` beam ${beam}` : ""}`;
    await time(`vectorSweep ${label}`, () => engine.vectorSweep(weights, feedback, [segment], { beam }));
    await time(`vectorSweep ${label}, no feedback`, () => engine.vectorSweep(weights, undefined, [segment], { beam }));
    const hessian = engine.create([columns, columns]);
    engine.gram(hessian, normal(engine, [2 * columns, columns], "x", 1 / Math.sqrt(2 * columns)));
    const start = engine.vectorSweep(weights, undefined, [segment], { beam });
    await time(`coordinateSweep ${label}`, () =>
      engine.coordinateSweep(weights, hessian, start.quantized, [segment], start.indices, { beam }),
    );
  });
}

async function affine(rows: number, columns: number, scattered: boolean): Promise<void> {
  await engine.scope(async () => {
    const weights = normal(engine, [columns, rows], "w");
    const feedback = unitUpper(engine, columns);
    await engine.read(feedback);
    const groupOfColumn = Int32Array.from({ length: columns }, (_, i) =>
      Math.floor((scattered ? (i * 389) % columns : i) / 64),
    );
    const options = { bits: 2, symmetric: false, groups: Math.ceil(columns / 64), groupOfColumn };
    const label = `O = ${rows}, I = ${columns}, groups of 64${scattered ? ", scattered" : ""}`;
    await time(`affineGrid ${label}`, () => engine.affineGrid(weights, options));
    await time(`affineSweep ${label}`, () => engine.affineSweep(weights, feedback, options));
  });
}

async function factor(n: number): Promise<void> {
  await engine.scope(async () => {
    const hessian = engine.create([n, n]);
    engine.gram(hessian, normal(engine, [n + 100, n], "x", 1 / Math.sqrt(n)));
    engine.addDiagonal(hessian, 0.1);
    const lower = await engine.cholesky(hessian);
    await time(`cholesky ${n}`, () => engine.cholesky(hessian));
    await time(`triangularInverse ${n}`, () => engine.triangularInverse(lower));
  });
}

const only = process.argv[3];
const want = (name: string): boolean => only === undefined || only === name;
if (want("codebooks")) {
  await codebooks(180_224, 4, 256);
  await codebooks(90_112, 8, 256);
  await codebooks(120_149, 6, 4096);
}
if (want("sweeps")) {
  await sweeps(512, 1408, 4, [256]);
  await sweeps(1408, 512, 4, [256]);
  await sweeps(512, 1408, 8, [256, 256], 4);
}
if (want("affine")) {
  await affine(512, 1408, false);
  await affine(512, 1408, true);
}
if (want("factor")) {
  await factor(512);
  await factor(1408);
}
await engine.close();
