// The nearest codeword from a guess (the assignment of the iteration before): a codeword c with |c - c_a| > 2 |x - c_a| is
// farther from x than c_a (triangle inequality; Elkan 2003), so a vector meets only the codewords near its own. Vectors with
// the same guess are handled together: the list of neighbors is made once for them, from near to far, and stays in the cache.

import { int, pointer } from "./lib/job";
import { accumulate, BLOCK, blockCount, blockDistances, GROUP, nearestRun, searchScratch, square } from "./lib/nearest";

/** Vectors that share a list at most; more of them make it again, with a radius of their own. */
const BATCH: i32 = 1024;
const BUCKETS: i32 = 256;

// @ts-ignore: decorator
@inline
function guessOf(guesses: usize, i: usize, codewords: i32): usize {
  const guess = load<i32>(guesses + (i << 2));
  return <u32>guess < <u32>codewords ? <usize>guess : 0; // any codeword will do as a guess
}

/** How often each guess occurs in a chunk. Slots: guesses i32 [n], n, C, vectors a chunk, chunks, counts i32 [chunks, C]. Units: chunks. */
export function guessCount(begin: i32, end: i32, args: usize, scratch: usize): void {
  const codewords = int(args, 2);
  const size = int(args, 3);
  for (let chunk = begin; chunk < end; chunk++) {
    const counts = pointer(args, 5) + ((<usize>chunk * <usize>codewords) << 2);
    memory.fill(counts, 0, <usize>codewords << 2);
    const last = <usize>min(int(args, 1), (chunk + 1) * size);
    for (let i = <usize>(chunk * size); i < last; i++) {
      const at = counts + (guessOf(pointer(args, 0), i, codewords) << 2);
      store<i32>(at, load<i32>(at) + 1);
    }
  }
}

/** Turns counts into first places, by guess and then by chunk. Slots as `guessCount`, then firsts i32 [C + 1]. One unit. */
export function guessPlace(begin: i32, end: i32, args: usize, scratch: usize): void {
  const codewords = <usize>int(args, 2);
  const chunks = int(args, 4);
  const firsts = pointer(args, 6);
  let place = 0;
  for (let a: usize = 0; a < codewords; a++) {
    store<i32>(firsts + (a << 2), place);
    let at = pointer(args, 5) + (a << 2);
    for (let chunk = 0; chunk < chunks; chunk++) {
      const count = load<i32>(at);
      store<i32>(at, place);
      place += count;
      at += codewords << 2;
    }
  }
  store<i32>(firsts + (codewords << 2), place);
}

/** Numbers of the vectors in order of their guess. Slots as `guessPlace`, then order i32 [n]. Units: chunks. */
export function guessScatter(begin: i32, end: i32, args: usize, scratch: usize): void {
  const codewords = int(args, 2);
  const size = int(args, 3);
  const order = pointer(args, 7);
  for (let chunk = begin; chunk < end; chunk++) {
    const places = pointer(args, 5) + ((<usize>chunk * <usize>codewords) << 2);
    const last = <usize>min(int(args, 1), (chunk + 1) * size);
    for (let i = <usize>(chunk * size); i < last; i++) {
      const at = places + (guessOf(pointer(args, 0), i, codewords) << 2);
      const place = load<i32>(at);
      store<i32>(at, place + 1);
      store<i32>(order + (<usize>place << 2), <i32>i);
    }
  }
}

/**
 * `nearestCodeword` for vectors in order of their guess. Slots: vectors [n, v], codebook [C, v], blocks, v, C, firsts [C + 1],
 * order [n], indices, distances. Units: guesses. Scratch: see `neighborScratch` in ../codebook.ts.
 */
export function nearestNeighbor(begin: i32, end: i32, args: usize, scratch: usize): void {
  const v = int(args, 3);
  const firsts = pointer(args, 5);
  for (let a = begin; a < end; a++) {
    const last = load<i32>(firsts + (<usize>a << 2), 4);
    for (let first = load<i32>(firsts + (<usize>a << 2)); first < last; first += BATCH) {
      const count = min(BATCH, last - first);
      if (v == 4) neighborBatch(4, a, first, count, args, scratch);
      else if (v == 6) neighborBatch(6, a, first, count, args, scratch);
      else neighborBatch(v, a, first, count, args, scratch);
    }
  }
}

// @ts-ignore: decorator
@inline
function neighborBatch(v: i32, a: i32, first: i32, count: i32, args: usize, scratch: usize): void {
  const vectors = pointer(args, 0);
  const codebook = pointer(args, 1);
  const blocks = pointer(args, 2);
  const codewords = int(args, 4);
  const order = pointer(args, 6) + (<usize>first << 2);
  const indices = pointer(args, 7);
  const distances = pointer(args, 8);
  const center = codebook + ((<usize>a * <usize>v) << 2);
  const groupBytes = <usize>v << 5;
  const groups = <usize>((count + GROUP - 1) / GROUP);

  // scratch: lanes [groups][v][8], bounds [groups], the list, then single searches and choices
  const lanes = scratch;
  const bounds = lanes + ((<usize>BATCH * <usize>v) << 2);
  const best = bounds + (BATCH / GROUP) * 4;
  const single = best + 96;
  const list = single + searchScratch(v);
  const members = list + ((<usize>blockCount(codewords) * <usize>v) << 4);
  const thresholds = members + (<usize>blockCount(codewords) << 4);
  const work = thresholds + (<usize>(blockCount(codewords) + 1) << 2);

  let radius: f32 = 0;
  for (let group: usize = 0; group < groups; group++) {
    const at = lanes + group * groupBytes;
    gather(v, vectors, order + (group << 5), min(GROUP, count - (<i32>group << 3)), at);
    // 1e-4 is room for the rounding of the distances, 1e-30 for their underflow
    const bound = farthest(v, at, center) * (4.0 * (1.0 + 1e-4)) + 1e-30;
    store<f32>(bounds + (group << 2), bound);
    if (!(bound <= radius)) radius = bound < Infinity ? bound : Infinity;
  }
  const listed = neighborList(v, center, codebook, blocks, codewords, radius, list, members, thresholds, work);

  for (let group: usize = 0; group < groups; group++) {
    const at = lanes + group * groupBytes;
    const visited = scanList(v, at, list, thresholds, listed, load<f32>(bounds + (group << 2)), best);
    const have = <usize>min(GROUP, count - (<i32>group << 3));
    for (let lane: usize = 0; lane < have; lane++) {
      const i = <usize>load<i32>(order + (((group << 3) + lane) << 2));
      const x = vectors + ((i * <usize>v) << 2);
      const least = load<f32>(best + (lane << 2));
      if (least < Infinity) {
        const block = <usize>load<i32>(best + (lane << 2), 32);
        const mask = equals(v, x, list, block, least);
        const tie = load<i32>(best + (lane << 2), 64) | (mask & (mask - 1));
        const chosen = tie
          ? lowestOfEquals(v, x, list, members, visited, least)
          : load<i32>(members + (block << 4) + (<usize>ctz(mask) << 2));
        store<i32>(indices + (i << 2), chosen);
        store<f32>(distances + (i << 2), least);
      } else nearestRun(v, x, 1, codebook, blocks, codewords, indices + (i << 2), distances + (i << 2), single);
    }
  }
}

/** Vectors order[0 .. have - 1] to lanes [v][8]; the last one fills up. */
// @ts-ignore: decorator
@inline
function gather(v: i32, vectors: usize, order: usize, have: i32, lanes: usize): void {
  const bytes = <usize>v << 2;
  for (let lane: usize = 0; lane < <usize>GROUP; lane++) {
    const i = <usize>load<i32>(order + (min(lane, <usize>have - 1) << 2));
    const x = vectors + i * bytes;
    for (let t: usize = 0; t < bytes; t += 4) store<f32>(lanes + (t << 3) + (lane << 2), load<f32>(x + t));
  }
}

/** Largest squared distance of eight vectors to the center; infinite when one is NaN. */
// @ts-ignore: decorator
@inline
function farthest(v: i32, lanes: usize, center: usize): f32 {
  let s = f32x4.splat(0), t = s;
  for (let k: usize = 0; k < <usize>v; k++) {
    const c = v128.load_splat<f32>(center + (k << 2));
    s = accumulate(s, v128.load(lanes + (k << 5)), c);
    t = accumulate(t, v128.load(lanes + (k << 5), 16), c);
  }
  let m = f32x4.max(s, t);
  m = f32x4.max(m, v128.shuffle<f32>(m, m, 2, 3, 0, 1));
  m = f32x4.max(m, v128.shuffle<f32>(m, m, 1, 0, 3, 2));
  const d = f32x4.extract_lane(m, 0);
  return d < Infinity ? d : Infinity;
}

/**
 * Codewords within the radius (squared) of the center, from near to far in steps of a few percent: in blocks of four, padded with NaN, their
 * indices, and per block the least squared distance of any in it or after it (infinite behind the last). Returns the blocks.
 */
function neighborList(
  v: i32, center: usize, codebook: usize, blocks: usize, codewords: i32, radius: f32,
  list: usize, members: usize, thresholds: usize, work: usize,
): i32 {
  // those within the radius, in order of their index: distances and indices
  const near = work;
  const names = near + (<usize>codewords << 2);
  const counts = names + (<usize>codewords << 2);
  const limit = f32x4.splat(radius);
  let count: usize = 0;
  let low: u32 = 0x7f800000;
  let high: u32 = 0;
  const total = <usize>blockCount(codewords);
  for (let block: usize = 0; block < total; block++) {
    const at = blocks + ((block * <usize>v) << 4);
    const d = v == 4 ? blockDistances(4, center, at) : blockDistances(v, center, at);
    let mask = i32x4.bitmask(f32x4.le(d, limit));
    if (mask == 0) continue;
    v128.store(counts, d);
    for (; mask != 0; mask &= mask - 1) {
      const lane = <usize>ctz(mask);
      const bits = load<u32>(counts + (lane << 2)); // distances are not negative: their order is that of their bits
      if (bits > 0 && bits < low) low = bits;
      if (bits < 0x7f800000 && bits > high) high = bits;
      store<u32>(near + (count << 2), bits);
      store<i32>(names + (count << 2), <i32>((block << 2) + lane));
      count++;
    }
  }
  const listed = (count + BLOCK - 1) / BLOCK;
  const shift = max(0, 24 - <i32>clz(high > low ? high - low : 1));
  memory.fill(counts, 0, BUCKETS << 2);
  for (let k: usize = 0; k < count; k++) {
    const at = counts + bucket(load<u32>(near + (k << 2)), low, shift);
    store<i32>(at, load<i32>(at) + 1);
  }
  let place = 0;
  for (let b: usize = 0; b < <usize>BUCKETS; b++) {
    const size = load<i32>(counts + (b << 2));
    store<i32>(counts + (b << 2), place);
    place += size;
  }
  memory.fill(thresholds, 0xff, (listed + 1) << 2);
  for (let k: usize = 0; k < count; k++) {
    const bits = load<u32>(near + (k << 2));
    const at = counts + bucket(bits, low, shift);
    const position = <usize>load<i32>(at);
    store<i32>(at, <i32>position + 1);
    const codeword = <usize>load<i32>(names + (k << 2));
    put(v, list, position, codebook + ((codeword * <usize>v) << 2));
    store<i32>(members + (position << 2), <i32>codeword);
    const threshold = thresholds + ((position >> 2) << 2);
    store<u32>(threshold, min(load<u32>(threshold), bits));
  }
  for (let position = count; position < listed << 2; position++) put(v, list, position, 0);
  store<f32>(thresholds + (listed << 2), Infinity);
  for (let block = listed; block > 0; block--) {
    const threshold = thresholds + (block << 2) - 4;
    store<u32>(threshold, min(load<u32>(threshold), load<u32>(threshold + 4)));
  }
  return <i32>listed;
}

/** Writes a codeword (NaN for address 0) to its place in the blocks of four. */
// @ts-ignore: decorator
@inline
function put(v: i32, list: usize, position: usize, codeword: usize): void {
  const to = list + (((position >> 2) * <usize>v) << 4) + ((position & 3) << 2);
  for (let t: usize = 0; t < <usize>v; t++) store<f32>(to + (t << 4), codeword ? load<f32>(codeword + (t << 2)) : NaN);
}

/** Byte offset of the counter of a distance. */
// @ts-ignore: decorator
@inline
function bucket(bits: u32, low: u32, shift: i32): usize {
  return bits <= low ? 0 : min<usize>((bits - low) >> shift, BUCKETS - 1) << 2;
}

/**
 * Eight vectors against the list until it leaves the bound. best: least distances [8], their blocks [8], flags [8] where a later
 * block held an equal. Returns the number of blocks visited.
 */
// @ts-ignore: decorator
@inline
function scanList(v: i32, lanes: usize, list: usize, thresholds: usize, listed: i32, bound: f32, best: usize): i32 {
  let leastX = f32x4.splat(Infinity), leastY = leastX;
  let whereX = i32x4.splat(0), whereY = whereX;
  let tiesX = whereX, tiesY = whereX;
  const bytes = <usize>v << 4;
  let block = 0;
  for (; block < listed; block++) {
    if (load<f32>(thresholds + (<usize>block << 2)) > bound) break;
    const at = list + <usize>block * bytes;
    let m = f32x4.splat(Infinity), n = m;
    for (let lane: usize = at; lane < at + 16; lane += 4) {
      let x = lanes;
      let c = v128.load_splat<f32>(lane);
      let s = square(v128.load(x), c), t = square(v128.load(x, 16), c);
      for (let p: usize = 16; p < bytes; p += 16) {
        x += 32;
        c = v128.load_splat<f32>(lane + p);
        s = accumulate(s, v128.load(x), c);
        t = accumulate(t, v128.load(x, 16), c);
      }
      m = f32x4.pmin(m, s);
      n = f32x4.pmin(n, t);
    }
    const here = i32x4.splat(block);
    // an equal least distance in a later block
    const equalX = f32x4.eq(m, leastX), equalY = f32x4.eq(n, leastY);
    const lessX = f32x4.lt(m, leastX), lessY = f32x4.lt(n, leastY);
    tiesX = v128.or(v128.andnot(tiesX, lessX), equalX);
    tiesY = v128.or(v128.andnot(tiesY, lessY), equalY);
    whereX = i32x4.max_s(whereX, v128.and(lessX, here));
    whereY = i32x4.max_s(whereY, v128.and(lessY, here));
    leastX = f32x4.pmin(leastX, m);
    leastY = f32x4.pmin(leastY, n);
  }
  v128.store(best, leastX);
  v128.store(best, leastY, 16);
  v128.store(best, whereX, 32);
  v128.store(best, whereY, 48);
  v128.store(best, tiesX, 64);
  v128.store(best, tiesY, 80);
  return block;
}

/** Which of the four codewords of a block lie at the distance `least`. */
// @ts-ignore: decorator
@inline
function equals(v: i32, x: usize, list: usize, block: usize, least: f32): i32 {
  return i32x4.bitmask(f32x4.eq(blockDistances(v, x, list + ((block * <usize>v) << 4)), f32x4.splat(least)));
}

/** The lowest index among the members of the first `count` blocks at the distance `least`. */
function lowestOfEquals(v: i32, x: usize, list: usize, members: usize, count: i32, least: f32): i32 {
  let lowest = i32.MAX_VALUE;
  for (let block: usize = 0; block < <usize>count; block++) {
    let mask = equals(v, x, list, block, least);
    for (; mask != 0; mask &= mask - 1) lowest = min(lowest, load<i32>(members + (block << 4) + (<usize>ctz(mask) << 2)));
  }
  return lowest;
}
