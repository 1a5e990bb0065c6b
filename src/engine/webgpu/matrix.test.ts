import { readFileSync } from "node:fs";
import { afterAll, describe, expect, it } from "vitest";
import { normal } from "../../../test/conformance/case.js";
import { expectClose } from "../../../test/conformance/compare.js";
import { DEEP_MATMUL, FACTOR, GRAM, HALF_MATMUL, MATMUL, type Tolerance } from "../../../test/tolerances.js";
import { onHost } from "../../../test/wasm-engines.js";
import { testGpu } from "../../../test/webgpu-adapter.js";
import type { F32 } from "../../tensor/index.js";
import { DeviceMemory } from "../device/memory.js";
import type { Engine, MatmulOptions } from "../engine.js";
import { createReferenceEngine } from "../reference/index.js";
import { openDevice } from "./adapter.js";
import { WebgpuDevice } from "./device.js";
import { factorOperations } from "./factor.js";
import { gramOperations } from "./gram.js";
import { whyNoHalfProducts } from "./halfmatmul.js";
import { halfConversion } from "./halves.js";
import { KERNEL_FILES } from "./kernels.generated.js";
import { matmulOperations } from "./matmul.js";

// What the conformance suite is too small for: large tiles, products split in depth, operands larger than a binding, factors of
// several levels of blocks.

const found = await testGpu();
const opened = "gpu" in found ? await openDevice(found.gpu) : found;

const reference = createReferenceEngine();
const up = (engine: Engine, { shape, data }: { shape: number[]; data: Float32Array }) =>
  engine.upload(data, shape, "f32");

/** The same numbers from the reference and from an engine. */
async function expectSame(
  engine: Engine,
  tolerance: Tolerance | undefined,
  run: (engine: Engine) => F32 | Promise<F32>,
  label = "",
): Promise<void> {
  const both: { shape: readonly number[]; data: ArrayLike<number> & Iterable<number> }[] = [];
  for (const one of [engine, reference])
    await one.scope(async () => {
      const tensor = await run(one);
      both.push({ shape: tensor.shape, data: await one.read(tensor) });
    });
  const [mine, its] = both.map((output) => ({ path: "result", dtype: "f32" as const, ...output }));
  expectClose(mine, its, tolerance, label);
  expect(engine.liveBytes(), label).toBe(0);
}

const PAIRS = [
  [false, false],
  [false, true],
  [true, false],
  [true, true],
];

function product(engine: Engine, batch: number, m: number, k: number, n: number, options: MatmulOptions, adds = false) {
  const { transposeA, transposeB } = options;
  const stack = (shape: number[]) => (batch === 1 ? shape : [batch, ...shape]);
  const a = up(engine, normal(stack(transposeA ? [k, m] : [m, k]), "a"));
  const b = up(engine, normal(stack(transposeB ? [n, k] : [k, n]), "b"));
  return engine.matmul(a, b, adds ? { ...options, accumulate: up(engine, normal(stack([m, n]), "y")) } : options);
}

const rowOutput = (data: number[]) => ({ path: "row", shape: [data.length], dtype: "f32" as const, data });

/** Some rows of a product that is added to a matrix of ones; the reference would take long for all of it. */
async function expectLarge(
  engine: Engine,
  tolerance: Tolerance,
  [m, k, n]: readonly [number, number, number],
  options: MatmulOptions,
): Promise<void> {
  const { transposeA, transposeB, alpha = 1 } = options;
  const a = normal(transposeA ? [k, m] : [m, k], "a");
  const b = normal(transposeB ? [n, k] : [k, n], "b");
  const { y } = await onHost(engine, () => {
    const accumulate = up(engine, { shape: [m, n], data: new Float32Array(m * n).fill(1) });
    return { y: engine.matmul(up(engine, a), up(engine, b), { ...options, accumulate }) };
  });
  for (const i of [0, 1, 67, 127, 128, 450, m - 2, m - 1]) {
    const expected = new Array<number>(n).fill(1);
    for (let j = 0; j < n; j++)
      for (let p = 0; p < k; p++)
        expected[j] += alpha * a.data[transposeA ? p * m + i : i * k + p] * b.data[transposeB ? j * k + p : p * n + j];
    const where = `row ${i}, ${transposeA} ${transposeB}`;
    expectClose(rowOutput(y.slice(i * n, i * n + n)), rowOutput(expected), tolerance, where);
  }
}

/** Gram matrix of 2n correlated rows with little on the diagonal: condition numbers of some thousands. */
function positiveDefinite(n: number, damping = 0.01): Float32Array {
  const x = normal([2 * n, n], "factor").data;
  for (let t = 0; t < 2 * n; t++) for (let i = 1; i < n; i++) x[t * n + i] += 0.9 * x[t * n + i - 1];
  const a = new Float32Array(n * n).fill(Number.NaN); // above the diagonal, where nobody may look
  for (let i = 0; i < n; i++)
    for (let j = 0; j <= i; j++) {
      let sum = i === j ? damping * n : 0;
      for (let t = 0; t < 2 * n; t++) sum += x[t * n + i] * x[t * n + j];
      a[i * n + j] = sum / n;
    }
  return a;
}

if ("open" in opened) {
  const device = new WebgpuDevice(opened.open, KERNEL_FILES);
  const withBindings = (bindingBytes: number, inHalves = false) => {
    const memory = new DeviceMemory(device);
    const half = inHalves ? halfConversion(memory) : undefined;
    const products = [matmulOperations(memory, { bindingBytes, half }), gramOperations(memory, { bindingBytes })];
    return Object.assign(memory, ...products, factorOperations(memory)) as Engine;
  };
  const engine = withBindings(device.bindingBytes);
  /** Bindings of 3000 elements. */
  const narrow = withBindings(256 + 4 * 3000);
  afterAll(() => engine.close());

  describe("matmul on WebGPU", () => {
    it("in tiles of 128", async () => {
      for (const [transposeA, transposeB] of PAIRS)
        await expectLarge(engine, MATMUL, [1300, 37, 1290], { transposeA, transposeB });
      await expectLarge(engine, MATMUL, [1300, 64, 1280], { alpha: -2 });
    });

    const obstacle = whyNoHalfProducts(opened.open);
    it.runIf(obstacle === undefined)("in f16", async () => {
      const half = withBindings(device.bindingBytes, true);
      for (const [transposeA, transposeB] of PAIRS)
        for (const [m, k, n] of [
          [1000, 100, 1001],
          [1024, 128, 896],
        ])
          await expectLarge(half, HALF_MATMUL, [m, k, n], { transposeA, transposeB, alpha: 3 });
    });
    if (obstacle !== undefined) console.log(`Products in f16 were not tested: ${obstacle}`);

    it("split in depth", async () => {
      for (const [transposeA, transposeB] of PAIRS)
        for (const [batch, m, k, n] of [
          [1, 64, 1111, 65],
          [3, 9, 1024, 12],
        ])
          for (const adds of [false, true])
            await expectSame(engine, DEEP_MATMUL, (e) =>
              product(e, batch, m, k, n, { transposeA, transposeB, alpha: 0.5 }, adds),
            );
    });

    it("of few rows or columns, deep and wide", async () => {
      for (const [transposeA, transposeB] of PAIRS)
        for (const [m, n] of [
          [1, 700],
          [4, 33],
          [8, 257],
          [500, 1],
          [300, 7],
        ])
          await expectSame(engine, MATMUL, (e) => product(e, 2, m, 301, n, { transposeA, transposeB }), `${m} ${n}`);
    });

    it("in windows of what can be bound", async () => {
      for (const [transposeA, transposeB] of PAIRS)
        for (const [batch, m, k, n] of [
          [1, 200, 70, 150], // all three
          [2, 200, 70, 150],
          [1, 4, 1200, 300],
          [1, 300, 1200, 2],
          [7, 30, 40, 20], // some of a stack at a time
          [3, 20, 400, 30],
        ])
          await expectSame(
            narrow,
            DEEP_MATMUL,
            (e) => product(e, batch, m, k, n, { transposeA, transposeB, alpha: 3 }, transposeA === transposeB),
            `${batch} x ${m} x ${k} x ${n}, ${transposeA} ${transposeB}`,
          );
      expect(() => narrow.scope(() => product(narrow, 1, 10, 10, 4000, {}))).toThrow(/one row of a matrix is larger/);
    });

    it("gives the same bytes each time", async () => {
      const once = () =>
        onHost(engine, () => ({ y: product(engine, 1, 100, 2000, 90, {}), few: product(engine, 1, 3, 999, 50, {}) }));
      expect(await once()).toEqual(await once());
    });
  });

  describe("gram on WebGPU", () => {
    const run = (e: Engine, rows: number, n: number, weighted: boolean) => {
      const sum = up(e, { shape: [n, n], data: positiveDefinite(n) });
      const weights = up(e, { shape: [rows], data: normal([rows], "weights").data.map(Math.abs) });
      e.gram(sum, up(e, normal([rows, n], "x")), weighted ? weights : undefined);
      return sum;
    };

    for (const [title, e, rows, n] of [
      ["split in depth", engine, 1100, 70],
      ["in windows of rows", narrow, 300, 40],
      ["in blocks of the matrix", narrow, 90, 131],
    ] as const)
      it(title, async () => {
        for (const weighted of [false, true]) {
          await expectSame(e, GRAM, (one) => run(one, rows, n, weighted));
          const { values } = await onHost(e, () => ({ values: run(e, rows, n, weighted) }));
          expect(values.every((value, at) => Object.is(value, values[(at % n) * n + Math.floor(at / n)]))).toBe(true);
        }
      });

    it("in tiles of 128", async () => {
      const [rows, n] = [20, 1800];
      const { data } = normal([rows, n], "x");
      const { values } = await onHost(engine, () => {
        const sum = engine.create([n, n]);
        engine.gram(sum, up(engine, { shape: [rows, n], data }));
        return { values: sum };
      });
      expect(values.every((value, at) => Object.is(value, values[(at % n) * n + Math.floor(at / n)]))).toBe(true);
      for (const row of [0, 1, 127, 128, 1151, 1799]) {
        const expected = new Array<number>(n).fill(0);
        for (let t = 0; t < rows; t++) for (let j = 0; j < n; j++) expected[j] += data[t * n + row] * data[t * n + j];
        expectClose(rowOutput(values.slice(row * n, row * n + n)), rowOutput(expected), GRAM, `row ${row}`);
      }
    });
  });

  describe("factors on WebGPU", () => {
    for (const n of [64, 96, 129, 197, 300])
      it(`${n}: as exact as f64`, async () => {
        const a = { shape: [n, n], data: positiveDefinite(n) };
        await expectSame(engine, FACTOR, (e) => e.cholesky(up(e, a)));
        const { lower } = await onHost(reference, async () => ({ lower: await reference.cholesky(up(reference, a)) }));
        const factor = { shape: [n, n], data: Float32Array.from(lower) };
        await expectSame(engine, FACTOR, (e) => e.triangularInverse(up(e, factor)));
      });

    it("keep both halves of what steps of 32 columns leave", async () => {
      const n = 150;
      // of rank 38 but for the ridge: pivots of 1e-5 are left of numbers around 1, of which f32 leaves a hundredth unknown
      const x = normal([38, n], "x").data;
      const data = new Float32Array(n * n);
      for (let i = 0; i < n; i++)
        for (let j = 0; j < n; j++) {
          let sum = i === j ? 1e-5 : 0;
          for (let t = 0; t < 38; t++) sum += (x[t * n + i] * x[t * n + j]) / 38;
          data[i * n + j] = sum;
        }
      await expectSame(engine, FACTOR, (e) => e.cholesky(up(e, { shape: [n, n], data })));
    });

    it("agree with numpy", async () => {
      interface Golden {
        n: number;
        matrix: number[];
        cholesky: number[];
        inverse: number[];
      }
      const path = new URL("../../../test/golden/factor/factor.json", import.meta.url);
      const cases: Golden[] = JSON.parse(readFileSync(path, "utf8"));
      for (const { n, matrix, ...expected } of cases) {
        const actual = await onHost(engine, async () => {
          const cholesky = await engine.cholesky(up(engine, { shape: [n, n], data: Float32Array.from(matrix) }));
          return { cholesky, inverse: engine.triangularInverse(cholesky) };
        });
        for (const name of ["cholesky", "inverse"] as const) {
          expectClose(rowOutput(actual[name]), rowOutput(expected[name]), FACTOR, `${name} of ${n}`);
        }
      }
    });

    it("name the first pivot that is not positive", async () => {
      for (const [n, pivot] of [
        [3, 0],
        [3, 2],
        [150, 64],
        [150, 149],
      ])
        for (const [value, got] of [
          [-1, "-[0-9.]+"],
          [Number.NaN, "NaN"],
          [Number.POSITIVE_INFINITY, "(Infinity|NaN)"], // double floats make NaN of it
        ] as const) {
          const data = positiveDefinite(n);
          data[pivot * n + pivot] = value;
          await expect(engine.scope(() => engine.cholesky(up(engine, { shape: [n, n], data })))).rejects.toMatchObject({
            kind: "numeric",
            message: expect.stringMatching(new RegExp(`got ${got} at pivot ${pivot} of ${n}$`)),
          });
          expect(engine.liveBytes()).toBe(0);
        }
      const zeros = { shape: [40, 40], data: new Float32Array(1600) };
      await expect(engine.scope(() => engine.cholesky(up(engine, zeros)))).rejects.toThrow("got 0 at pivot 0 of 40");
    });

    it("refuse the first 0 of a diagonal", async () => {
      const [n, first] = [100, 37];
      const data = new Float32Array(n * n);
      for (let i = 0; i < n; i++) data[i * n + i] = i === first || i === 90 ? -0 : 1 + i;
      await engine.scope(async () => {
        const inverse = engine.triangularInverse(up(engine, { shape: [n, n], data }));
        await expect(engine.read(inverse)).rejects.toMatchObject({
          kind: "numeric",
          message: expect.stringContaining(`the diagonal element ${first} of ${n} is 0`),
        });
      });
    });
  });
} else
  it("says what is missing where there is no adapter", () => {
    expect(opened.reason).toMatch(/webgpu|WebGPU/);
    console.log(`The products and factors of WebGPU were not tested: ${opened.reason}`);
  });
