import type { F32 } from "../../../tensor/index.js";
import { checkClippedGrid, checkFakeQuantize, type GroupExtents } from "../../check.js";
import type { ClippingLogits, Engine, GroupGridOptions } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";

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
    const runs = rows * groups;
    return { rows, columns, width, perRow: groups, levels: 2 ** bits - 1, runs, lanes, groups: runGroups(runs, lanes) };
  };
  /** Without logits something must be bound in their place. */
  const logitsOf = (clipping: ClippingLogits | undefined, weights: F32): [F32, F32] =>
    clipping ? [clipping.upper, clipping.lower] : [weights, weights];

  /** The gradient of the weights, or one element that is let go of again, where it is not wanted. */
  function weightsGradOf(weights: F32, { weights: isWanted = true }: { weights?: boolean } = {}) {
    const tensor = memory.empty(isWanted ? weights.shape : [1]);
    const result = (): { weights?: F32 } => {
      if (isWanted) return { weights: tensor };
      tensor.dispose();
      return {};
    };
    return { tensor, wanted: Number(isWanted), result };
  }

  return {
    clippedGrid(weights, clipping, options) {
      const checked = checkClippedGrid("clippedGrid", weights, clipping, options);
      const { columns, width, perRow, levels, runs, lanes, groups } = extentsOf(checked, options);
      const scale = memory.empty([checked.rows, perRow]);
      const zero = memory.empty(scale.shape);
      const flags = [Number(options.symmetric), Number(clipping !== undefined)];
      memory.run(CLIPPED_GRID, {
        groups,
        tensors: [weights, ...logitsOf(clipping, weights), scale, zero],
        numbers: [runs, columns, width, perRow, levels, ...flags, lanes],
      });
      return { scale, zero };
    },

    clippedGridGrad(weights, clipping, scaleGrad, options, wanted) {
      const checked = checkClippedGrid("clippedGridGrad", weights, clipping, options, scaleGrad);
      const { columns, width, perRow, levels, runs, lanes, groups } = extentsOf(checked, options);
      const weightsGrad = weightsGradOf(weights, wanted);
      const [upper, lower] = [memory.empty(scaleGrad.shape), memory.empty(scaleGrad.shape)];
      const flags = [Number(options.symmetric), Number(clipping !== undefined)];
      memory.run(CLIPPED_GRID_GRAD, {
        groups,
        tensors: [weights, ...logitsOf(clipping, weights), scaleGrad, weightsGrad.tensor, upper, lower],
        numbers: [weightsGrad.wanted, runs, columns, width, perRow, levels, ...flags, lanes],
      });
      return { ...weightsGrad.result(), upper, lower };
    },

    fakeQuantize(weights, grid, options) {
      const checked = checkFakeQuantize("fakeQuantize", weights, grid, options);
      const { rows, columns, width, perRow, levels } = extentsOf(checked, options);
      const y = memory.empty(weights.shape);
      memory.run(FAKE_QUANTIZE, {
        groups: rows * Math.ceil(columns / PIECE),
        tensors: [weights, grid.scale, grid.zero, y],
        numbers: [rows, columns, width, perRow, levels],
      });
      return y;
    },

    fakeQuantizeGrad(weights, grid, grad, options, wanted) {
      const checked = checkFakeQuantize("fakeQuantizeGrad", weights, grid, options, grad);
      const { columns, width, perRow, levels, runs, lanes, groups } = extentsOf(checked, options);
      const weightsGrad = weightsGradOf(weights, wanted);
      const [scale, zero] = [memory.empty(grid.scale.shape), memory.empty(grid.zero.shape)];
      memory.run(FAKE_QUANTIZE_GRAD, {
        groups,
        tensors: [weights, grid.scale, grid.zero, grad, weightsGrad.tensor, scale, zero],
        numbers: [weightsGrad.wanted, runs, columns, width, perRow, levels, lanes],
      });
      return { ...weightsGrad.result(), scale, zero };
    },

    affineCodes(weights, grid, options) {
      const checked = checkFakeQuantize("affineCodes", weights, grid, options);
      const { columns, width, perRow, levels } = extentsOf(checked, options);
      const codes = memory.empty(weights.shape, "u8");
      memory.run(AFFINE_CODES, {
        groups: Math.ceil(codes.size / (4 * THREADS)),
        tensors: [weights, grid.scale, grid.zero, codes],
        numbers: [codes.size, columns, width, perRow, levels],
      });
      return codes;
    },
  };
}
