import type { F32 } from "../../../tensor/index.js";
import { checkClippedGrid, checkFakeQuantize, type GroupExtents } from "../../check.js";
import type { ClippingLogits, Engine, GroupGridOptions } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";
import { runWindows } from "../windows.js";

type Operations = Pick<Engine, "clippedGrid" | "clippedGridGrad" | "fakeQuantize" | "fakeQuantizeGrad" | "affineCodes">;

// width: columns of a group; perRow: groups of a row, G of engine.ts; runs: O G
export const RUNS = {
  runs: "u32",
  columns: "u32",
  width: "u32",
  perRow: "u32",
  levels: "u32",
  symmetric: "u32",
} as const;
const CLIPPING = { ...RUNS, withLogits: "u32", lanes: "u32" } as const;
const CLIPPED_GRID = declareKernel("grid", "clippedGrid", {
  reads: { weights: "f32", upper: "f32", lower: "f32" },
  writes: { scale: "f32", zero: "f32" },
  numbers: CLIPPING,
});
const CLIPPED_GRID_GRAD = declareKernel("grid", "clippedGridGrad", {
  reads: { weights: "f32", upper: "f32", lower: "f32", scaleGrad: "f32" },
  writes: { weightsGrad: "f32", upperGrad: "f32", lowerGrad: "f32" },
  numbers: { wanted: "u32", ...CLIPPING }, // wanted: the gradient of the weights
});
const FAKE_QUANTIZE = declareKernel("grid", "fakeQuantize", {
  reads: { weights: "f32", scale: "f32", zero: "f32" },
  writes: { y: "f32" },
  numbers: { rows: "u32", columns: "u32", width: "u32", perRow: "u32", levels: "u32" },
});
const FAKE_QUANTIZE_GRAD = declareKernel("grid", "fakeQuantizeGrad", {
  reads: { weights: "f32", scale: "f32", zero: "f32", grad: "f32" },
  writes: { weightsGrad: "f32", scaleGrad: "f32", zeroGrad: "f32" },
  numbers: { wanted: "u32", runs: "u32", columns: "u32", width: "u32", perRow: "u32", levels: "u32", lanes: "u32" },
});
const AFFINE_CODES = declareKernel("grid", "affineCodes", {
  reads: { weights: "f32", scale: "f32", zero: "f32" },
  writes: { codes: "u8" },
  numbers: { size: "u32", columns: "u32", width: "u32", perRow: "u32", levels: "u32" },
});

const THREADS = 256;
/** Columns of one row that a group of `fakeQuantize` takes. */
const PIECE = 1024;

/** Threads for a run of elements: a power of 2, about 4 elements for each. */
export function lanesFor(elements: number): number {
  let lanes = 1;
  while (lanes < THREADS && lanes * 4 < elements) lanes *= 2;
  return lanes;
}

/** Groups for runs of so many lanes. */
export const runGroups = (runs: number, lanes: number): number => Math.ceil(runs / (THREADS / lanes));

/** Grids of rows of weights [O, I] by groups of consecutive columns, and their gradients. */
export function gridOperations(memory: DeviceMemory): Operations {
  const extentsOf = ({ rows, columns, groups }: GroupExtents, { bits, group }: GroupGridOptions) => {
    const width = Math.min(group, columns);
    const lanes = lanesFor(width);
    return { rows, columns, width, perRow: groups, levels: 2 ** bits - 1, lanes };
  };
  /** The logits, and their elements of a row; without logits something must be bound in their place. */
  const logitsOf = (clipping: ClippingLogits | undefined, weights: F32, perRow: number, columns: number) => {
    const tensors: [F32, F32] = clipping ? [clipping.upper, clipping.lower] : [weights, weights];
    const each = clipping ? perRow : columns;
    return { logits: tensors, eachLogits: [each, each] };
  };

  /** The gradient of the weights, or one element that is let go of again, where it is not wanted. */
  function weightsGradOf(weights: F32, { weights: isWanted = true }: { weights?: boolean } = {}) {
    const tensor = memory.empty(isWanted ? weights.shape : [1]);
    const result = (): { weights?: F32 } => {
      if (isWanted) return { weights: tensor };
      tensor.dispose();
      return {};
    };
    const columns = isWanted ? weights.shape[1] : 0;
    return { tensor, each: columns, wanted: Number(isWanted), result };
  }

  return {
    clippedGrid(weights, clipping, options) {
      const checked = checkClippedGrid("clippedGrid", weights, clipping, options);
      const { rows, columns, width, perRow, levels, lanes } = extentsOf(checked, options);
      const scale = memory.empty([rows, perRow]);
      const zero = memory.empty(scale.shape);
      const flags = [Number(options.symmetric), Number(clipping !== undefined)];
      const { logits, eachLogits } = logitsOf(clipping, weights, perRow, columns);
      const division = { extent: rows, each: [columns, ...eachLogits, perRow, perRow] };
      runWindows(memory, CLIPPED_GRID, [weights, ...logits, scale, zero], division, (count) => ({
        groups: runGroups(count * perRow, lanes),
        numbers: [count * perRow, columns, width, perRow, levels, ...flags, lanes],
      }));
      return { scale, zero };
    },

    clippedGridGrad(weights, clipping, scaleGrad, options, wanted) {
      const checked = checkClippedGrid("clippedGridGrad", weights, clipping, options, scaleGrad);
      const { rows, columns, width, perRow, levels, lanes } = extentsOf(checked, options);
      const weightsGrad = weightsGradOf(weights, wanted);
      const [upper, lower] = [memory.empty(scaleGrad.shape), memory.empty(scaleGrad.shape)];
      const flags = [Number(options.symmetric), Number(clipping !== undefined)];
      const { logits, eachLogits } = logitsOf(clipping, weights, perRow, columns);
      const tensors = [weights, ...logits, scaleGrad, weightsGrad.tensor, upper, lower];
      const division = { extent: rows, each: [columns, ...eachLogits, perRow, weightsGrad.each, perRow, perRow] };
      runWindows(memory, CLIPPED_GRID_GRAD, tensors, division, (count) => ({
        groups: runGroups(count * perRow, lanes),
        numbers: [weightsGrad.wanted, count * perRow, columns, width, perRow, levels, ...flags, lanes],
      }));
      return { ...weightsGrad.result(), upper, lower };
    },

    fakeQuantize(weights, grid, options) {
      const checked = checkFakeQuantize("fakeQuantize", weights, grid, options);
      const { rows, columns, width, perRow, levels } = extentsOf(checked, options);
      const y = memory.empty(weights.shape);
      const division = { extent: rows, each: [columns, perRow, perRow, columns] };
      runWindows(memory, FAKE_QUANTIZE, [weights, grid.scale, grid.zero, y], division, (count) => ({
        groups: count * Math.ceil(columns / PIECE),
        numbers: [count, columns, width, perRow, levels],
      }));
      return y;
    },

    fakeQuantizeGrad(weights, grid, grad, options, wanted) {
      const checked = checkFakeQuantize("fakeQuantizeGrad", weights, grid, options, grad);
      const { rows, columns, width, perRow, levels, lanes } = extentsOf(checked, options);
      const weightsGrad = weightsGradOf(weights, wanted);
      const [scale, zero] = [memory.empty(grid.scale.shape), memory.empty(grid.zero.shape)];
      const tensors = [weights, grid.scale, grid.zero, grad, weightsGrad.tensor, scale, zero];
      const division = { extent: rows, each: [columns, perRow, perRow, columns, weightsGrad.each, perRow, perRow] };
      runWindows(memory, FAKE_QUANTIZE_GRAD, tensors, division, (count) => ({
        groups: runGroups(count * perRow, lanes),
        numbers: [weightsGrad.wanted, count * perRow, columns, width, perRow, levels, lanes],
      }));
      return { ...weightsGrad.result(), scale, zero };
    },

    affineCodes(weights, grid, options) {
      const checked = checkFakeQuantize("affineCodes", weights, grid, options);
      const { rows, columns, width, perRow, levels } = extentsOf(checked, options);
      const codes = memory.empty(weights.shape, "u8");
      // codes are written as words: those of a window begin at one
      const step = columns % 4 === 0 ? 1 : 4;
      const each = [columns, perRow, perRow, columns].map((ofRow) => step * ofRow);
      const division = { extent: rows, step, each };
      runWindows(memory, AFFINE_CODES, [weights, grid.scale, grid.zero, codes], division, (count) => ({
        groups: Math.ceil((count * columns) / (4 * THREADS)),
        numbers: [count * columns, columns, width, perRow, levels],
      }));
      return codes;
    },
  };
}
