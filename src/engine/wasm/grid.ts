import type { F32, Tensor } from "../../tensor/index.js";
import { checkClippedGrid, checkFakeQuantize, checkFakeQuantizeRows, type GroupExtents } from "../check.js";
import type { AffineGrid, ClippingLogits, Engine, GroupGridOptions } from "../engine.js";
import type { WasmContext } from "./context.js";

type Operations = Pick<
  Engine,
  | "clippedGrid"
  | "clippedGridGrad"
  | "fakeQuantize"
  | "fakeQuantizeGrad"
  | "affineCodes"
  | "fakeQuantizeRows"
  | "fakeQuantizeRowsGrad"
>;

/** Elements worth a thread. */
const GRAIN = 2 ** 15;
/** Bytes of two f64. */
const SUMS = 16;

/** Training of affine grids (assembly/grid.ts). */
export function gridOperations({ runtime, empty, address }: WasmContext): Operations {
  function runGroups(
    kernel: keyof Operations,
    { rows, columns, groups }: GroupExtents,
    { bits, group, symmetric }: GroupGridOptions,
    addresses: number[],
    scratch = 0,
  ): void {
    const shared = [columns, Math.min(group, columns), groups, 2 ** bits - 1, Number(symmetric)];
    if (columns > 0) runtime.run(kernel, rows, Math.ceil(GRAIN / columns), [...shared, ...addresses], scratch);
  }

  function runRows(kernel: keyof Operations, rows: number, width: number, args: number[], scratch = 0): void {
    if (width > 0) runtime.run(kernel, rows, Math.ceil(GRAIN / width), [width, ...args], scratch);
  }

  const logitsOf = (clipping: ClippingLogits | undefined): number[] =>
    clipping ? [address(clipping.upper), address(clipping.lower)] : [0, 0];

  function clippedGrid(weights: F32, clipping: ClippingLogits | undefined, options: GroupGridOptions): AffineGrid {
    const extents = checkClippedGrid("clippedGrid", weights, clipping, options);
    const inputs = [address(weights), ...logitsOf(clipping)];
    const scale = empty([extents.rows, extents.groups]);
    const zero = empty(scale.shape);
    runGroups("clippedGrid", extents, options, [...inputs, address(scale), address(zero)]);
    return { scale, zero };
  }

  function clippedGridGrad(
    weights: F32,
    clipping: ClippingLogits | undefined,
    scaleGrad: F32,
    options: GroupGridOptions,
    wanted?: { weights?: boolean },
  ): { weights?: F32; upper: F32; lower: F32 } {
    const extents = checkClippedGrid("clippedGridGrad", weights, clipping, options, scaleGrad);
    const inputs = [address(weights), ...logitsOf(clipping), address(scaleGrad)];
    const ofWeights = wanted?.weights === false ? undefined : empty(weights.shape);
    const result = { upper: empty(scaleGrad.shape), lower: empty(scaleGrad.shape) };
    const targets = [ofWeights ? address(ofWeights) : 0, address(result.upper), address(result.lower)];
    runGroups("clippedGridGrad", extents, options, [...inputs, ...targets]);
    return ofWeights ? { weights: ofWeights, ...result } : result;
  }

  function fakeQuantize(weights: F32, grid: AffineGrid, options: GroupGridOptions): F32 {
    const extents = checkFakeQuantize("fakeQuantize", weights, grid, options);
    const inputs = [weights, grid.scale, grid.zero].map(address);
    const result = empty(weights.shape);
    runGroups("fakeQuantize", extents, options, [...inputs, address(result)]);
    return result;
  }

  function fakeQuantizeGrad(
    weights: F32,
    grid: AffineGrid,
    grad: F32,
    options: GroupGridOptions,
    wanted?: { weights?: boolean },
  ): { weights?: F32; scale: F32; zero: F32 } {
    const extents = checkFakeQuantize("fakeQuantizeGrad", weights, grid, options, grad);
    const inputs = [weights, grid.scale, grid.zero, grad].map(address);
    const ofWeights = wanted?.weights === false ? undefined : empty(weights.shape);
    const result = { scale: empty(grid.scale.shape), zero: empty(grid.zero.shape) };
    const targets = [ofWeights ? address(ofWeights) : 0, address(result.scale), address(result.zero)];
    runGroups("fakeQuantizeGrad", extents, options, [...inputs, ...targets], SUMS);
    return ofWeights ? { weights: ofWeights, ...result } : result;
  }

  function affineCodes(weights: F32, grid: AffineGrid, options: GroupGridOptions): Tensor<"u8"> {
    const extents = checkFakeQuantize("affineCodes", weights, grid, options);
    const inputs = [weights, grid.scale, grid.zero].map(address);
    const result = empty(weights.shape, "u8");
    runGroups("affineCodes", extents, options, [...inputs, address(result)]);
    return result;
  }

  function fakeQuantizeRows(x: F32, bits: number, symmetric = false): F32 {
    const { rows, width } = checkFakeQuantizeRows("fakeQuantizeRows", x, bits);
    const source = address(x);
    const result = empty(x.shape);
    runRows("fakeQuantizeRows", rows, width, [2 ** bits - 1, Number(symmetric), source, address(result)]);
    return result;
  }

  function fakeQuantizeRowsGrad(x: F32, bits: number, grad: F32, symmetric = false): F32 {
    const { rows, width } = checkFakeQuantizeRows("fakeQuantizeRowsGrad", x, bits, grad);
    const inputs = [address(x), address(grad)];
    const result = empty(x.shape);
    const args = [2 ** bits - 1, Number(symmetric), ...inputs, address(result)];
    runRows("fakeQuantizeRowsGrad", rows, width, args, SUMS);
    return result;
  }

  return {
    clippedGrid,
    clippedGridGrad,
    fakeQuantize,
    fakeQuantizeGrad,
    affineCodes,
    fakeQuantizeRows,
    fakeQuantizeRowsGrad,
  };
}
