import type { F32 } from "../../../tensor/index.js";
import { checkClippedFakeQuantize, type GroupExtents } from "../../check.js";
import type { ClippingLogits, Engine, GroupGridOptions, WeightFactors } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";
import { inWindows, putLast, runWindows } from "../windows.js";
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
    const shape = [extents.columns, width, extents.groups, 2 ** bits - 1];
    const flags = [symmetric, rows !== undefined, columns !== undefined, clipping !== undefined].map(Number);
    const ofLogits = clipping ? extents.groups : extents.columns;
    return {
      // something must be bound in place of what is not given
      inputs: [weights, rows ?? weights, columns ?? weights, clipping?.upper ?? weights, clipping?.lower ?? weights],
      /** Elements of the inputs that belong to a row. */
      each: [extents.columns, rows ? 1 : extents.columns, columns ? 0 : extents.columns, ofLogits, ofLogits],
      shape,
      /** For so many rows. */
      call: (count: number) => {
        const runs = count * extents.groups;
        return { groups: runGroups(runs, lanes), numbers: [runs, ...shape, ...flags, lanes] };
      },
    };
  };

  /** The gradients of factors from parts of their sums, [tiles, O] and [slabs, I]. */
  function sumParts(rowParts: F32, columnParts: F32, { rows, columns }: WeightFactors, extents: GroupExtents) {
    const { tiles, slabs } = tilesOf(extents.rows, extents.columns);
    const ofRows = memory.empty(rows ? [extents.rows] : [1]);
    const ofColumns = memory.empty(columns ? [extents.columns] : [1]);
    const rowGroups = rows ? Math.ceil(extents.rows / SUMMED) : 0;
    memory.run(FACTOR_SUMS, {
      groups: rowGroups + (columns ? Math.ceil(extents.columns / SUMMED) : 0),
      tensors: [rowParts, columnParts, ofRows, ofColumns],
      numbers: [extents.rows, extents.columns, tiles, slabs, rowGroups],
    });
    const result: WeightFactors = {};
    if (rows) result.rows = ofRows;
    if (columns) result.columns = ofColumns;
    return result;
  }

  /** Gradients of what is given, where there are no weights. */
  const zeros = (given: WeightFactors & Partial<ClippingLogits>) =>
    Object.fromEntries(Object.entries(given).flatMap(([name, one]) => (one ? [[name, memory.create(one.shape)]] : [])));

  return {
    clippedFakeQuantize(weights, factors, clipping, options) {
      const extents = checkClippedFakeQuantize("clippedFakeQuantize", weights, factors, clipping, options);
      const { inputs, each, call } = callOf(weights, factors, clipping, extents, options);
      const y = memory.empty(weights.shape);
      const division = { extent: extents.rows, each: [...each, extents.columns] };
      runWindows(memory, CLIPPED_FAKE_QUANTIZE, [...inputs, y], division, call);
      return y;
    },

    clippedFakeQuantizeGrad(weights, factors, clipping, grad, options) {
      const extents = checkClippedFakeQuantize("clippedFakeQuantizeGrad", weights, factors, clipping, options, grad);
      const { rows, columns } = factors;
      const withFactors = rows !== undefined || columns !== undefined;
      if (!withFactors && !clipping) return {};
      return memory.scope(() => {
        const { inputs, each, shape, call } = callOf(weights, factors, clipping, extents, options);
        const runs = extents.rows * extents.groups;
        if (runs === 0) return zeros({ ...factors, ...clipping });
        const { tiles, slab, slabs } = tilesOf(extents.rows, extents.columns);
        const logits = memory.empty(clipping ? [2, runs] : [1]);
        const rowParts = memory.empty(rows ? [tiles, extents.rows] : [1]);
        const columnParts = memory.empty(columns ? [slabs, extents.columns] : [1]);
        // windows of whole slabs, so that the parts are those of one call; what is noted of the runs stays within a window
        const ofSlab = [...each, extents.columns].map((ofRow) => slab * ofRow);
        const eachSlab = [...ofSlab, columns ? extents.columns : 0];
        const division = { extent: extents.rows, step: slab, each: eachSlab };
        inWindows(memory, [...inputs, grad, columnParts], division, (tensors, count, first) => {
          const [ofWeights, ofRows, ofColumns, upper, lower, given, ownColumns] = tensors;
          const inputsOfWindow = [ofWeights, ofRows, ofColumns, upper, lower, given];
          const ofRuns = { first: first * extents.groups, count: count * extents.groups };
          const isWhole = count === extents.rows;
          const ownLogits = isWhole || !clipping ? logits : memory.empty([2, ofRuns.count]);
          const state = memory.empty(withFactors ? [6, ofRuns.count] : [1], "u32");
          const noted = [...inputsOfWindow, ownLogits, state];
          memory.run(CLIPPED_FAKE_QUANTIZE_GRAD, { ...call(count), tensors: noted });
          if (ownLogits !== logits) putLast(memory, logits, ownLogits, runs, ofRuns);
          if (!withFactors) return;
          const ownRows = isWhole || !rows ? rowParts : memory.empty([tiles, count]);
          memory.run(FACTOR_GRADS, {
            groups: tiles * Math.ceil(count / slab),
            tensors: [ofWeights, ofRows, ofColumns, given, state, ownRows, ownColumns],
            numbers: [count, ...shape, slab, Number(rows !== undefined), Number(columns !== undefined)],
          });
          if (ownRows !== rowParts) putLast(memory, rowParts, ownRows, extents.rows, { first, count });
        });
        const result = withFactors ? sumParts(rowParts, columnParts, factors, extents) : {};
        if (!clipping) return result;
        const ofLogits = clipping.upper.shape;
        return { ...result, upper: memory.view(logits, ofLogits), lower: memory.view(logits, ofLogits, runs) };
      });
    },
  };
}
