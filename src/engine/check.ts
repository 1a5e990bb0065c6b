import { type BitwrightError, usageError } from "../errors.js";
import { type DType, type HostArray, hostArray, sameShape, sizeOf, type Tensor } from "../tensor/index.js";
import type {
  AffineGridOptions,
  AffineSweepOptions,
  AttentionOptions,
  CodebookSegment,
  MatmulOptions,
} from "./engine.js";

// What every engine checks of its arguments, so that all refuse alike: one function an operation (or a few that are alike),
// which throws a "usage" error that names operation, expectation and what came, and returns the extents. Shape letters as in
// engine.ts. The functions look at shapes and types; those named `..Values` look at elements and need them on the host.

const describe = ({ dtype, shape }: Tensor): string => `${dtype} [${shape.join(", ")}]`;

/** "operation: expected .., got f32 [2, 3], i32 [4]". */
function misfit(operation: string, expected: string, ...came: (Tensor | undefined)[]): BitwrightError {
  const given = came.filter((tensor) => tensor !== undefined).map(describe);
  return usageError(`${operation}: expected ${expected}, got ${given.join(", ")}`);
}

const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 0;
const isF32 = (...tensors: (Tensor | undefined)[]): boolean =>
  tensors.every((t) => t === undefined || t.dtype === "f32");

/** Do the elements of two tensors share memory? */
function overlap(a: Tensor, b: Tensor): boolean {
  if (a.buffer !== b.buffer || a.size === 0 || b.size === 0) return false;
  return a.byteOffset < b.byteOffset + b.bytes && b.byteOffset < a.byteOffset + a.bytes;
}

function checkApart(operation: string, target: Tensor, ...inputs: (Tensor | undefined)[]): void {
  if (inputs.some((input) => input !== undefined && overlap(target, input)))
    throw usageError(
      `${operation}: expected a target that shares no memory with the inputs, got one that does`,
      "copy the input first",
    );
}

// ---- memory

export function checkTensor(tensor: Tensor): void {
  if (tensor.disposed)
    throw usageError(
      `a tensor ${describe(tensor)} was used after its end`,
      "return it from its scope, or keep it out of scopes",
    );
}

export function checkShape(operation: string, shape: readonly number[]): void {
  if (!shape.every(isCount) || !isCount(sizeOf(shape)))
    throw usageError(`${operation}: expected a shape of whole numbers from 0 on, got [${shape.join(", ")}]`);
}

/** Elements [offset, offset + count) of `size`. */
export function checkRange(operation: string, offset: number, count: number, size: number): void {
  if (!isCount(offset) || offset + count > size)
    throw usageError(`${operation}: expected a range within ${size} elements, got ${count} from ${offset} on`);
}

/** Host data of the right array type and, where given, length. */
export function checkDense<D extends DType>(operation: string, data: HostArray<D>, dtype: D, length?: number): void {
  const wanted = hostArray(dtype, 0).constructor;
  if (data?.constructor !== wanted || (length !== undefined && data.length !== length))
    throw usageError(
      `${operation}: expected a ${wanted.name}${length === undefined ? "" : ` of ${length} elements`} for ${dtype}, ` +
        `got ${data?.constructor.name} of ${data?.length}`,
    );
}

const CASTS: Readonly<Record<DType, readonly DType[]>> = {
  f32: ["f16", "bf16", "i32", "u16", "u8"],
  f16: ["f32"],
  bf16: ["f32"],
  i32: ["f32"],
  u16: ["f32"],
  u8: ["f32"],
  u32: [],
};

export function checkCast(from: DType, to: DType): void {
  if (!CASTS[from].includes(to))
    throw usageError(`cast: expected ${from} to ${CASTS[from].join(" or ") || "nothing"}, got ${from} to ${to}`);
}

// ---- elementwise, layout, reductions

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

/** a [R, ..], factors [R]. */
export function checkScaleRows(a: Tensor, factors: Tensor): { rows: number; width: number } {
  if (!isF32(a, factors) || a.shape.length === 0 || !sameShape(factors.shape, [a.shape[0]]))
    throw misfit("scaleRows", "f32 [R, ..] and f32 [R]", a, factors);
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

/** Every element within 0 .. bound - 1. */
export function checkIndexValues(operation: string, values: Int32Array, bound: number): void {
  for (let at = 0; at < values.length; at++)
    if (values[at] < 0 || values[at] >= bound)
      throw usageError(`${operation}: expected indices within 0 .. ${bound - 1}, got ${values[at]} at ${at}`);
}

export function checkDot(a: Tensor, b: Tensor): void {
  if (!isF32(a, b) || a.size !== b.size) throw misfit("dot", "f32 of one size", a, b);
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

// ---- matrices

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

/** [N, N] -> N. */
export function checkSquare(operation: string, a: Tensor): number {
  if (!isF32(a) || a.shape.length !== 2 || a.shape[0] !== a.shape[1]) throw misfit(operation, "f32 [N, N]", a);
  return a.shape[0];
}

// ---- decoder

/** x [.., D], weight [D]. */
export function checkRmsNorm(x: Tensor, weight: Tensor): { rows: number; width: number } {
  const width = x.shape.at(-1);
  if (!isF32(x, weight) || width === undefined || !sameShape(weight.shape, [width]))
    throw misfit("rmsNorm", "f32 [.., D] and f32 [D]", x, weight);
  return { rows: sizeOf(x.shape.slice(0, -1)), width };
}

export interface RopeExtents {
  batch: number;
  tokens: number;
  heads: number;
  size: number;
  /** r. */
  pairs: number;
}

export function checkRope(x: Tensor, cos: Tensor, sin: Tensor, start: number): RopeExtents {
  const [batch, tokens, heads, size] = x.shape;
  const [positions, pairs] = cos.shape;
  if (
    !isF32(x, cos, sin) ||
    x.shape.length !== 4 ||
    cos.shape.length !== 2 ||
    !sameShape(cos.shape, sin.shape) ||
    2 * pairs > size
  )
    throw misfit("rope", "f32 [B, T, H, d] and twice f32 [positions, r] with 2r <= d", x, cos, sin);
  if (!isCount(start) || start + tokens > positions)
    throw usageError(`rope: expected tokens within ${positions} positions, got ${tokens} from position ${start} on`);
  return { batch, tokens, heads, size, pairs };
}

export interface AttentionExtents {
  batch: number;
  /** T. */
  tokens: number;
  /** S of the tensors. */
  capacity: number;
  /** Valid positions, T <= keyLength <= S. */
  keyLength: number;
  /** H and K; H / K query heads share a key-value head. */
  heads: number;
  keyValueHeads: number;
  size: number;
  /** Positions that a query sees at most, itself included. */
  window: number;
}

export function checkAttention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): AttentionExtents {
  const [batch, tokens, heads, size] = q.shape;
  const [, capacity, keyValueHeads] = k.shape;
  const grouped = keyValueHeads > 0 ? heads % keyValueHeads === 0 : heads === 0;
  if (
    !isF32(q, k, v) ||
    q.shape.length !== 4 ||
    !sameShape(k.shape, [batch, capacity, keyValueHeads, size]) ||
    !sameShape(k.shape, v.shape) ||
    !grouped
  )
    throw misfit("attention", "f32 [B, T, H, d] and twice f32 [B, S, K, d] with H a multiple of K", q, k, v);
  const { scale, keyLength = capacity, window = Number.MAX_SAFE_INTEGER } = options;
  if (!isCount(keyLength) || keyLength > capacity || keyLength < tokens)
    throw usageError(`attention: expected a keyLength from T = ${tokens} to S = ${capacity}, got ${keyLength}`);
  if (!(window >= 1)) throw usageError(`attention: expected a window of at least 1, got ${window}`);
  if (!Number.isFinite(scale)) throw usageError(`attention: expected a finite scale, got ${scale}`);
  return {
    batch,
    tokens,
    capacity,
    keyLength,
    heads,
    keyValueHeads,
    size,
    window: Math.floor(Math.min(window, keyLength)),
  };
}

/** logits [T, V], targets i32 [T]. Their values are for `checkIndexValues`. */
export function checkCrossEntropy(logits: Tensor, targets: Tensor): { rows: number; columns: number } {
  const [rows, columns] = logits.shape;
  if (!isF32(logits) || logits.shape.length !== 2 || targets.dtype !== "i32" || !sameShape(targets.shape, [rows]))
    throw misfit("crossEntropy", "f32 [T, V] and i32 [T]", logits, targets);
  return { rows, columns };
}

/** [T, V] both; rows without elements are no distributions. */
export function checkKlDivergence(reference: Tensor, logits: Tensor): { rows: number; columns: number } {
  const [rows, columns] = logits.shape;
  const fits = logits.shape.length === 2 && sameShape(reference.shape, logits.shape) && (rows === 0 || columns > 0);
  if (!isF32(reference, logits) || !fits)
    throw misfit("klDivergence", "twice f32 [T, V] with V of at least 1", reference, logits);
  return { rows, columns };
}

// ---- quantization

/** vectors [n, v], codebook [C, v], previous i32 [n]. */
export function checkNearestCodeword(
  vectors: Tensor,
  codebook: Tensor,
  previous?: Tensor,
): { count: number; vectorLength: number; codewords: number } {
  const [count, vectorLength] = vectors.shape;
  if (
    !isF32(vectors, codebook) ||
    vectors.shape.length !== 2 ||
    codebook.shape.length !== 2 ||
    codebook.shape[1] !== vectorLength ||
    (previous && (previous.dtype !== "i32" || !sameShape(previous.shape, [count]))) ||
    (count > 0 && codebook.shape[0] === 0)
  )
    throw misfit(
      "nearestCodeword",
      "f32 [n, v], f32 [C, v] with C of at least 1 and, where given, i32 [n]",
      vectors,
      codebook,
      previous,
    );
  return { count, vectorLength, codewords: codebook.shape[0] };
}

/** vectors [n, v], weights [n], indices i32 [n]. The values of the indices are for `checkIndexValues`. */
export function checkSegmentSum(
  vectors: Tensor,
  weights: Tensor,
  indices: Tensor,
  segments: number,
): { count: number; vectorLength: number } {
  const [count, vectorLength] = vectors.shape;
  if (
    !isF32(vectors, weights) ||
    indices.dtype !== "i32" ||
    vectors.shape.length !== 2 ||
    !sameShape(weights.shape, [count]) ||
    !sameShape(indices.shape, [count])
  )
    throw misfit("segmentSum", "f32 [n, v], f32 [n] and i32 [n]", vectors, weights, indices);
  if (!isCount(segments)) throw usageError(`segmentSum: expected a number of segments from 0 on, got ${segments}`);
  return { count, vectorLength };
}

/** weights [I, P], feedback [I, I]. */
function checkSweep(operation: string, weights: Tensor, square: Tensor | undefined): { columns: number; rows: number } {
  const [columns, rows] = weights.shape;
  if (!isF32(weights, square) || weights.shape.length !== 2 || (square && !sameShape(square.shape, [columns, columns])))
    throw misfit(operation, "f32 [I, P] and, where given, f32 [I, I]", weights, square);
  return { columns, rows };
}

function checkSegments(operation: string, segments: readonly CodebookSegment[], columns: number, rows: number): void {
  let at = 0;
  for (const [number, { begin, end, stages }] of segments.entries()) {
    if (begin !== at || !Number.isSafeInteger(end) || end < begin || end > columns)
      throw usageError(
        `${operation}: expected segments that cover 0 .. ${columns} in order, got [${begin}, ${end}) where ${at} is next`,
      );
    at = end;
    const v = stages[0]?.shape[1];
    const fits = (stage: Tensor) =>
      isF32(stage) && stage.shape.length === 2 && stage.shape[0] > 0 && stage.shape[1] === v && v > 0 && rows % v === 0;
    if (stages.length === 0 || !stages.every(fits))
      throw misfit(
        `${operation}, segment ${number}`,
        `codebooks f32 [C, v] of one v that divides P = ${rows}, at least one of them`,
        ...stages,
      );
  }
  if (at !== columns)
    throw usageError(`${operation}: expected segments that cover 0 .. ${columns} in order, got an end at ${at}`);
}

function checkBeam(operation: string, beam: number): number {
  if (!Number.isSafeInteger(beam) || beam < 1)
    throw usageError(`${operation}: expected a beam of at least 1, got ${beam}`);
  return beam;
}

/** Returns I, P and the beam. */
export function checkVectorSweep(
  weights: Tensor,
  feedback: Tensor | undefined,
  segments: readonly CodebookSegment[],
  options: { beam?: number } = {},
): { columns: number; rows: number; beam: number } {
  const { columns, rows } = checkSweep("vectorSweep", weights, feedback);
  checkSegments("vectorSweep", segments, columns, rows);
  return { columns, rows, beam: checkBeam("vectorSweep", options.beam ?? 1) };
}

/** Returns I, P and the beam. The values of the indices do not matter: `quantized` says what they stand for. */
export function checkCoordinateSweep(
  weights: Tensor,
  hessian: Tensor,
  quantized: Tensor,
  segments: readonly CodebookSegment[],
  indices: readonly (readonly Tensor[])[],
  options: { beam?: number } = {},
): { columns: number; rows: number; beam: number } {
  const operation = "coordinateSweep";
  const { columns, rows } = checkSweep(operation, weights, hessian);
  if (!isF32(quantized) || !sameShape(quantized.shape, weights.shape))
    throw misfit(operation, "quantized f32 in the shape of the weights", weights, quantized);
  checkSegments(operation, segments, columns, rows);
  if (indices.length !== segments.length)
    throw usageError(`${operation}: expected indices of ${segments.length} segments, got ${indices.length}`);
  for (const [number, { begin, end, stages }] of segments.entries()) {
    const shape = [end - begin, rows / stages[0].shape[1]];
    const given = indices[number];
    if (given.length !== stages.length || !given.every((one) => one.dtype === "i32" && sameShape(one.shape, shape)))
      throw misfit(`${operation}, segment ${number}`, `indices i32 [${shape.join(", ")}] for each stage`, ...given);
  }
  return { columns, rows, beam: checkBeam(operation, options.beam ?? 1) };
}

function checkGroups(operation: string, options: AffineGridOptions, columns: number): void {
  const { bits, groupOfColumn, groups } = options;
  if (!Number.isInteger(bits) || bits < 2 || bits > 8)
    throw usageError(`${operation}: expected 2 to 8 bits, got ${bits}`);
  if (groupOfColumn.length !== columns)
    throw usageError(`${operation}: expected the group of each of ${columns} columns, got ${groupOfColumn.length}`);
  if (!isCount(groups)) throw usageError(`${operation}: expected a number of groups from 0 on, got ${groups}`);
  checkIndexValues(`${operation}, groupOfColumn`, groupOfColumn, groups);
}

/** Returns I and O. */
export function checkAffineGrid(weights: Tensor, options: AffineGridOptions): { columns: number; rows: number } {
  const extents = checkSweep("affineGrid", weights, undefined);
  checkGroups("affineGrid", options, extents.columns);
  return extents;
}

/** Returns I and O. */
export function checkAffineSweep(
  weights: Tensor,
  feedback: Tensor | undefined,
  options: AffineSweepOptions,
): { columns: number; rows: number } {
  const extents = checkSweep("affineSweep", weights, feedback);
  checkGroups("affineSweep", options, extents.columns);
  const { grid, groups } = options;
  const shape = [groups, extents.rows];
  if (
    grid &&
    !(isF32(grid.scale, grid.zero) && sameShape(grid.scale.shape, shape) && sameShape(grid.zero.shape, shape))
  )
    throw misfit("affineSweep", `a grid of scale and zero f32 [${shape.join(", ")}]`, grid.scale, grid.zero);
  return extents;
}
