import { unsupportedError } from "../../../errors.js";
import type { F32, I32 } from "../../../tensor/index.js";
import { checkVectorSweep } from "../../check.js";
import type { CodebookSegment, Engine } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";
import { putLast, takeLast, type Window, windowsOf } from "../windows.js";
import { codebookColumns, SEARCH_CONSTANTS, vectorsOfGroup } from "./codebook.js";

/** Constants of the kernels that sweep a block: those of the search, the columns of a block at most, threads of a group. */
export const BLOCK_CONSTANTS = [...SEARCH_CONSTANTS, "COLUMNS", "THREADS"];
export const BLOCK_SAMPLES = [
  [8, 8, 1, 0, 32, 256],
  [4, 8, 1, 0, 64, 256],
  [2, 6, 2, 1, 64, 256],
  [1, 4, 3, 0, 64, 256],
  [1, 256, 2, 0, 8, 256],
  [4, 8, 2, 1, 64, 512],
];
export const BLOCK_NUMBERS = {
  columns: "u32",
  rows: "u32",
  begin: "u32",
  end: "u32",
  start: "u32",
  stop: "u32",
  width: "u32",
} as const;

const BLOCK = declareKernel("search", "sweepBlock", {
  reads: { books: "f32", feedback: "f32" },
  writes: { running: "f32", quantized: "f32", errors: "f32", indices: "i32" },
  numbers: BLOCK_NUMBERS,
  constants: BLOCK_CONSTANTS,
  samples: BLOCK_SAMPLES,
});
/** y [m, n] = keep * y + factor a^T b, a [k, m] with rows `stride` apart, b [k, n]. */
export const PRODUCT = declareKernel("sweep", "slabProduct", {
  reads: { a: "f32", b: "f32" },
  writes: { y: "f32" },
  numbers: { m: "u32", n: "u32", k: "u32", stride: "u32", keep: "u32", factor: "f32" },
});

/** Columns of a block at most, and elements of a block that a group keeps in shared memory at most. */
const MOST_COLUMNS = 64;
const TILE = 2048;
/** Longest vectors of which a group holds one. */
const LONGEST = 256;
/**
 * A large codebook is read by every group for each column, and a processor waits for it the less the more threads ask. More groups
 * than a large card has processors share these instead.
 */
const [LARGE, FEW_GROUPS] = [4096, 132];
const [THREADS, MANY_THREADS] = [256, 512];

export const productGroups = (m: number, n: number): number => Math.ceil(m / 64) * Math.ceil(n / 64);

/** A segment as the kernels take it. */
export interface SweptSegment {
  begin: number;
  end: number;
  books: F32;
  /** Columns of a block. */
  columns: number;
  /** Groups that share the rows. */
  groups: number;
  /** Candidates of the first stage. */
  width: number;
  constants: number[];
}

/** `rows` are those of a column as it is swept, of `allRows`: these decide the blocks, whose columns decide the last bits. */
export function sweptSegment(
  memory: DeviceMemory,
  operation: string,
  { begin, end, stages }: CodebookSegment,
  { rows, allRows }: { rows: number; allRows: number },
  beam: number,
): SweptSegment {
  const length = stages[0].shape[1];
  if (length > LONGEST)
    throw unsupportedError(
      `${operation}: this engine sweeps vectors of up to ${LONGEST} elements, got ${length}`,
      "use shorter vectors or --engine wasm",
    );
  const width = stages.length > 1 ? Math.min(beam, stages[0].shape[0]) : 1;
  const vectors = vectorsOfGroup(allRows / length, length);
  const columns = Math.min(MOST_COLUMNS, Math.floor(TILE / (vectors * length)));
  const groups = Math.ceil(rows / (vectors * length));
  const wide = stages[0].shape[0] > LARGE && groups <= FEW_GROUPS && (memory.device.mostThreads ?? 0) >= MANY_THREADS;
  return {
    begin,
    end,
    books: codebookColumns(memory, stages),
    columns,
    groups,
    width,
    constants: [vectors, length, stages.length, width > 1 ? 1 : 0, columns, wide ? MANY_THREADS : THREADS],
  };
}

/** Weights [I, P] as they are swept, or a window of their P of `allRows`. */
interface Swept {
  running: F32;
  quantized: F32;
  allRows: number;
}

/** Tensors [end - begin, P / v] over the stages' parts of one buffer. */
export function stageViews(memory: DeviceMemory, all: I32, shape: number[], stages: number): I32[] {
  const views = Array.from({ length: stages }, (_, stage) => memory.view(all, shape, (stage * all.size) / stages));
  all.dispose();
  return views;
}

/**
 * Windows of P for weights [I, P], of whole vectors of every segment: rows of W do not see each other, so weights that are too
 * large, or whose indices are, are swept in copies of their windows.
 */
export function sweepWindows(memory: DeviceMemory, weights: F32, segments: readonly CodebookSegment[]): Window[] {
  const [columns, rows] = weights.shape;
  const step = segments.reduce((least, { stages }) => leastMultiple(least, stages[0].shape[1]), 1);
  // indices of many stages may take more than the weights
  const most = segments.reduce((share, { stages }) => Math.max(share, stages.length / stages[0].shape[1]), 1);
  return windowsOf(memory, rows, 4 * columns * step * most, step);
}

function leastMultiple(a: number, b: number): number {
  let multiple = a;
  while (multiple % b !== 0) multiple += a;
  return multiple;
}

export const sweepOperations = (memory: DeviceMemory): Pick<Engine, "vectorSweep"> => {
  /** Segments without feedback: all their columns are one. */
  function sweepFree(segment: CodebookSegment, { running, quantized, allRows }: Swept, indices: I32, beam: number) {
    const { begin, end } = segment;
    const rows = running.shape[1];
    const size = (end - begin) * rows;
    const column = [running, quantized].map((whole) => memory.view(whole, [size], begin * rows));
    const extents = { rows: size, allRows: (end - begin) * allRows };
    const swept = sweptSegment(memory, "vectorSweep", { ...segment, begin: 0, end: 1 }, extents, beam);
    const { groups, books, width, constants } = swept;
    const tensors = [books, books, ...column, memory.empty([size]), indices];
    memory.run(BLOCK, { groups, tensors, numbers: [1, size, 0, 1, 0, 1, width], constants });
  }

  /** A block of columns at a time; what its columns left goes to all columns behind it by a product. */
  function sweepBlocks(
    segment: CodebookSegment,
    feedback: F32,
    { running, quantized, allRows }: Swept,
    indices: I32,
    beam: number,
  ) {
    const [columns, rows] = running.shape;
    const swept = sweptSegment(memory, "vectorSweep", segment, { rows, allRows }, beam);
    const { begin, end, books, groups, width, constants } = swept;
    const errors = memory.empty([swept.columns, rows]);
    for (let from = begin; from < end; from += swept.columns) {
      const to = Math.min(end, from + swept.columns);
      const later = columns - to;
      memory.scope(() => {
        const ofBlock = memory.view(feedback, [to - from, columns], from * columns);
        const tensors = [books, ofBlock, running, quantized, errors, indices];
        memory.run(BLOCK, { groups, tensors, numbers: [columns, rows, begin, end, from, to, width], constants });
        const factors = memory.view(feedback, [(to - from) * columns - to], from * columns + to);
        const rest = memory.view(running, [later, rows], to * rows);
        memory.run(PRODUCT, {
          groups: productGroups(later, rows),
          tensors: [factors, errors, rest],
          numbers: [later, rows, to - from, columns, 1, -1],
        });
      });
    }
  }

  /** Indices of a segment, [stages, columns, P / v] for P rows. */
  const emptyIndices = ({ begin, end, stages }: CodebookSegment, rows: number): I32 =>
    memory.empty([stages.length, end - begin, rows / stages[0].shape[1]], "i32");

  return {
    vectorSweep(weights, feedback, segments, options) {
      const { columns, rows, beam } = checkVectorSweep(weights, feedback, segments, options);
      if (feedback) memory.check(feedback);
      const compensated = memory.copy(weights);
      const quantized = memory.empty([columns, rows]);
      const chosen = segments.map((segment) => emptyIndices(segment, rows));
      for (const window of sweepWindows(memory, weights, segments))
        memory.scope(() => {
          const whole = window.count === rows;
          const running = whole ? compensated : takeLast(memory, compensated, rows, window);
          const swept = whole ? quantized : memory.empty(running.shape);
          for (const [number, segment] of segments.entries()) {
            const all = whole ? chosen[number] : emptyIndices(segment, window.count);
            if (all.size === 0) continue;
            memory.scope(() => {
              const part = { running, quantized: swept, allRows: rows };
              if (feedback) sweepBlocks(segment, feedback, part, all, beam);
              else sweepFree(segment, part, all, beam);
            });
            if (!whole) putLast(memory, chosen[number], all, rows, window);
          }
          if (whole) return;
          putLast(memory, compensated, running, rows, window);
          putLast(memory, quantized, swept, rows, window);
        });
      const indices = chosen.map((all, number) =>
        stageViews(memory, all, [...all.shape.slice(1)], segments[number].stages.length),
      );
      return { indices, quantized, compensated };
    },
  };
};
