import { usageError } from "../../errors.js";
import { sameShape, type Tensor } from "../../tensor/index.js";
import type { AffineGridOptions, AffineSweepOptions, CodebookSegment } from "../engine.js";
import { checkIndexValues, isCount, isF32, misfit } from "./basis.js";

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
