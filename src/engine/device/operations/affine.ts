import type { F32, I32 } from "../../../tensor/index.js";
import { checkAffineGrid, checkAffineSweep } from "../../check.js";
import type { AffineGrid, AffineGridOptions, AffineSweepOptions, AffineSweepResult, Engine } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";
import { exceeds, putLast, takeLast, type Window, windowsOf } from "../windows.js";
import { type SweepBlock, sweepBlocks } from "./sweepblocks.js";

const AFFINE_FIT = declareKernel("affine", "affineFit", {
  reads: { weights: "f32", members: "i32" },
  writes: { scale: "f32", zero: "f32" },
  // count: groups of columns; first: of those that are fitted
  numbers: { rows: "u32", count: "u32", first: "u32", levels: "u32", symmetric: "u32" },
});
const AFFINE_ROUND = declareKernel("affine", "affineRound", {
  reads: { marks: "i32", scale: "f32", zero: "f32" },
  writes: { codes: "u8", y: "f32" },
  numbers: { size: "u32", rows: "u32", levels: "u32" },
});
const AFFINE_SWEEP_BLOCK = declareKernel("affine", "affineSweepBlock", {
  reads: { feedback: "f32", marks: "i32" },
  writes: { y: "f32", errors: "f32", scale: "f32", zero: "f32" },
  numbers: { columns: "u32", rows: "u32", begin: "u32", count: "u32", levels: "u32", symmetric: "u32" },
});
const AFFINE_FEEDBACK = declareKernel("affine", "affineFeedback", {
  reads: { feedback: "f32", errors: "f32" },
  writes: { y: "f32" },
  numbers: { columns: "u32", rows: "u32", count: "u32", end: "u32" },
});

/** As in the kernels: columns of a block, rows of a slab, threads, side of the tiles of the product. */
const BLOCK = 64;
const SLAB = 32;
const THREADS = 256;
const TILE = 128;

/** The affine grid and the column sweep of GPTQ on it. */
export function affineOperations(memory: DeviceMemory): Pick<Engine, "affineGrid" | "affineSweep"> {
  /** Where the columns of each group begin, [groups + 1], and the columns. */
  function membersOf({ groups, groupOfColumn }: AffineGridOptions): I32 {
    const members = new Int32Array(groups + 1 + groupOfColumn.length);
    for (const group of groupOfColumn) members[group + 1]++;
    for (let group = 0; group < groups; group++) members[group + 1] += members[group];
    const next = members.slice(0, groups);
    for (const [column, group] of groupOfColumn.entries()) members[groups + 1 + next[group]++] = column;
    return memory.upload(members, [members.length], "i32");
  }

  /** Grids of groups [first, first + count) from weights [I, O]. */
  function takeGrids(
    weights: F32,
    members: I32,
    { scale, zero }: AffineGrid,
    { bits, symmetric, groups }: AffineGridOptions,
    first = 0,
    count = groups,
  ): void {
    const rows = weights.shape[1];
    memory.run(AFFINE_FIT, {
      groups: Math.ceil(rows / SLAB) * count,
      tensors: [weights, members, scale, zero],
      numbers: [rows, groups, first, 2 ** bits - 1, Number(symmetric)],
    });
  }

  /** Sweeps y [I, O] in place, block by block, and takes grids of groups before and within the blocks. */
  function sweep(
    y: F32,
    feedback: F32,
    grid: AffineGrid,
    options: AffineGridOptions,
    plan: { blocks: readonly SweepBlock[]; marks: I32; members: I32 | undefined },
  ): void {
    const [columns, rows] = y.shape;
    const slabs = Math.ceil(rows / SLAB);
    const errors = memory.empty([Math.min(columns, BLOCK), rows]);
    for (const { begin, end, fits } of plan.blocks) {
      const count = end - begin;
      if (plan.members) for (const group of fits) takeGrids(y, plan.members, grid, options, group, 1);
      memory.scope(() => {
        const factors = memory.view(feedback, [count, columns], begin * columns);
        memory.run(AFFINE_SWEEP_BLOCK, {
          groups: slabs,
          tensors: [factors, plan.marks, y, errors, grid.scale, grid.zero],
          numbers: [columns, rows, begin, count, 2 ** options.bits - 1, Number(options.symmetric)],
        });
        memory.run(AFFINE_FEEDBACK, {
          groups: Math.ceil((columns - end) / TILE) * Math.ceil(rows / TILE),
          tensors: [factors, errors, y],
          numbers: [columns, rows, count, end],
        });
      });
    }
    errors.dispose();
  }

  function affineGrid(weights: F32, options: AffineGridOptions): AffineGrid {
    const grid = emptyGrid(options.groups, weights.shape[1]);
    const members = membersOf(options);
    takeGrids(weights, members, grid, options);
    members.dispose();
    return grid;
  }

  function affineSweep(weights: F32, feedback: F32 | undefined, options: AffineSweepOptions): AffineSweepResult {
    const [columns, rows] = weights.shape;
    const { bits, groups, groupOfColumn, grid: given } = options;
    const quantized = memory.copy(weights);
    const grid = given ? { scale: memory.copy(given.scale), zero: memory.copy(given.zero) } : emptyGrid(groups, rows);
    const members = given ? undefined : membersOf(options);
    // all that never change: without feedback, of the first column, and groups without columns
    if (members) takeGrids(quantized, members, grid, options);

    const { blocks, marks: marked } = sweepBlocks(groupOfColumn, groups, BLOCK, given === undefined);
    const marks = memory.upload(marked, [columns], "i32");
    if (feedback) sweep(quantized, feedback, grid, options, { blocks, marks, members });
    const codes = memory.empty([columns, rows], "u8");
    memory.run(AFFINE_ROUND, {
      groups: Math.ceil(codes.size / (4 * THREADS)),
      tensors: [marks, grid.scale, grid.zero, codes, quantized],
      numbers: [codes.size, rows, 2 ** bits - 1],
    });
    marks.dispose();
    members?.dispose();
    return { codes, quantized, ...grid };
  }

  const emptyGrid = (groups: number, rows: number): AffineGrid => {
    return { scale: memory.empty([groups, rows]), zero: memory.empty([groups, rows]) };
  };

  /** Weights [I, O] that are too large are taken in copies of windows of O: rows of W do not see each other. */
  function inRowWindows(weights: F32, body: (weights: F32, window: Window) => void): void {
    const [columns, rows] = weights.shape;
    for (const window of windowsOf(memory, rows, 16 * columns, 4)) // codes are copied as words
      memory.scope(() => body(takeLast(memory, weights, rows, window), window));
  }

  return {
    affineGrid(weights, options) {
      const { rows } = checkAffineGrid(weights, options);
      memory.check(weights);
      if (!exceeds(memory, [weights])) return affineGrid(weights, options);
      const grid = emptyGrid(options.groups, rows);
      inRowWindows(weights, (part, window) => {
        const { scale, zero } = affineGrid(part, options);
        putLast(memory, grid.scale, scale, rows, window);
        putLast(memory, grid.zero, zero, rows, window);
      });
      return grid;
    },

    affineSweep(weights, feedback, options) {
      const { columns, rows } = checkAffineSweep(weights, feedback, options);
      if (feedback) memory.check(feedback);
      if (!exceeds(memory, [weights])) return affineSweep(weights, feedback, options);
      const result = {
        codes: memory.empty([columns, rows], "u8"),
        quantized: memory.empty([columns, rows]),
        ...emptyGrid(options.groups, rows),
      };
      inRowWindows(weights, (part, window) => {
        const take = (tensor: F32) => takeLast(memory, tensor, rows, window);
        const { grid } = options;
        const given = grid && { scale: take(grid.scale), zero: take(grid.zero) };
        const swept = affineSweep(part, feedback, { ...options, grid: given });
        for (const name of ["codes", "quantized", "scale", "zero"] as const)
          putLast(memory, result[name], swept[name], rows, window);
      });
      return result;
    },
  };
}
