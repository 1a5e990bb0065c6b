import { afterAll, describe, expect, it } from "vitest";
import { nodeWorkers } from "../../node/threads.js";
import { type F32, sizeOf } from "../../tensor/index.js";
import type { Engine } from "../engine.js";
import { createReferenceEngine } from "../reference/index.js";
import { createWasmEngine } from "./engine.js";

// What the conformance suite is too small for: work in several blocks of rows, columns, k and batches, and real splits over
// threads.

const engines: Engine[] = [];
async function engineOf(threads: number, reproducible = false): Promise<Engine> {
  const engine = await createWasmEngine({ threads, spawnWorker: nodeWorkers(), reproducible });
  engines.push(engine);
  return engine;
}
afterAll(async () => {
  for (const engine of engines) await engine.close();
});

/** Numbers within -1/2 .. 1/2 by a linear congruential generator: these tests need millions. */
let state = 1;
function uniform(shape: number[]): Values {
  const data = new Float32Array(sizeOf(shape));
  for (let i = 0; i < data.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    data[i] = state / 2 ** 32;
  }
  return { shape, data };
}
interface Values {
  shape: number[];
  data: Float32Array;
}
const up = (engine: Engine, { shape, data }: Values) => engine.upload(data, shape, "f32");

/** sum_k a[i][k] b[j][k] in f64. */
function dotOf(a: Values, i: number, b: Values, j: number): number {
  const k = a.shape[1];
  let sum = 0;
  for (let p = 0; p < k; p++) sum += a.data[i * k + p] * b.data[j * k + p];
  return sum;
}

describe("products in blocks", () => {
  // k beyond one block of 8192, columns beyond one of 1024
  it("goes on where a block of k or of columns ends", async () => {
    const [m, n, k] = [40, 1100, 8260];
    const engine = await engineOf(2);
    const [a, b] = [uniform([m, k]), uniform([n, k])];
    const start = uniform([m, n]);
    const product = engine.matmul(up(engine, a), up(engine, b), {
      transposeB: true,
      alpha: 2,
      accumulate: up(engine, start),
    });
    const values = await engine.read(product);
    for (const i of [0, 3, 31, 39])
      for (const j of [0, 7, 63, 1023, 1024, 1031, 1099])
        expect(values[i * n + j]).toBeCloseTo(start.data[i * n + j] + 2 * dotOf(a, i, b, j), 3);
  });

  // columns beyond the 512 rows of A and the 1024 columns of B that are packed at a time when k is long
  it("sums Gram matrices over many rows, exactly symmetric", async () => {
    const [rows, n] = [8200, 1060];
    const engine = await engineOf(2);
    const x = uniform([rows, n]);
    const gram = engine.create([n, n]);
    engine.gram(gram, up(engine, x));
    const values = await engine.read(gram);
    const columns = { shape: [n, rows], data: await engine.read(engine.transpose(up(engine, x))) };
    for (const i of [0, 5, 511, 512, 1023, 1059])
      for (const j of [0, 6, 500, 513, 1024, 1040, 1059])
        expect(values[i * n + j]).toBeCloseTo(dotOf(columns, i, columns, j), 2);
    expect(values.every((value, at) => value === values[(at % n) * n + Math.floor(at / n)])).toBe(true);
  });

  // keys and values of one batch fill the buffer, so that batches go one by one
  it("attends to batches one after the other when they are large", async () => {
    const [batch, tokens, length, heads, d] = [2, 7, 4100, 16, 64];
    const engine = await engineOf(2);
    const [q, k, v] = [
      uniform([batch, tokens, heads, d]),
      uniform([batch, length, heads, d]),
      uniform([batch, length, heads, d]),
    ];
    const options = { scale: 2 };
    const all = await engine.read(engine.attention(up(engine, q), up(engine, k), up(engine, v), options));
    for (let b = 0; b < batch; b++) {
      const part = ({ shape, data }: Values) => {
        const size = sizeOf(shape.slice(1));
        return up(engine, { shape: [1, ...shape.slice(1)], data: data.slice(b * size, (b + 1) * size) });
      };
      const one = await engine.read(engine.attention(part(q), part(k), part(v), options));
      expect(Buffer.from(all.slice(b * one.length, (b + 1) * one.length).buffer).equals(Buffer.from(one.buffer))).toBe(
        true,
      );
    }
  });

  it("agrees with the reference on tall and wide products of few rows", async () => {
    const engine = await engineOf(1);
    const reference = createReferenceEngine();
    for (const [m, n, k] of [
      [1, 300, 70],
      [9, 260, 33],
      [33, 40, 50],
      [500, 1, 70],
      [300, 9, 21],
    ])
      for (const transposeA of [false, true])
        for (const transposeB of [false, true]) {
          const a = uniform(transposeA ? [k, m] : [m, k]);
          const b = uniform(transposeB ? [n, k] : [k, n]);
          const of = (one: Engine): F32 => one.matmul(up(one, a), up(one, b), { transposeA, transposeB });
          const [mine, its] = [await engine.read(of(engine)), await reference.read(of(reference))];
          const worst = mine.reduce((most, value, i) => Math.max(most, Math.abs(value - its[i])), 0);
          expect(worst, `${m} ${n} ${k} ${transposeA} ${transposeB}`).toBeLessThan(1e-5);
        }
  });
});

describe("threads", () => {
  it("change no bit of large results", async () => {
    const [q, k] = [uniform([2, 300, 4, 20]), uniform([2, 300, 2, 20])];
    const [x, weight, wide, tall] = [uniform([600, 333]), uniform([333]), uniform([40, 5000]), uniform([200_000, 3])];
    const runs: ((engine: Engine) => F32)[] = [
      (e) => e.matmul(up(e, x), up(e, x), { transposeB: true }),
      (e) => e.matmul(up(e, x), up(e, x), { transposeA: true }),
      (e) => e.matmul(e.view(up(e, wide), [1, 200_000]), up(e, tall)),
      (e) => e.matmul(e.view(up(e, x), [2, 333]), up(e, x), { transposeB: true }),
      (e) => {
        const gram = e.create([333, 333]);
        e.gram(gram, up(e, x));
        return gram;
      },
      (e) => e.attention(up(e, q), up(e, k), up(e, k), { scale: 0.3, window: 211 }),
      (e) => e.rmsNorm(up(e, x), up(e, weight), 1e-6),
      (e) => e.siluMultiply(up(e, x), up(e, x)),
      (e) => e.klDivergence(up(e, wide), e.scale(up(e, wide), 1.1)),
    ];
    for (const reproducible of [false, true]) {
      const all = [await engineOf(1, reproducible), await engineOf(2, reproducible), await engineOf(3, reproducible)];
      for (const [index, run] of runs.entries()) {
        const [one, ...others] = await Promise.all(
          all.map((engine) => engine.scope(async () => engine.read(run(engine)))),
        );
        for (const other of others)
          expect(Buffer.from(other.buffer).equals(Buffer.from(one.buffer)), `run ${index}`).toBe(true);
      }
    }
  });
});
