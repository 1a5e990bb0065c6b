import type { F32, I32 } from "../../tensor/index.js";
import { checkIndexValues, checkNearestCodeword, checkSegmentSum } from "../check.js";
import type { Engine } from "../engine.js";
import type { WasmContext } from "./context.js";

/** Vectors of a unit, as in assembly/codebook.ts. */
const VECTORS_PER_UNIT = 256;

/**
 * Does a guess pay? Its lists want a few vectors a codeword, its grouping costs as much as 150 codewords of 4, and a vector
 * meets about 2^v codewords.
 */
const guessPays = (n: number, v: number, codewords: number): boolean =>
  n >= 4 * codewords && v * codewords >= 600 && v < 16 && codewords >= 2 ** (v - 1);

/** Bytes of f64 partial sums that `segmentSum` may take. */
const PARTIAL_BYTES = 2 ** 25;

/** Bytes of scratch that the search needs a thread (`searchScratch` in assembly/lib/nearest.ts). */
export const searchScratch = (v: number): number => 32 * v + 64;

/** Blocks of four codewords, padding included (`blockCount` in assembly/lib/nearest.ts). */
const blockCount = (codewords: number): number => 2 * Math.ceil(codewords / 8);

/** Bytes of scratch of `nearestNeighbor` (assembly/neighbor.ts): a batch of 1024 vectors, the list, and what makes it. */
const neighborScratch = (v: number, codewords: number): number =>
  32 * v + 96 + 8192 + searchScratch(v) + blockCount(codewords) * (16 * v + 20) + 4 + 8 * codewords + 1024;

/** The codebook [C, v] in the blocks that the kernels search: an address that the caller releases. */
export function codebookBlocks({ runtime, address }: WasmContext, codebook: F32): number {
  const [codewords, v] = codebook.shape;
  const count = blockCount(codewords);
  const blocks = runtime.allocate(16 * count * v);
  runtime.run("codebookBlocks", count, 4096, [blocks, address(codebook), codewords, v]);
  return blocks;
}

/** Addresses and extents of a search from a guess. */
interface GuessedSearch {
  vectors: number;
  codebook: number;
  blocks: number;
  guess: number;
  n: number;
  v: number;
  codewords: number;
  indices: number;
  distances: number;
}

/** Assignment and sums of k-means (assembly/codebook.ts and neighbor.ts). */
export function codebookOperations(context: WasmContext): Pick<Engine, "nearestCodeword" | "segmentSum"> {
  const { runtime, address } = context;

  function nearestCodeword(vectors: F32, codebook: F32, previous?: I32): { indices: I32; distances: F32 } {
    const { count: n, vectorLength: v, codewords } = checkNearestCodeword(vectors, codebook, previous);
    const from = { vectors: address(vectors), codebook: address(codebook), guess: previous && address(previous) };
    const indices = context.empty([n], "i32");
    const distances = context.empty([n]);
    if (n === 0 || v === 0) {
      context.view(indices).fill(0);
      context.view(distances).fill(0);
      return { indices, distances };
    }
    const blocks = codebookBlocks(context, codebook);
    const to = { indices: address(indices), distances: address(distances) };
    try {
      if (from.guess !== undefined && guessPays(n, v, codewords))
        searchFromGuess({ ...from, guess: from.guess, blocks, n, v, codewords, ...to });
      else {
        const args = [from.vectors, from.codebook, blocks, n, v, codewords, to.indices, to.distances];
        const grain = Math.ceil(2 ** 15 / (VECTORS_PER_UNIT * codewords));
        runtime.run("nearestCodeword", Math.ceil(n / VECTORS_PER_UNIT), grain, args, searchScratch(v));
      }
    } finally {
      runtime.release(blocks);
    }
    return { indices, distances };
  }

  /** Groups the vectors by their guess and searches each group on its own: assembly/neighbor.ts. */
  function searchFromGuess(search: GuessedSearch): void {
    const { n, v, codewords } = search;
    const size = Math.max(8192, Math.ceil(n / 32));
    const chunks = Math.ceil(n / size);
    runtime.withTemporary(4 * (chunks * codewords + codewords + 1 + n), (counts) => {
      const firsts = counts + 4 * chunks * codewords;
      const order = firsts + 4 * (codewords + 1);
      const sorting = [search.guess, n, codewords, size, chunks, counts, firsts, order];
      runtime.run("guessCount", chunks, 1, sorting);
      runtime.run("guessPlace", 1, 1, sorting);
      runtime.run("guessScatter", chunks, 1, sorting);
      const inputs = [search.vectors, search.codebook, search.blocks, v, codewords, firsts, order];
      const args = [...inputs, search.indices, search.distances];
      const grain = Math.ceil((256 * codewords) / n);
      runtime.run("nearestNeighbor", codewords, grain, args, neighborScratch(v, codewords));
    });
  }

  function segmentSum(vectors: F32, weights: F32, indices: I32, segments: number): { sums: F32; totals: F32 } {
    const { count: n, vectorLength: v } = checkSegmentSum(vectors, weights, indices, segments);
    const inputs = [vectors, weights, indices].map(address);
    checkIndexValues("segmentSum", context.view(indices), segments);
    const sums = context.empty([segments, v]);
    const totals = context.empty([segments]);
    if (segments === 0) return { sums, totals };
    // the number of chunks follows from the shapes alone, so that the order of the sums does too
    const bytes = 8 * segments * (v + 1);
    const chunks = Math.max(1, Math.min(32, Math.floor(n / (4 * segments)), Math.floor(PARTIAL_BYTES / bytes)));
    const size = Math.ceil(n / chunks);
    runtime.withTemporary(bytes * chunks, (partial) => {
      runtime.run("segmentPartial", chunks, 1, [...inputs, n, v, segments, size, partial]);
      runtime.run("segmentReduce", segments, 4096, [partial, chunks, segments, v, address(sums), address(totals)]);
    });
    return { sums, totals };
  }

  return { nearestCodeword, segmentSum };
}
