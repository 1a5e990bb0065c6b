import type { F32 } from "../../tensor/index.js";
import { checkGram, checkHadamard, checkMatmul, checkSquare } from "../check.js";
import type { Engine, MatmulOptions } from "../engine.js";
import type { WasmContext } from "./context.js";
import { multiply, multiplyPacked, multiplyStack, type Product, type ProductLibrary } from "./product.js";

type Operations = Pick<Engine, "matmul" | "gram" | "hadamard" | "diagonal" | "addDiagonal">;

/** Products, diagonals and the Hadamard transform; `library` takes the products that it wants. */
export function matrixOperations({ runtime, empty, address }: WasmContext, library?: ProductLibrary): Operations {
  const one = (product: Product): void => {
    if (!library?.multiply(product, runtime.buffer)) multiply(runtime, product);
  };

  function matmul(a: F32, b: F32, options: MatmulOptions = {}): F32 {
    const { batch, m, n, k, shape } = checkMatmul(a, b, options);
    const { transposeA = false, transposeB = false, alpha = 1, accumulate } = options;
    const factors = { a: address(a), transposeA, b: address(b), transposeB, m, n, k, alpha };
    const target = accumulate ?? empty(shape);
    const product = { ...factors, c: address(target), accumulate: accumulate !== undefined };
    if (batch === 1) one(product);
    else multiplyStack(runtime, product, batch, one);
    return target;
  }

  function gram(accumulator: F32, x: F32, weights?: F32): void {
    const { rows, columns } = checkGram(accumulator, x, weights);
    if (rows === 0 || columns === 0) return;
    const c = address(accumulator);
    const from = address(x);
    const factors = weights && address(weights);
    if (!libraryGram(from, factors, rows, columns, c)) {
      const sides = { a: from, transposeA: true, b: from, transposeB: false };
      const product = { ...sides, c, m: columns, n: columns, k: rows, alpha: 1, accumulate: true };
      multiplyPacked(runtime, product, factors, true);
    }
    runtime.run("mirrorUpper", Math.ceil(columns / 16), Math.ceil(2 ** 12 / columns), [c, columns]);
  }

  function libraryGram(x: number, weights: number | undefined, rows: number, columns: number, c: number): boolean {
    if (!library) return false;
    if (weights === undefined) return library.gram(x, rows, columns, c, runtime.buffer);
    // x^T diag(w) x is the gram matrix of sqrt(w) x, where no weight is negative
    const roots = runtime.view("f32", weights, rows).map(Math.sqrt);
    if (!roots.every((root) => root >= 0)) return false;
    return runtime.withTemporary(4 * rows * (columns + 1), (scaled) => {
      const factors = scaled + 4 * rows * columns;
      runtime.view("f32", factors, rows).set(roots);
      runtime.run("scaleRows", rows, Math.ceil(2 ** 15 / columns), [scaled, x, factors, columns]);
      return library.gram(scaled, rows, columns, c, runtime.buffer);
    });
  }

  function hadamard(x: F32): F32 {
    const { rows, width } = checkHadamard(x);
    const source = address(x);
    const target = empty(x.shape);
    const grain = Math.ceil(2 ** 14 / Math.max(1, width));
    runtime.run("hadamard", width > 0 ? rows : 0, grain, [address(target), source, width]);
    return target;
  }

  function diagonal(a: F32): F32 {
    const n = checkSquare("diagonal", a);
    const source = address(a);
    const target = empty([n]);
    runtime.run("diagonal", n, 2 ** 14, [address(target), source, n]);
    return target;
  }

  function addDiagonal(a: F32, value: number): void {
    const n = checkSquare("addDiagonal", a);
    runtime.run("addDiagonal", n, 2 ** 14, [address(a), n, { f32: value }]);
  }

  return { matmul, gram, hadamard, diagonal, addDiagonal };
}
