import { int, pointer } from "./lib/job";
import { BLOCK, blockCount, blockDistances, nearestRun } from "./lib/nearest";

/** Vectors of a unit of the searches. */
const VECTORS: i32 = 256;

/**
 * Lays a codebook out in blocks of four codewords, see lib/nearest. Slots: target, codebook [C, v], C, v. Units: blocks.
 */
export function codebookBlocks(begin: i32, end: i32, args: usize, scratch: usize): void {
  const target = pointer(args, 0);
  const codebook = pointer(args, 1);
  const codewords = int(args, 2);
  const v = int(args, 3);
  for (let block = begin; block < end; block++) {
    for (let lane = 0; lane < BLOCK; lane++) {
      const codeword = block * BLOCK + lane;
      const to = target + ((<usize>block * <usize>v) << 4) + (<usize>lane << 2);
      const from = codebook + ((<usize>codeword * <usize>v) << 2);
      for (let t: usize = 0; t < <usize>v; t++)
        store<f32>(to + (t << 4), codeword < codewords ? load<f32>(from + (t << 2)) : NaN);
    }
  }
}

/** Slots: vectors [n, v], codebook [C, v], blocks, n, v, C, indices, distances. Units: 256 vectors. Scratch: `searchScratch`. */
export function nearestCodeword(begin: i32, end: i32, args: usize, scratch: usize): void {
  const v = int(args, 4);
  const first = begin * VECTORS;
  const last = min(int(args, 3), end * VECTORS);
  nearestRun(
    v, pointer(args, 0) + ((<usize>first * <usize>v) << 2), last - first, pointer(args, 1), pointer(args, 2), int(args, 5),
    pointer(args, 6) + (<usize>first << 2), pointer(args, 7) + (<usize>first << 2), scratch,
  );
}

/**
 * Sums of a chunk of vectors per segment, in order, f64. Slots: vectors [n, v], weights [n], indices [n], n, v, C, vectors in a
 * chunk, partial f64 [chunks][C][v + 1] (the last is the sum of weights). Units: chunks.
 */
export function segmentPartial(begin: i32, end: i32, args: usize, scratch: usize): void {
  const v = int(args, 4);
  if (v == 4) segmentChunks(4, begin, end, args);
  else segmentChunks(v, begin, end, args);
}

// @ts-ignore: decorator
@inline
function segmentChunks(v: i32, begin: i32, end: i32, args: usize): void {
  const vectors = pointer(args, 0);
  const weights = pointer(args, 1);
  const indices = pointer(args, 2);
  const n = int(args, 3);
  const segments = int(args, 5);
  const size = int(args, 6);
  const row = <usize>(v + 1) << 3;
  for (let chunk = begin; chunk < end; chunk++) {
    const partial = pointer(args, 7) + <usize>chunk * <usize>segments * row;
    memory.fill(partial, 0, <usize>segments * row);
    const last = min(n, (chunk + 1) * size);
    for (let i = <usize>(chunk * size); i < <usize>last; i++) {
      const segment = load<i32>(indices + (i << 2));
      if (<u32>segment >= <u32>segments) continue;
      const weight = <f64>load<f32>(weights + (i << 2));
      let x = vectors + ((i * <usize>v) << 2);
      let sum = partial + <usize>segment * row;
      const w = f64x2.splat(weight);
      const stop = sum + ((<usize>v >> 1) << 4);
      for (; sum < stop; sum += 16) {
        v128.store(sum, f64x2.add(v128.load(sum), f64x2.mul(w, f64x2.promote_low_f32x4(v128.load64_zero(x)))));
        x += 8;
      }
      if (v & 1) {
        store<f64>(sum, load<f64>(sum) + weight * <f64>load<f32>(x));
        sum += 8;
      }
      store<f64>(sum, load<f64>(sum) + weight);
    }
  }
}

/** Adds the chunks in order. Slots: partial, chunks, C, v, sums [C, v], totals [C]. Units: segments. */
export function segmentReduce(begin: i32, end: i32, args: usize, scratch: usize): void {
  const chunks = int(args, 1);
  const segments = int(args, 2);
  const v = int(args, 3);
  const row = <usize>(v + 1) << 3;
  for (let segment = begin; segment < end; segment++) {
    for (let t = 0; t <= v; t++) {
      let from = pointer(args, 0) + <usize>segment * row + (<usize>t << 3);
      let sum: f64 = 0;
      for (let chunk = 0; chunk < chunks; chunk++) {
        sum += load<f64>(from);
        from += <usize>segments * row;
      }
      if (t < v) store<f32>(pointer(args, 4) + ((<usize>segment * <usize>v + <usize>t) << 2), <f32>sum);
      else store<f32>(pointer(args, 5) + (<usize>segment << 2), <f32>sum);
    }
  }
}
