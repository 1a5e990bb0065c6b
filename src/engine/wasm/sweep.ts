import type { F32, I32 } from "../../tensor/index.js";
import { checkCoordinateSweep, checkVectorSweep } from "../check.js";
import type { CodebookSegment, Engine, VectorSweepOptions, VectorSweepResult } from "../engine.js";
import { codebookBlocks, searchScratch } from "./codebook.js";
import type { WasmContext } from "./context.js";

// As in assembly/lib/feedback.ts and assembly/sweep.ts.
const BLOCK = 64;
const TILE = 16;
const TERMS = 128;

/** Rows of a slab: enough for SIMD and small enough that a slab of a few thousand columns stays in L2. */
const SLAB_ROWS = 64;
const SLAB_ROWS_F64 = 32;

const padTo8 = (rows: number): number => 8 * Math.ceil(rows / 8);

/** The sweeps over codebooks (assembly/sweep.ts). */
export function sweepOperations(context: WasmContext): Pick<Engine, "vectorSweep" | "coordinateSweep"> {
  const { runtime, empty, address, view } = context;

  function vectorSweep(
    weights: F32,
    feedback: F32 | undefined,
    segments: CodebookSegment[],
    options?: VectorSweepOptions,
  ): VectorSweepResult {
    const { columns, rows, beam } = checkVectorSweep(weights, feedback, segments, options);
    const [from, factors] = [address(weights), feedback ? address(feedback) : 0];
    const indices = segments.map(({ begin, end, stages }) =>
      stages.map(({ shape }) => empty([end - begin, rows / shape[1]], "i32")),
    );
    const quantized = empty(weights.shape);
    const compensated = empty(weights.shape);
    const slab = slabRows(segments, rows, runtime.threads, SLAB_ROWS);
    withSegments(context, segments, indices, (table, stages) => {
      const row = 4 * padTo8(slab);
      const bytes = (columns + TILE + BLOCK + 1 + stages) * row + 4 * BLOCK * TILE + stageScratch(segments, slab, beam);
      const results = [address(quantized), address(compensated)];
      const args = [from, factors, columns, rows, slab, table, stages, beam, ...results];
      runtime.run("vectorSweep", Math.ceil(rows / slab), 1, args, bytes);
    });
    return { indices, quantized, compensated };
  }

  function coordinateSweep(
    weights: F32,
    hessian: F32,
    quantized: F32,
    segments: CodebookSegment[],
    indices: I32[][],
    options?: VectorSweepOptions,
  ): { indices: I32[][]; quantized: F32 } {
    const { columns, rows, beam } = checkCoordinateSweep(weights, hessian, quantized, segments, indices, options);
    const copyOf = <D extends "f32" | "i32">(tensor: F32 | I32, dtype: D) => {
      const copy = empty(tensor.shape, dtype);
      view(copy).set(view(tensor));
      return copy;
    };
    const inputs = [address(weights), address(hessian)];
    const chosen = indices.map((stages) => stages.map((stage) => copyOf(stage, "i32")));
    const result = copyOf(quantized, "f32");
    const slab = slabRows(segments, rows, runtime.threads, SLAB_ROWS_F64);
    withSegments(context, segments, chosen, (table, stages) => {
      const row = 8 * padTo8(slab);
      const bytes = (columns + BLOCK + 2) * row + 32 * TERMS + (stages * row) / 2 + stageScratch(segments, slab, beam);
      const args = [...inputs, columns, rows, slab, table, stages, beam, address(result)];
      runtime.run("coordinateSweep", Math.ceil(rows / slab), 1, args, bytes);
    });
    return { indices: chosen, quantized: result };
  }

  return { vectorSweep, coordinateSweep };
}

/** Bytes of scratch of `chooseStages` (assembly/lib/stages.ts) for a slab. */
function stageScratch(segments: readonly CodebookSegment[], slab: number, beam: number): number {
  let most = 0;
  for (const { stages } of segments) {
    const [codewords, v] = stages[0].shape;
    const tried = (slab / v) * (stages.length > 1 ? Math.min(beam, codewords) : 1);
    most = Math.max(most, searchScratch(v) + 4 * tried * (1 + v + stages.length));
  }
  return most;
}

/**
 * Rows of a slab: a multiple of every vector length, best of eight vectors (a search serves eight); fewer than `wanted` when the
 * threads would not all have some. It has no influence on results.
 */
function slabRows(segments: readonly CodebookSegment[], rows: number, threads: number, wanted: number): number {
  let common = 1;
  for (const { stages } of segments) common = leastCommonMultiple(common, stages[0].shape[1]);
  const step = [8, 4, 2, 1].map((vectors) => vectors * common).find((size) => size <= 1.5 * wanted) ?? common;
  const fair = Math.min(wanted, Math.ceil(rows / (2 * threads)));
  const slab = step * Math.max(1, Math.round(fair / step));
  return Math.max(common, Math.min(slab, rows));
}

function leastCommonMultiple(a: number, b: number): number {
  let [x, y] = [a, b];
  while (y > 0) [x, y] = [y, x % y];
  return (a / x) * b;
}

/**
 * Writes the segments down as assembly/lib/stages.ts reads them: begin, end, v, stages, and for each stage the addresses of
 * codebook and blocks, C, and the address of the indices. Passes the table's address and the largest number of stages.
 */
function withSegments(
  context: WasmContext,
  segments: readonly CodebookSegment[],
  indices: readonly (readonly I32[])[],
  body: (table: number, stages: number) => void,
): void {
  const { runtime, address } = context;
  const blocksOf = new Map<F32, number>(); // segments may share a codebook
  const words: number[] = [];
  try {
    for (const [number, { begin, end, stages }] of segments.entries()) {
      words.push(begin, end, stages[0].shape[1], stages.length);
      for (const [stage, codebook] of stages.entries()) {
        const blocks = blocksOf.get(codebook) ?? codebookBlocks(context, codebook);
        blocksOf.set(codebook, blocks);
        words.push(address(codebook), blocks, codebook.shape[0], address(indices[number][stage]));
      }
    }
    runtime.withTemporary(4 * words.length, (table) => {
      runtime.view("i32", table, words.length).set(words);
      body(table, Math.max(0, ...segments.map(({ stages }) => stages.length)));
    });
  } finally {
    for (const blocks of blocksOf.values()) runtime.release(blocks);
  }
}
