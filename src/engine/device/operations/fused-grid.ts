import type { F32, Tensor } from "../../../tensor/index.js";
import { checkClippedFakeQuantize, type GroupExtents } from "../../check.js";
import type { ClippingLogits, Engine, GroupGridOptions, WeightFactors } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";
import { lanesFor, RUNS, runGroups } from "./grid.js";

type Operations = Pick<Engine, "clippedFakeQuantize" | "clippedFakeQuantizeGrad">;

const CLIPPING = { ...RUNS, withRows: "u32", withColumns: "u32", withLogits: "u32", lanes: "u32" } as const;
const INPUTS = { weights: "f32", rowFactors: "f32", columnFactors: "f32", upper: "f32", lower: "f32" } as const;
const CLIPPED_FAKE_QUANTIZE = declareKernel("fusedgrid", "clippedFakeQuantize", {
  reads: INPUTS,
  writes: { y: "f32" },
  numbers: CLIPPING,
});
const CLIPPED_FAKE_QUANTIZE_GRAD = declareKernel("fusedgrid", "clippedFakeQuantizeGrad", {
  reads: { ...INPUTS, grad: "f32" },
  writes: { logits: "f32", state: "u32" },
  numbers: CLIPPING,
});
const FACTOR_GRADS = declareKernel("factorgrads", "factorGrads", {
  reads: { weights: "f32", rowFactors: "f32", columnFactors: "f32", grad: "f32", state: "u32" },
  writes: { rowParts: "f32", columnParts: "f32" },
  numbers: {
    rows: "u32",
    columns: "u32",
    width: "u32",
    perRow: "u32",
    levels: "u32",
    slab: "u32",
    withRows: "u32",
    withColumns: "u32",
  },
});
const FACTOR_SUMS = declareKernel("factorgrads", "factorSums", {
  reads: { rowParts: "f32", columnParts: "f32" },
  writes: { rowsGrad: "f32", columnsGrad: "f32" },
  numbers: { rows: "u32", columns: "u32", tiles: "u32", slabs: "u32", rowGroups: "u32" },
});

/** Columns of a group of `factorGrads`; sums of one of `factorSums`. */
const TILE = 1024;
const SUMMED = 32;

/** Tiles of columns and slabs of rows, by the shape alone: about a thousand groups, whose rows are a multiple of 8. */
function tilesOf(rows: number, columns: number): { tiles: number; slab: number; slabs: number } {
  const tiles = Math.ceil(columns / TILE);
  const slab = Math.max(32, 8 * Math.ceil((rows * tiles) / 8192));
  return { tiles, slab, slabs: Math.ceil(rows / slab) };
}

/** Grids and fake quantization of weights [O, I] with factors, in as few passes over the weights as may be. */
export function fusedGridOperations(memory: DeviceMemory): Operations {
  const callOf = (
    weights: F32,
    { rows, columns }: WeightFactors,
    clipping: ClippingLogits | undefined,
    extents: GroupExtents,
    { bits, group, symmetric }: GroupGridOptions,
  ) => {
    const width = Math.min(group, extents.columns);
    const lanes = lanesFor(width);
    const runs = extents.rows * extents.groups;
    const shape = [runs, extents.columns, width, extents.groups, 2 ** bits - 1];
    const flags = [symmetric, rows !== undefined, columns !== undefined, clipping !== undefined].map(Number);
    return {
      groups: runGroups(runs, lanes),
      // something must be bound in place of what is not given
      inputs: [weights, rows ?? weights, columns ?? weights, clipping?.upper ?? weights, clipping?.lower ?? weights],
      numbers: [...shape, ...flags, lanes],
    };
  };

  /** Gradients of factors: `state` is what `clippedFakeQuantizeGrad` noted of each run. */
  function factorGrads(
    weights: F32,
    factors: WeightFactors,
    grad: F32,
    state: Tensor<"u32">,
    extents: GroupExtents,
    { bits, group }: GroupGridOptions,
  ): WeightFactors {
    const { rows, columns, groups } = extents;
    const { tiles, slab, slabs } = tilesOf(rows, columns);
    const flags = [factors.rows, factors.columns].map((one) => Number(one !== undefined));
    const rowParts = memory.empty(factors.rows ? [tiles, rows] : [1]);
    const columnParts = memory.empty(factors.columns ? [slabs, columns] : [1]);
    memory.run(FACTOR_GRADS, {
      groups: tiles * slabs,
      tensors: [weights, factors.rows ?? weights, factors.columns ?? weights, grad, state, rowParts, columnParts],
      numbers: [rows, columns, Math.min(group, columns), groups, 2 ** bits - 1, slab, ...flags],
    });
    const ofRows = memory.empty(factors.rows ? [rows] : [1]);
    const ofColumns = memory.empty(factors.columns ? [columns] : [1]);
    const rowGroups = factors.rows ? Math.ceil(rows / SUMMED) : 0;
    memory.run(FACTOR_SUMS, {
      groups: rowGroups + (factors.columns ? Math.ceil(columns / SUMMED) : 0),
      tensors: [rowParts, columnParts, ofRows, ofColumns],
      numbers: [rows, columns, tiles, slabs, rowGroups],
    });
    const result: WeightFactors = {};
    if (factors.rows) result.rows = ofRows;
    if (factors.columns) result.columns = ofColumns;
    return result;
  }

  /** Gradients of what is given, where there are no weights. */
  const zeros = (given: WeightFactors & Partial<ClippingLogits>) =>
    Object.fromEntries(Object.entries(given).flatMap(([name, one]) => (one ? [[name, memory.create(one.shape)]] : [])));

  return {
    clippedFakeQuantize(weights, factors, clipping, options) {
      const extents = checkClippedFakeQuantize("clippedFakeQuantize", weights, factors, clipping, options);
      const { groups, inputs, numbers } = callOf(weights, factors, clipping, extents, options);
      const y = memory.empty(weights.shape);
      memory.run(CLIPPED_FAKE_QUANTIZE, { groups, tensors: [...inputs, y], numbers });
      return y;
    },

    clippedFakeQuantizeGrad(weights, factors, clipping, grad, options) {
      const extents = checkClippedFakeQuantize("clippedFakeQuantizeGrad", weights, factors, clipping, options, grad);
      const { rows, columns } = factors;
      const withFactors = rows !== undefined || columns !== undefined;
      if (!withFactors && !clipping) return {};
      return memory.scope(() => {
        const { groups, inputs, numbers } = callOf(weights, factors, clipping, extents, options);
        const runs = extents.rows * extents.groups;
        if (runs === 0) return zeros({ ...factors, ...clipping });
        const logits = memory.empty(clipping ? [2, runs] : [1]);
        const state = memory.empty(withFactors ? [6, runs] : [1], "u32");
        memory.run(CLIPPED_FAKE_QUANTIZE_GRAD, { groups, tensors: [...inputs, grad, logits, state], numbers });
        const result = withFactors ? factorGrads(weights, factors, grad, state, extents, options) : {};
        if (!clipping) return result;
        const { shape } = clipping.upper;
        return { ...result, upper: memory.view(logits, shape), lower: memory.view(logits, shape, runs) };
      });
    },
  };
}
