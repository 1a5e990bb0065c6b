// VPTQ of one linear of LLaMA-2-7B's size (4096 x 4096) on a GPU: an assignment of k-means, the column sweep, and the whole layer.
// node scripts/bench.mjs bench/speed/layer.ts [--engine cuda] [--size 4096] [--v 8] [--codebook 65536] [--residual 256] [--parts all]
// Weights are normal with heavy columns, inputs 4096 correlated tokens: the Hessian has the spread of a trained layer's.
import { parseArgs } from "node:util";
import type { Engine } from "../../src/engine/engine.js";
import { createEngine, type EngineChoice } from "../../src/node/engines.js";
import { quantizeLinear } from "../../src/pipeline/methods.js";
import { planModel } from "../../src/pipeline/plan.js";
import { resolveRecipe } from "../../src/pipeline/recipe.js";
import { accumulate, createStatistics, finishStatistics } from "../../src/quant/statistics.js";
import { createRandom } from "../../src/random.js";
import type { F32 } from "../../src/tensor/index.js";

const { values: args } = parseArgs({
  options: {
    engine: { type: "string", default: "cuda" },
    size: { type: "string", default: "4096" },
    v: { type: "string", default: "8" },
    codebook: { type: "string", default: "65536" },
    residual: { type: "string", default: "256" },
    parts: { type: "string", default: "assign,sums,sweep,factor,layer" },
  },
});
const [size, v, codebook, residual] = [args.size, args.v, args.codebook, args.residual].map(Number);
const parts = new Set(args.parts.split(","));
const ROUNDS = 5;

const { engine } = await createEngine(args.engine as EngineChoice);
console.log(engine.description);
const random = createRandom(0, "layer");
/** Drawn one by one: numbers that come again make vectors that are nearly alike, which is another problem. */
const normal = (shape: number[], factor: (index: number) => number = () => 1): F32 =>
  engine.upload(
    Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => factor(i) * random.normal()),
    shape,
    "f32",
  );

/** Median milliseconds until the work is done on the device. */
async function time(label: string, body: () => unknown, limit = ""): Promise<void> {
  const times: number[] = [];
  const probe = engine.keep(engine.create([1]));
  for (let round = 0; round <= ROUNDS; round++) {
    await engine.read(probe);
    const start = performance.now();
    await engine.scope(async () => {
      await body();
      await engine.read(probe);
    });
    if (round > 0) times.push(performance.now() - start);
  }
  probe.dispose();
  console.log(
    `${label.padEnd(64)} ${times
      .sort((a, b) => a - b)
      [ROUNDS >> 1].toFixed(2)
      .padStart(9)} ms${limit}`,
  );
}

await engine.scope(async () => {
  const columnScale = Float32Array.from({ length: size }, () => Math.exp(0.3 * random.normal()));
  const weight = normal([size, size], (i) => (0.02 * columnScale[i % size]) as number);
  const n = (size * size) / v;
  const vectors = engine.view(engine.transpose(weight), [n, v]);
  const book = engine.view(engine.copy(engine.view(vectors, [codebook, v], 0)), [codebook, v]);
  const pairs = (n * codebook) / 1e9;
  if (parts.has("assign")) {
    await time(
      `nearestCodeword ${n} x ${v} into ${codebook}`,
      () => engine.nearestCodeword(vectors, book),
      ` (${pairs.toFixed(0)}e9 pairs)`,
    );
    const { indices } = engine.nearestCodeword(vectors, book);
    await time("  from the last assignment", () => engine.nearestCodeword(vectors, book, indices));
  }
  if (parts.has("sums")) {
    const { indices } = engine.nearestCodeword(vectors, book);
    const ones = engine.upload(new Float32Array(n).fill(1), [n], "f32");
    await time(`segmentSum ${n} x ${v} into ${codebook}`, () => engine.segmentSum(vectors, ones, indices, codebook));
  }
  const accumulator = createStatistics(engine, size, false);
  await engine.scope(async () => {
    const mix = normal([64, size], () => 0.5);
    for (let part = 0; part < 4; part++)
      engine.scope(() => {
        const x = normal([1024, size], (i) => columnScale[i % size] as number);
        accumulate(engine, accumulator, engine.add(x, engine.matmul(normal([1024, 64]), mix)));
      });
    await engine.read(engine.create([1]));
  });
  const statistics = await finishStatistics(engine, accumulator, "the layer");
  if (parts.has("factor")) {
    const damped = engine.copy(statistics.hessian);
    engine.addDiagonal(damped, 1);
    await time(`cholesky ${size}`, () => engine.cholesky(damped));
    const lower = await engine.cholesky(damped);
    await time(`triangularInverse ${size}`, () => engine.triangularInverse(lower));
  }
  if (parts.has("sweep")) {
    const feedback = unitUpper(engine);
    const columns = engine.transpose(weight);
    const stages = [book];
    const few = engine.view(book, [256, v]);
    await time(`vectorSweep ${size} x ${size}, v ${v}, k ${codebook}`, () =>
      engine.vectorSweep(columns, feedback, [{ begin: 0, end: size, stages }]),
    );
    await time(`vectorSweep ${size} x ${size}, v ${v}, k 256`, () =>
      engine.vectorSweep(columns, feedback, [{ begin: 0, end: size, stages: [few] }]),
    );
    await time(`vectorSweep ${size} x ${size}, v ${v}, k ${codebook} + 256, beam 8`, () =>
      engine.vectorSweep(columns, feedback, [{ begin: 0, end: size, stages: [book, engine.scale(few, 0.3)] }], {
        beam: 8,
      }),
    );
  }
  if (parts.has("layer")) {
    const recipe = resolveRecipe({
      vectorLength: v,
      codebook,
      residual: residual > 0 ? [residual] : [],
      refine: 0,
      propagate: "full",
      asymmetric: 0,
    });
    const spec = { name: "layer", slot: "query" as const, rows: size, columns: size, bias: false };
    const [{ plan }] = planModel([[spec]], recipe);
    if (plan.method !== "vptq") throw new Error("the recipe is VPTQ's");
    for (const round of [1, 2]) {
      const start = performance.now();
      const { metrics } = await engine.scope(() =>
        quantizeLinear(plan, weight, statistics, { engine, seed: round, name: "layer" }),
      );
      console.log(
        `whole layer, v ${v}, k ${codebook} + ${residual}: ${((performance.now() - start) / 1000).toFixed(2)} s, proxy error ${metrics.proxyError.toPrecision(5)}`,
      );
    }
  }
});
await engine.close();

/** Upper triangular with a unit diagonal, entries of the size of a trained layer's feedback. */
function unitUpper(on: Engine): F32 {
  const data = new Float32Array(size * size);
  for (let i = 0; i < size; i++) {
    data[i * size + i] = 1;
    for (let j = i + 1; j < size; j++) data[i * size + j] = (0.3 / Math.sqrt(size)) * random.normal();
  }
  return on.upload(data, [size, size], "f32");
}
