import { usageError } from "../../errors.js";
import { sameShape, type Tensor } from "../../tensor/index.js";
import type { AffineGrid, ClippingLogits, GroupGridOptions, WeightFactors } from "../engine.js";
import { isF32, misfit } from "./basis.js";

// Training of affine grids: weights [O, I], a grid [O, G], groups of consecutive columns.

export interface GroupExtents {
  rows: number;
  columns: number;
  /** ceil(columns / group). */
  groups: number;
}

function checkBits(operation: string, bits: number): void {
  if (!Number.isInteger(bits) || bits < 2 || bits > 8)
    throw usageError(`${operation}: expected 2 to 8 bits, got ${bits}`);
}

function checkGroups(operation: string, weights: Tensor, { bits, group }: GroupGridOptions): GroupExtents {
  if (!isF32(weights) || weights.shape.length !== 2) throw misfit(operation, "weights f32 [O, I]", weights);
  checkBits(operation, bits);
  if (!Number.isSafeInteger(group) || group < 1)
    throw usageError(`${operation}: expected groups of at least 1 column, got ${group}`);
  const [rows, columns] = weights.shape;
  return { rows, columns, groups: Math.ceil(columns / group) };
}

function checkPair(operation: string, what: string, { rows, groups }: GroupExtents, ...pair: Tensor[]): void {
  if (!pair.every((one) => isF32(one) && sameShape(one.shape, [rows, groups])))
    throw misfit(operation, `${what} f32 [${rows}, ${groups}]`, ...pair);
}

/** weights [O, I]; logits, where given, and the gradient of the scale, for `clippedGridGrad`, [O, G]. */
export function checkClippedGrid(
  operation: string,
  weights: Tensor,
  clipping: ClippingLogits | undefined,
  options: GroupGridOptions,
  scaleGrad?: Tensor,
): GroupExtents {
  const extents = checkGroups(operation, weights, options);
  if (clipping) checkPair(operation, "upper and lower logits", extents, clipping.upper, clipping.lower);
  if (scaleGrad) checkPair(operation, "a gradient of the scale", extents, scaleGrad);
  return extents;
}

/** weights [O, I], scale and zero [O, G]; the gradient, for `fakeQuantizeGrad`, [O, I]. */
export function checkFakeQuantize(
  operation: string,
  weights: Tensor,
  { scale, zero }: AffineGrid,
  options: GroupGridOptions,
  grad?: Tensor,
): GroupExtents {
  const extents = checkGroups(operation, weights, options);
  checkPair(operation, "a grid of scale and zero", extents, scale, zero);
  if (grad && !(isF32(grad) && sameShape(grad.shape, weights.shape)))
    throw misfit(operation, "a gradient f32 in the shape of the weights", weights, grad);
  return extents;
}

/** weights [O, I], factors [O] and [I], logits [O, G], each where given; the gradient, for `clippedFakeQuantizeGrad`, [O, I]. */
export function checkClippedFakeQuantize(
  operation: string,
  weights: Tensor,
  { rows, columns }: WeightFactors,
  clipping: ClippingLogits | undefined,
  options: GroupGridOptions,
  grad?: Tensor,
): GroupExtents {
  const extents = checkClippedGrid(operation, weights, clipping, options);
  const fits = (factor: Tensor | undefined, size: number) =>
    !factor || (isF32(factor) && sameShape(factor.shape, [size]));
  if (!fits(rows, extents.rows) || !fits(columns, extents.columns))
    throw misfit(operation, `factors f32 [${extents.rows}] of rows and [${extents.columns}] of columns`, rows, columns);
  if (grad && !(isF32(grad) && sameShape(grad.shape, weights.shape)))
    throw misfit(operation, "a gradient f32 in the shape of the weights", weights, grad);
  return extents;
}

/** x [.., C]; the gradient, for `fakeQuantizeRowsGrad`, in the same shape. Rows are all axes but the last. */
export function checkFakeQuantizeRows(
  operation: string,
  x: Tensor,
  bits: number,
  grad?: Tensor,
): { rows: number; width: number } {
  const rank = x.shape.length;
  if (!isF32(x, grad) || rank === 0 || (grad && !sameShape(grad.shape, x.shape)))
    throw misfit(operation, grad ? "f32 [.., C], both of one shape" : "f32 [.., C]", x, grad);
  checkBits(operation, bits);
  const width = x.shape[rank - 1];
  return { rows: width === 0 ? 0 : x.size / width, width };
}
