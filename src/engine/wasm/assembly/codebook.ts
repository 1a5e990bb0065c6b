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

/** Buckets of the partial sort below. */
const BUCKETS: i32 = 256;

/**
 * For each codeword a the `kept` codewords nearest to it, from near to far in steps of a few percent, a itself first: their
 * components in blocks of four (padded with NaN), their indices, and per block the least squared distance to a of any codeword
 * in it or after it, dropped ones included. Slots: codebook, blocks, C, v, kept blocks B, lists [C][B][v][4], members i32
 * [C][B][4], thresholds [C][B + 1]. Units: codewords. Scratch: 4 (C + 7) bytes for distances, 4 C for the order, 4 * 256 counts.
 */
export function codewordNeighbors(begin: i32, end: i32, args: usize, scratch: usize): void {
  const codebook = pointer(args, 0);
  const blocks = pointer(args, 1);
  const codewords = int(args, 2);
  const v = int(args, 3);
  const keptBlocks = int(args, 4);
  const listBytes = (<usize>keptBlocks * <usize>v) << 4;
  const distances = scratch;
  const order = distances + (<usize>blockCount(codewords) << 4);
  const counts = order + (<usize>codewords << 2);
  for (let a = begin; a < end; a++) {
    const center = codebook + ((<usize>a * <usize>v) << 2);
    neighborDistances(v, center, blocks, codewords, distances);
    const tail = neighborOrder(a, codewords, keptBlocks << 2, distances, order, counts);
    const kept = min(codewords, keptBlocks << 2);
    const list = pointer(args, 5) + <usize>a * listBytes;
    const members = pointer(args, 6) + ((<usize>a * <usize>keptBlocks) << 4);
    const thresholds = pointer(args, 7) + ((<usize>a * <usize>(keptBlocks + 1)) << 2);
    store<f32>(thresholds + (<usize>keptBlocks << 2), tail);
    let least = tail;
    for (let block = keptBlocks - 1; block >= 0; block--) {
      for (let lane = 0; lane < BLOCK; lane++) {
        const position = block * BLOCK + lane;
        const to = list + ((<usize>block * <usize>v) << 4) + (<usize>lane << 2);
        const codeword = position < kept ? load<i32>(order + (<usize>position << 2)) : a;
        store<i32>(members + (<usize>position << 2), codeword);
        const from = codebook + ((<usize>codeword * <usize>v) << 2);
        for (let t: usize = 0; t < <usize>v; t++)
          store<f32>(to + (t << 4), position < kept ? load<f32>(from + (t << 2)) : NaN);
        const distance = load<f32>(distances + (<usize>codeword << 2));
        if (position < kept && distance < least) least = distance;
      }
      store<f32>(thresholds + (<usize>block << 2), least);
    }
  }
}

function neighborDistances(v: i32, center: usize, blocks: usize, codewords: i32, distances: usize): void {
  for (let block: usize = 0; block < <usize>blockCount(codewords); block++)
    v128.store(distances + (block << 4), blockDistances(v, center, blocks + ((block * <usize>v) << 4)));
}

/** Order of the `kept` codewords nearest to a by buckets of the distances' bits; returns the least distance of the dropped. */
function neighborOrder(a: i32, codewords: i32, kept: i32, distances: usize, order: usize, counts: usize): f32 {
  let low: u32 = 0x7f800000;
  let high: u32 = 0;
  for (let c = 0; c < codewords; c++) {
    const bits = load<u32>(distances + (<usize>c << 2)); // distances are not negative: their order is that of their bits
    if (bits > 0 && bits < low) low = bits;
    if (bits < 0x7f800000 && bits > high) high = bits;
  }
  const range = high > low ? high - low : 1;
  const shift = max(0, 24 - clz(range));
  memory.fill(counts, 0, BUCKETS << 2);
  for (let c = 0; c < codewords; c++) {
    const at = counts + (bucket(load<u32>(distances + (<usize>c << 2)), low, shift) << 2);
    store<i32>(at, load<i32>(at) + 1);
  }
  // the bucket of a gives up one place to the head of the list
  const own = counts + (bucket(load<u32>(distances + (<usize>a << 2)), low, shift) << 2);
  store<i32>(own, load<i32>(own) - 1);
  let position = 1;
  for (let b: usize = 0; b < <usize>BUCKETS; b++) {
    const count = load<i32>(counts + (b << 2));
    store<i32>(counts + (b << 2), position);
    position += count;
  }
  store<i32>(order, a);
  let tail: f32 = Infinity;
  for (let c = 0; c < codewords; c++) {
    if (c == a) continue;
    const distance = distances + (<usize>c << 2);
    const at = counts + (bucket(load<u32>(distance), low, shift) << 2);
    const place = load<i32>(at);
    store<i32>(at, place + 1);
    if (place < kept) store<i32>(order + (<usize>place << 2), c);
    else tail = min(tail, load<f32>(distance));
  }
  return tail;
}

// @ts-ignore: decorator
@inline
function bucket(bits: u32, low: u32, shift: u32): usize {
  return bits <= low ? 0 : min<usize>((bits - low) >> shift, BUCKETS - 1);
}

/**
 * `nearestCodeword` that starts from a guess: a codeword c with |c - c_a| > 2 |x - c_a| is farther from x than c_a, so only a
 * list's beginning is looked at (the triangle inequality of Elkan 2003, with room for rounding). Slots: those of `nearestCodeword`, then
 * previous i32 [n], B, lists, members, thresholds of `codewordNeighbors`. Units: 256 vectors. Scratch: `searchScratch` + 16.
 */
export function nearestNeighbor(begin: i32, end: i32, args: usize, scratch: usize): void {
  const v = int(args, 4);
  const first = begin * VECTORS;
  const last = min(int(args, 3), end * VECTORS);
  if (v == 4) neighborRun(4, args, first, last, scratch);
  else if (v == 2) neighborRun(2, args, first, last, scratch);
  else neighborRun(v, args, first, last, scratch);
}

// @ts-ignore: decorator
@inline
function neighborRun(v: i32, args: usize, first: i32, last: i32, scratch: usize): void {
  const vectors = pointer(args, 0);
  const codebook = pointer(args, 1);
  const blocks = pointer(args, 2);
  const codewords = int(args, 5);
  const indices = pointer(args, 6);
  const distances = pointer(args, 7);
  const previous = pointer(args, 8);
  const keptBlocks = int(args, 9);
  const blockBytes = <usize>v << 4;
  const lists = pointer(args, 10);
  const allMembers = pointer(args, 11);
  const allThresholds = pointer(args, 12);
  for (let i = <usize>first; i < <usize>last; i++) {
    const x = vectors + ((i * <usize>v) << 2);
    const a = load<i32>(previous + (i << 2));
    let chosen = -1;
    let least: f32 = Infinity;
    if (<u32>a < <u32>codewords) {
      const list = lists + <usize>a * <usize>keptBlocks * blockBytes;
      const thresholds = allThresholds + ((<usize>a * <usize>(keptBlocks + 1)) << 2);
      let best = blockDistances(v, x, list);
      // a is first; beyond this squared distance from it nothing is nearer (1e-4 is room for the rounding of both distances)
      const bound = f32x4.extract_lane(best, 0) * (4.0 * (1.0 + 1e-4)) + 1e-30;
      let where = i32x4.splat(0);
      let ties = where;
      let block = 1;
      for (; block < keptBlocks; block++) {
        if (load<f32>(thresholds + (<usize>block << 2)) > bound) break;
        const d = blockDistances(v, x, list + <usize>block * blockBytes);
        where = i32x4.max_s(where, v128.and(f32x4.lt(d, best), i32x4.splat(block)));
        ties = v128.or(ties, f32x4.eq(d, best));
        best = f32x4.pmin(best, d);
      }
      let m = f32x4.pmin(best, v128.shuffle<f32>(best, best, 2, 3, 0, 1));
      m = f32x4.pmin(m, v128.shuffle<f32>(m, m, 1, 0, 3, 2));
      least = f32x4.extract_lane(m, 0);
      // a list that was cut short must have been left before its end
      if (load<f32>(thresholds + (<usize>block << 2)) > bound && least < Infinity) {
        const members = allMembers + ((<usize>a * <usize>keptBlocks) << 4);
        const winners = f32x4.eq(best, m);
        const mask = i32x4.bitmask(winners);
        if ((mask & (mask - 1)) == 0 && !v128.any_true(v128.and(ties, winners))) {
          v128.store(scratch, where);
          const lane = <usize>ctz(mask) << 2;
          chosen = load<i32>(members + (<usize>load<i32>(scratch + lane) << 4) + lane);
        } else chosen = lowestOfEquals(v, x, list, members, block, least);
      }
    }
    if (chosen >= 0) {
      store<i32>(indices + (i << 2), chosen);
      store<f32>(distances + (i << 2), least);
    } else nearestRun(v, x, 1, codebook, blocks, codewords, indices + (i << 2), distances + (i << 2), scratch + 16);
  }
}

/** The lowest index among the members of the first `count` blocks at the distance `least`. */
function lowestOfEquals(v: i32, x: usize, list: usize, members: usize, count: i32, least: f32): i32 {
  let lowest = i32.MAX_VALUE;
  for (let block: usize = 0; block < <usize>count; block++) {
    let mask = i32x4.bitmask(f32x4.eq(blockDistances(v, x, list + ((block * <usize>v) << 4)), f32x4.splat(least)));
    for (; mask != 0; mask &= mask - 1) lowest = min(lowest, load<i32>(members + (block << 4) + (<usize>ctz(mask) << 2)));
  }
  return lowest;
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
