import type { WasmRuntime } from "./runtime.js";

/** C [m, n] = alpha op(A) op(B), plus C when `accumulate`; row-major and dense, addresses in the runtime's memory. */
export interface Product {
  a: number;
  /** A is stored [k, m] instead of [m, k]. */
  transposeA: boolean;
  b: number;
  /** B is stored [n, k] instead of [k, n]. */
  transposeB: boolean;
  c: number;
  m: number;
  n: number;
  k: number;
  alpha: number;
  accumulate: boolean;
}

/** Multiplies matrices instead of the kernels, where it likes to: see engine/blas. */
export interface ProductLibrary {
  /** False: leaves this one to the kernels. */
  multiply(product: Product, memory: ArrayBufferLike): boolean;
  /** Upper triangle of C [N, N] += X^T X for X [T, N]; the lower one is left as it may be. False as in `multiply`. */
  gram(x: number, rows: number, columns: number, c: number, memory: ArrayBufferLike): boolean;
}

/** Rows of A up to which B is read as it lies instead of packed, where B is stored [n, k] and where [k, n]. */
const FEW_ROWS_TRANSPOSED = 32;
const FEW_ROWS = 8;
/** Bytes of packed A and packed B at a time, and the length of k: multiples of the block of 512 of the kernel. */
const PACKED_A_BYTES = 2 ** 24;
const PACKED_B_BYTES = 2 ** 25;
const LONGEST_K = 8192;
/** Multiplications worth a thread: about 10 us. */
const GRAIN = 2 ** 18;
/** A product up to this many multiplications, of several, is one unit of work. */
const SMALL_PRODUCT = 2 ** 23;

const roundUp = (value: number, step: number): number => Math.ceil(value / step) * step;

/** The product by the kernels of assembly/matmul.ts and vectorproduct.ts. */
export function multiply(runtime: WasmRuntime, product: Product): void {
  const { a, b, c, m, n, k, alpha, transposeA, transposeB } = product;
  const accumulate = Number(product.accumulate);
  if (m === 0 || n === 0) return;
  if (k === 0) {
    if (!product.accumulate) runtime.view("f32", c, m * n).fill(0);
    return;
  }
  const tail = [m, n, k, { f32: alpha }, accumulate];
  if (m <= n && m <= (transposeB ? FEW_ROWS_TRANSPOSED : FEW_ROWS)) {
    withRows(runtime, a, transposeA, m, k, (rows) => {
      const args = [rows, 4 * k, b, 4 * (transposeB ? k : n), c, 4 * n, 4, ...tail];
      const [width, scratch] = transposeB ? [8, 128] : [256, 1024 * m];
      const kernel = transposeB ? "dotRows" : "combineRows";
      runtime.run(kernel, Math.ceil(n / width), Math.ceil(GRAIN / (width * k * m)), args, scratch);
    });
    return;
  }
  if (n <= FEW_ROWS_TRANSPOSED && !transposeA) {
    // the same with the roles exchanged: C^T = B^T A^T
    withRows(runtime, b, !transposeB, n, k, (rows) => {
      const args = [rows, 4 * k, a, 4 * k, c, 4, 4 * n, n, m, k, { f32: alpha }, accumulate];
      runtime.run("dotRows", Math.ceil(m / 8), Math.ceil(GRAIN / (8 * k * n)), args, 128);
    });
    return;
  }
  multiplyPacked(runtime, product);
}

/** Calls `body` with the address of the matrix as [rows, k], a transposed copy where it is stored [k, rows]. */
function withRows(
  runtime: WasmRuntime,
  source: number,
  transposed: boolean,
  rows: number,
  k: number,
  body: (address: number) => void,
): void {
  if (!transposed || rows === 1) {
    body(source);
    return;
  }
  runtime.withTemporary(4 * rows * k, (copy) => {
    runtime.run("transpose", Math.ceil(rows / 16), Number.MAX_SAFE_INTEGER, [copy, source, k, rows]);
    body(copy);
  });
}

/**
 * Large products, in blocks of rows, columns and k whose packed copies stay small. `weights` (k of them) scale the terms.
 * With `upper` only tiles that touch the upper triangle are computed.
 */
export function multiplyPacked(runtime: WasmRuntime, product: Product, weights = 0, upper = false): void {
  const { a, b, c, m, n, k, alpha, transposeA, transposeB } = product;
  const strideA = 4 * (transposeA ? m : k);
  const strideB = 4 * (transposeB ? k : n);
  const depth = Math.min(k, LONGEST_K);
  const blockM = Math.min(m, Math.max(64, Math.floor(PACKED_A_BYTES / (4 * depth) / 64) * 64));
  const blockN = Math.min(n, Math.max(64, Math.floor(PACKED_B_BYTES / (4 * depth) / 64) * 64));
  const bytesA = 4 * roundUp(blockM, 4) * depth;
  const bytesB = 4 * roundUp(blockN, 8) * depth;
  runtime.withTemporary(bytesA + bytesB, (packedA) => {
    const packedB = packedA + bytesA;
    for (let from = 0; from < k; from += depth) {
      const length = Math.min(depth, k - from);
      for (let column = 0; column < n; column += blockN) {
        const columns = Math.min(blockN, n - column);
        for (let row = 0; row < m; row += blockM) {
          if (upper && row >= column + columns) continue;
          const rows = Math.min(blockM, m - row);
          const partA = a + (transposeA ? from * strideA + 4 * row : row * strideA + 4 * from);
          const partB = b + (transposeB ? column * strideB + 4 * from : from * strideB + 4 * column);
          const packA = blockM < m || (row === 0 && column === 0);
          const unitsA = packA ? Math.ceil(rows / 64) : 0;
          const unitsB = row === 0 ? Math.ceil(columns / 64) : 0;
          const args = [
            ...[partA, strideA, Number(transposeA), rows, packedA, length, unitsA, 0],
            ...[partB, strideB, Number(!transposeB), columns, packedB, weights && weights + 4 * from],
          ];
          // few multiplications: not worth waking a thread for the packing either
          const alone = rows * columns * length <= GRAIN;
          runtime.run("packPanels", unitsA + unitsB, alone ? unitsA + unitsB : Math.ceil(1024 / length), args);
          const [tileRows, tileColumns] = tileOf(rows, columns, runtime.threads);
          const diagonal = upper ? column - row : 2 ** 30; // as the block sees it
          runtime.run(
            "multiplyTiles",
            Math.ceil(rows / tileRows) * Math.ceil(columns / tileColumns),
            Math.ceil(GRAIN / (tileRows * tileColumns * length)),
            [
              ...[packedA, packedB, c + 4 * (row * n + column), 4 * n, rows, columns, length, { f32: alpha }],
              ...[Number(product.accumulate || from > 0), diagonal, tileRows, tileColumns],
            ],
            128,
          );
        }
      }
    }
  });
}

/** Large tiles reuse more, small ones balance better. */
function tileOf(rows: number, columns: number, threads: number): [number, number] {
  let [tileRows, tileColumns] = [128, 256];
  const enough = threads === 1 ? 1 : 8 * threads;
  const count = () => Math.ceil(rows / tileRows) * Math.ceil(columns / tileColumns);
  while (count() < enough && tileColumns > 64) tileColumns /= 2;
  while (count() < enough && tileRows > 32) tileRows /= 2;
  return [tileRows, tileColumns];
}

/** `batch` products of the same extents, one behind the other in memory. */
export function multiplyStack(
  runtime: WasmRuntime,
  product: Product,
  batch: number,
  one: (product: Product) => void,
): void {
  const { a, b, c, m, n, k, alpha, transposeA, transposeB, accumulate } = product;
  if (m * n * k === 0 || m * n * k > SMALL_PRODUCT) {
    for (let index = 0; index < batch; index++)
      one({ ...product, a: a + 4 * index * m * k, b: b + 4 * index * k * n, c: c + 4 * index * m * n });
    return;
  }
  const args = [
    ...[a, 4 * (transposeA ? m : k), Number(transposeA), 4 * m * k],
    ...[b, 4 * (transposeB ? k : n), Number(!transposeB), 4 * k * n],
    ...[c, m, n, k, { f32: alpha }, Number(accumulate)],
  ];
  const scratch = 128 + 4 * k * (roundUp(m, 4) + roundUp(n, 8));
  runtime.run("multiplyStack", batch, Math.ceil(GRAIN / (m * n * k)), args, scratch);
}
