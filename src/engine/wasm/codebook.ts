import { usageError } from "../../errors.js";
import type { F32, I32 } from "../../tensor/index.js";
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

export function codebookOperations(context: WasmContext): Pick<Engine, "nearestCodeword" | "segmentSum"> {
  const { runtime, address } = context;

  function nearestCodeword(vectors: F32, codebook: F32, previous?: I32): { indices: I32; distances: F32 } {
    const [n, v] = vectors.shape;
    const [codewords] = codebook.shape;
    if (
      vectors.shape.length !== 2 ||
      codebook.shape.length !== 2 ||
      codebook.shape[1] !== v ||
      (previous && previous.size !== n)
    )
      throw usageError(
        `nearestCodeword: expected vectors [n, v], a codebook [C, v]${previous ? " and previous [n]" : ""}, got ` +
          [vectors, codebook, ...(previous ? [previous] : [])].map(({ shape }) => `[${shape}]`).join(", "),
      );
    if (n > 0 && codewords === 0) throw usageError(`nearestCodeword: ${n} vectors and no codeword`);
    const indices = context.empty([n], "i32");
    const distances = context.empty([n]);
    if (n === 0) return { indices, distances };
    const blocks = codebookBlocks(context, codebook);
    try {
      if (previous && guessPays(n, v, codewords))
        searchFromGuess(vectors, codebook, blocks, previous, indices, distances);
      else search(vectors, codebook, blocks, indices, distances);
    } finally {
      runtime.release(blocks);
    }
    return { indices, distances };
  }

  function search(vectors: F32, codebook: F32, blocks: number, indices: I32, distances: F32): void {
    const [n, v] = vectors.shape;
    const [codewords] = codebook.shape;
    const args = [address(vectors), address(codebook), blocks, n, v, codewords, address(indices), address(distances)];
    const grain = Math.ceil(2 ** 15 / (VECTORS_PER_UNIT * codewords));
    runtime.run("nearestCodeword", Math.ceil(n / VECTORS_PER_UNIT), grain, args, searchScratch(v));
  }

  function searchFromGuess(
    vectors: F32,
    codebook: F32,
    blocks: number,
    guess: I32,
    indices: I32,
    distances: F32,
  ): void {
    const [n, v] = vectors.shape;
    const [codewords] = codebook.shape;
    const size = Math.max(8192, Math.ceil(n / 32));
    const chunks = Math.ceil(n / size);
    runtime.withTemporary(4 * (chunks * codewords + codewords + 1 + n), (counts) => {
      const firsts = counts + 4 * chunks * codewords;
      const order = firsts + 4 * (codewords + 1);
      const sorting = [address(guess), n, codewords, size, chunks, counts, firsts, order];
      runtime.run("guessCount", chunks, 1, sorting);
      runtime.run("guessPlace", 1, 1, sorting);
      runtime.run("guessScatter", chunks, 1, sorting);
      const inputs = [address(vectors), address(codebook), blocks, v, codewords, firsts, order];
      const grain = Math.ceil((codewords * 256) / n);
      runtime.run(
        "nearestNeighbor",
        codewords,
        grain,
        [...inputs, address(indices), address(distances)],
        neighborScratch(v, codewords),
      );
    });
  }

  function segmentSum(vectors: F32, weights: F32, indices: I32, segments: number): { sums: F32; totals: F32 } {
    const [n, v] = vectors.shape;
    if (vectors.shape.length !== 2 || weights.size !== n || indices.size !== n)
      throw usageError(
        `segmentSum: expected vectors [n, v], weights [n] and indices [n], got ` +
          [vectors, weights, indices].map(({ shape }) => `[${shape}]`).join(", "),
      );
    const sums = context.empty([segments, v]);
    const totals = context.empty([segments]);
    if (segments === 0) return { sums, totals };
    // the number of chunks follows from the shapes alone, so that the order of the sums does too
    const bytes = 8 * segments * (v + 1);
    const chunks = Math.max(1, Math.min(32, Math.floor(n / (4 * segments)), Math.floor(PARTIAL_BYTES / bytes)));
    const size = Math.ceil(n / chunks);
    runtime.withTemporary(bytes * chunks, (partial) => {
      const inputs = [vectors, weights, indices].map(address);
      runtime.run("segmentPartial", chunks, 1, [...inputs, n, v, segments, size, partial]);
      runtime.run("segmentReduce", segments, 4096, [partial, chunks, segments, v, address(sums), address(totals)]);
    });
    return { sums, totals };
  }

  return { nearestCodeword, segmentSum };
}
