import { sameShape, sizeOf, type Tensor } from "../../tensor/index.js";
import type { MatmulOptions } from "../engine.js";
import { checkApart, isF32, misfit } from "./basis.js";

// Elementwise operations, layout, reductions and matrices.

/** b has the shape of a or is [last axis of a]. */
export function checkElementwise(operation: string, a: Tensor, b: Tensor): void {
  const repeats = b.shape.length === 1 && a.shape.length > 0 && b.shape[0] === a.shape[a.shape.length - 1];
  if (!isF32(a, b) || !(repeats || sameShape(a.shape, b.shape)))
    throw misfit(operation, "f32 of one shape, or a second that is the last axis of the first", a, b);
}

/** Same number of elements; a target in place may be the input itself but not overlap it otherwise. */
export function checkAddInto(target: Tensor, a: Tensor): void {
  if (!isF32(target, a) || target.size !== a.size) throw misfit("addInto", "f32 of one size", target, a);
  if (target.byteOffset !== a.byteOffset) checkApart("addInto", target, a);
}

export function checkScale(a: Tensor): void {
  if (!isF32(a)) throw misfit("scale", "f32", a);
}

export function checkUnary(operation: string, a: Tensor): void {
  if (!isF32(a)) throw misfit(operation, "f32", a);
}

/** a [R, ..] and a number for each row, [R]. */
export function checkWithRows(operation: string, a: Tensor, ofRows: Tensor): { rows: number; width: number } {
  if (!isF32(a, ofRows) || a.shape.length === 0 || !sameShape(ofRows.shape, [a.shape[0]]))
    throw misfit(operation, "f32 [R, ..] and f32 [R]", a, ofRows);
  return { rows: a.shape[0], width: sizeOf(a.shape.slice(1)) };
}

export function checkSiluMultiply(gate: Tensor, up: Tensor): void {
  if (!isF32(gate, up) || !sameShape(gate.shape, up.shape)) throw misfit("siluMultiply", "f32 of one shape", gate, up);
}

export function checkTranspose(a: Tensor): { rows: number; columns: number } {
  if (!isF32(a) || a.shape.length !== 2) throw misfit("transpose", "f32 [R, C]", a);
  return { rows: a.shape[0], columns: a.shape[1] };
}

/** table [R, ..], indices any shape. `shape` is that of the result. */
export function checkGatherRows(
  table: Tensor,
  indices: Tensor,
): { rows: number; width: number; count: number; shape: number[] } {
  if (!isF32(table) || table.shape.length === 0 || indices.dtype !== "i32")
    throw misfit("gatherRows", "f32 [R, ..] and i32", table, indices);
  const row = table.shape.slice(1);
  return { rows: table.shape[0], width: sizeOf(row), count: indices.size, shape: [...indices.shape, ...row] };
}

export function checkDot(a: Tensor, b: Tensor): void {
  if (!isF32(a, b) || a.size !== b.size) throw misfit("dot", "f32 of one size", a, b);
}

/** [.., C]: rows are all axes but the last. */
export function checkColumns(operation: string, a: Tensor): { rows: number; width: number } {
  const width = a.shape.at(-1);
  if (!isF32(a) || width === undefined) throw misfit(operation, "f32 [.., C]", a);
  return { rows: sizeOf(a.shape.slice(0, -1)), width };
}

/** [R, ..] both. */
export function checkRowDots(a: Tensor, b: Tensor): { rows: number; width: number } {
  if (!isF32(a, b) || a.shape.length === 0 || !sameShape(a.shape, b.shape))
    throw misfit("rowDots", "f32 [R, ..], both of one shape", a, b);
  return { rows: a.shape[0], width: sizeOf(a.shape.slice(1)) };
}

export function checkAllFinite(a: Tensor): void {
  if (!isF32(a)) throw misfit("allFinite", "f32", a);
}

/** [R, C]; rows without elements have no largest one. */
export function checkArgmax(a: Tensor): { rows: number; columns: number } {
  if (!isF32(a) || a.shape.length !== 2 || (a.shape[0] > 0 && a.shape[1] === 0))
    throw misfit("argmax", "f32 [R, C] with C of at least 1", a);
  return { rows: a.shape[0], columns: a.shape[1] };
}

export interface MatmulExtents {
  /** 1 for rank 2. */
  batch: number;
  m: number;
  k: number;
  n: number;
  /** Of the result. */
  shape: number[];
}

export function checkMatmul(a: Tensor, b: Tensor, options: MatmulOptions = {}): MatmulExtents {
  const rank = a.shape.length;
  if (
    !isF32(a, b) ||
    (rank !== 2 && rank !== 3) ||
    b.shape.length !== rank ||
    (rank === 3 && a.shape[0] !== b.shape[0])
  )
    throw misfit("matmul", "two f32 matrices, or two stacks of as many matrices", a, b);
  const [rowsA, columnsA] = a.shape.slice(-2);
  const [rowsB, columnsB] = b.shape.slice(-2);
  const [m, k] = options.transposeA ? [columnsA, rowsA] : [rowsA, columnsA];
  const [inner, n] = options.transposeB ? [columnsB, rowsB] : [rowsB, columnsB];
  if (k !== inner)
    throw misfit(
      `matmul${options.transposeA ? ", a transposed" : ""}${options.transposeB ? ", b transposed" : ""}`,
      `[m, k] times [k, n] (got k = ${k} and ${inner})`,
      a,
      b,
    );
  const batch = rank === 3 ? a.shape[0] : 1;
  const shape = rank === 3 ? [batch, m, n] : [m, n];
  const { accumulate } = options;
  if (accumulate) {
    if (!isF32(accumulate) || !sameShape(accumulate.shape, shape))
      throw misfit("matmul", `an accumulator f32 [${shape.join(", ")}]`, accumulate);
    checkApart("matmul", accumulate, a, b);
  }
  return { batch, m, k, n, shape };
}

/** accumulator [N, N], x [T, N], weights [T]. */
export function checkGram(accumulator: Tensor, x: Tensor, weights?: Tensor): { rows: number; columns: number } {
  const [rows, columns] = x.shape;
  if (
    !isF32(accumulator, x, weights) ||
    x.shape.length !== 2 ||
    !sameShape(accumulator.shape, [columns, columns]) ||
    (weights && !sameShape(weights.shape, [rows]))
  )
    throw misfit("gram", "f32 [N, N], [T, N] and, where given, [T]", accumulator, x, weights);
  checkApart("gram", accumulator, x, weights);
  return { rows, columns };
}

/** [.., n], n a power of two (or 0). */
export function checkHadamard(x: Tensor): { rows: number; width: number } {
  const width = x.shape.at(-1);
  if (!isF32(x) || width === undefined || 2 ** Math.round(Math.log2(width)) !== width)
    throw misfit("hadamard", "f32 [.., n], n a power of two", x);
  return { rows: sizeOf(x.shape.slice(0, -1)), width };
}

/** [N, N] -> N. */
export function checkSquare(operation: string, a: Tensor): number {
  if (!isF32(a) || a.shape.length !== 2 || a.shape[0] !== a.shape[1]) throw misfit(operation, "f32 [N, N]", a);
  return a.shape[0];
}
