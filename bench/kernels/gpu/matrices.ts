import type { Precision } from "../../../src/engine/engine.js";
import type { F32 } from "../../../src/tensor/index.js";
import { cornerOf, type Extents, expected, largestError, type MakeCase, rowsOf, type Version } from "./lab.js";
import {
  HADAMARD_BIT,
  kernelNamed,
  PRODUCT_PLAIN,
  PRODUCT_TILES,
  TRANSPOSE_BANKS,
  TRANSPOSE_PLAIN,
} from "./versions.js";

// Products, factorisations and what else moves matrices.

const THREADS = 256;
/** Error of a product of operands with 24, 11 and 11 bits and f32 sums, as a share of its largest number. */
const PRODUCT_ERRORS = { f32: 2e-5, tf32: 3e-3, f16: 3e-3 } as const;

const outputOf = { attention: (e: Extents) => e.hidden, mlp: (e: Extents) => e.mlp } as const;

/** y = x W^T of a linear of the attention ([D, D]) or of the MLP ([M, D]). */
const productCase =
  (precision: Precision, linear: keyof typeof outputOf): MakeCase =>
  (bench, extents) => {
    const { engine, cublas, draw } = bench;
    const [m, k, n] = [extents.tokens, extents.hidden, outputOf[linear](extents)];
    const [x, w] = [draw([m, k]), draw([n, k], 0.02)];
    const byProduct: Version = { name: "product", run: () => engine.matmul(x, w, { transposeB: true }) };
    const versions: Version[] = [byProduct];
    if (precision === "f32" && bench.kind === "cuda") {
      const tiled = (kernel: typeof PRODUCT_PLAIN, side: number) => () => {
        const y = engine.empty([m, n]);
        const groups = Math.ceil(m / side) * Math.ceil(n / side);
        engine.run(kernel, { groups, tensors: [x, w, y], numbers: [m, n, k] });
        return y;
      };
      versions.unshift(
        { name: "plain: a thread an element", run: tiled(PRODUCT_PLAIN, 16) },
        { name: "tiles of 64 x 64, 4 x 4 a thread", run: tiled(PRODUCT_TILES, 64) },
      );
    }
    if (precision === "f16")
      versions.unshift({
        name: "product, both operands converted anew",
        run: () => {
          for (const tensor of [x, w]) engine.noteWritten(engine.blockOf(tensor));
          return engine.matmul(x, w, { transposeB: true });
        },
      });
    if (precision === "f16" && bench.kind === "webgpu")
      versions.unshift({
        name: "rounded on the way, 64 x 32 a subgroup",
        run: () => {
          const y = engine.empty([m, n]);
          const walk = [0, k, 1, 0]; // by rows along the depth, one matrix
          engine.run(kernelNamed("matmulHalf"), {
            groups: Math.ceil(m / 128) * Math.ceil(n / 128),
            tensors: [x, w, y],
            numbers: [m, n, k, 1, k, ...walk, ...walk, 0, n, 0, 1, 0], // not split in depth
            constants: [0, 1, 1],
          });
          return y;
        },
      });
    let library: Version | undefined;
    if (cublas) {
      const [left, right] = precision === "f16" ? [engine.cast(x, "f16"), engine.cast(w, "f16")] : [x, w];
      library = {
        name: "cuBLAS",
        run: () => {
          const y = engine.empty([m, n]);
          cublas.product(left, right, y, precision);
          return y;
        },
      };
    }
    const [rows, columns] = [Math.min(2, m), Math.min(64, n)];
    return {
      shape: `[${m}, ${k}] x [${n}, ${k}]^T`,
      work: {
        bytes: (precision === "f16" ? 2 : 4) * (m * k + n * k) + 4 * m * n,
        operations: { [precision]: 2 * m * n * k },
      },
      versions,
      library,
      torch: { operation: "matmul", shape: [m, k, n], precision },
      tolerance: PRODUCT_ERRORS[precision],
      /** The last columns of the last rows. */
      async check(run) {
        const last = await rowsOf(bench, (await run()) as F32, m - rows, rows);
        const got = Float32Array.from({ length: rows * columns }, (_, i) => {
          return last[Math.floor(i / columns) * n + n - columns + (i % columns)];
        });
        const [left, right] = [await rowsOf(bench, x, m - rows, rows), await rowsOf(bench, w, n - columns, columns)];
        const want = await expected(bench, (on, f32) =>
          on.matmul(f32(left, [rows, k]), f32(right, [columns, k]), { transposeB: true }),
        );
        return largestError(got, want);
      },
    };
  };

/** Side of the leading block that is checked: of a factor and of an inverse it depends on nothing else. */
const LEADING = 96;

const factorCase =
  (operation: "cholesky" | "triangularInverse"): MakeCase =>
  async (bench, { hidden: n, tokens }) => {
    const { engine, draw } = bench;
    const a = engine.create([n, n]);
    engine.scope(() => engine.gram(a, draw([tokens, n], tokens ** -0.5)));
    engine.addDiagonal(a, 0.5);
    const input = operation === "cholesky" ? a : await engine.cholesky(a);
    const side = Math.min(LEADING, n);
    return {
      shape: `[${n}, ${n}]`,
      work: { bytes: 8 * n * n, operations: { f64: n ** 3 / 3 } },
      versions: [{ name: "product", run: () => engine[operation](input) }],
      torch: { operation, shape: [n] },
      tolerance: 1e-6,
      async check(run) {
        const got = await cornerOf(bench, (await run()) as F32, side, side);
        const corner = await cornerOf(bench, input, side, side);
        return largestError(got, await expected(bench, (on, f32) => on[operation](f32(corner, [side, side]))));
      },
    };
  };

const transpose: MakeCase = (bench, { hidden, mlp }) => {
  const { engine, draw } = bench;
  const a = draw([mlp, hidden]);
  const versions: Version[] = [{ name: "product", run: () => engine.transpose(a) }];
  const own = (kernel: typeof TRANSPOSE_PLAIN, groups: number) => () => {
    const y = engine.empty([hidden, mlp]);
    engine.run(kernel, { groups, tensors: [a, y], numbers: [mlp, hidden] });
    return y;
  };
  if (bench.kind === "cuda")
    versions.unshift(
      { name: "plain: writes a row apart", run: own(TRANSPOSE_PLAIN, Math.ceil(a.size / THREADS)) },
      {
        name: "tiles in shared memory, columns in one bank",
        run: own(TRANSPOSE_BANKS, Math.ceil(mlp / 32) * Math.ceil(hidden / 32)),
      },
    );
  return {
    shape: `[${mlp}, ${hidden}]`,
    work: { bytes: 8 * a.size },
    versions,
    torch: { operation: "transpose", shape: [mlp, hidden] },
    tolerance: 0,
    /** The last row of the result, a column of the input. */
    async check(run) {
      const got = await rowsOf(bench, (await run()) as F32, hidden - 1, 1);
      const all = await engine.read(a);
      return largestError(
        got,
        Float32Array.from({ length: mlp }, (_, row) => all[row * hidden + hidden - 1]),
      );
    },
  };
};

const hadamard: MakeCase = (bench, { tokens, hidden }) => {
  const bits = Math.log2(hidden);
  if (!Number.isInteger(bits)) return undefined;
  const { engine, draw } = bench;
  const x = draw([tokens, hidden]);
  const versions: Version[] = [{ name: "product", run: () => engine.hadamard(x) }];
  if (bench.kind === "cuda")
    versions.unshift({
      name: "a pass over memory for each bit",
      run: () => {
        const y = engine.copy(x);
        const pairs = x.size / 2;
        for (let bit = 0; bit < bits; bit++) {
          const numbers = [pairs, bit, bit === 0 ? hidden ** -0.5 : 1];
          engine.run(HADAMARD_BIT, { groups: Math.ceil(pairs / THREADS), tensors: [y], numbers });
        }
        return y;
      },
    });
  const count = Math.min(2, tokens);
  return {
    shape: `[${tokens}, ${hidden}]`,
    work: { bytes: 8 * x.size, operations: { f32: bits * x.size } },
    versions,
    tolerance: 1e-6,
    /** The last rows. */
    async check(run) {
      const got = await rowsOf(bench, (await run()) as F32, tokens - count, count);
      const input = await rowsOf(bench, x, tokens - count, count);
      return largestError(got, await expected(bench, (on, f32) => on.hadamard(f32(input, [count, hidden]))));
    },
  };
};

export const MATRIX_CASES = {
  matmul: productCase("f32", "attention"),
  matmulMlp: productCase("f32", "mlp"),
  cholesky: factorCase("cholesky"),
  triangularInverse: factorCase("triangularInverse"),
  transpose,
  hadamard,
} as const satisfies Record<string, MakeCase>;

/** The same on engines of another precision. */
export const productsIn = (precision: "tf32" | "f16") => ({
  matmul: productCase(precision, "attention"),
  matmulMlp: productCase(precision, "mlp"),
});
