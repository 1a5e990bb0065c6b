// The nearest codeword from a guess (the assignment of the iteration before): a codeword c with |c - c_a| > 2 |x - c_a| is
// farther from x than c_a (triangle inequality; Elkan 2003), so a vector meets only the codewords near its own. Vectors with
// the same guess are handled together: the list of neighbors is made once for them, from near to far, and stays in the cache.

import { int, pointer } from "./lib/job";
import { accumulate, BLOCK, blockCount, blockDistances, GROUP, nearestRun, searchScratch, square, toLanes } from "./lib/nearest";

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
      if (v == 2) neighborBatch(2, v, a, first, count, args, scratch);
      else if (v == 4) neighborBatch(4, v, a, first, count, args, scratch);
      else if (v == 6) neighborBatch(6, v, a, first, count, args, scratch);
      else if (v == 8) neighborBatch(8, v, a, first, count, args, scratch);
      else neighborBatch(0, v, a, first, count, args, scratch);
    }
  }
}

// @ts-ignore: decorator
@inline
function neighborBatch(V: i32, v: i32, a: i32, first: i32, count: i32, args: usize, scratch: usize): void {
  const vectors = pointer(args, 0);
  const codebook = pointer(args, 1);
  const blocks = pointer(args, 2);
  const codewords = int(args, 4);
  const order = pointer(args, 6) + (<usize>first << 2);
  const indices = pointer(args, 7);
  const distances = pointer(args, 8);
  const center = codebook + ((<usize>a * <usize>v) << 2);
  const groups = <usize>((count + GROUP - 1) / GROUP);

  // scratch: lanes [v][8], choices, bounds [1024], sorted order [1024], the list, then single searches and work
  const lanes = scratch;
  const best = lanes + (<usize>v << 5);
  const bounds = best + 96;
  const sorted = bounds + (BATCH << 2);
  const single = sorted + (BATCH << 2);
  const list = single + searchScratch(v);
  const members = list + ((<usize>blockCount(codewords) * <usize>v) << 4);
  const thresholds = members + (<usize>blockCount(codewords) << 4);
  const work = thresholds + (<usize>(blockCount(codewords) + 1) << 2);

  for (let group: usize = 0; group < groups; group++) {
    gather(v, vectors, order + (group << 5), min(GROUP, count - (<i32>group << 3)), lanes);
    groupBounds(v, lanes, center, bounds + (group << 5));
  }
  // vectors of like bounds go together: a group visits what its farthest member needs
  const radius = sortByBound(bounds, order, count, sorted, work);
  const listed = neighborList(v, center, codebook, blocks, codewords, radius, list, members, thresholds, work);

  for (let group: usize = 0; group < groups; group++) {
    const names = sorted + (group << 5);
    gather(v, vectors, names, min(GROUP, count - (<i32>group << 3)), lanes);
    groupBounds(v, lanes, center, bounds);
    const bound = largest(bounds);
    let visited = 0;
    if (V == 2 || V == 4) visited = scanList8(V, lanes, list, thresholds, listed, bound, best);
    else {
      visited = scanList4(V, v, lanes, list, thresholds, listed, bound, best);
      scanList4(V, v, lanes + 16, list, thresholds, listed, bound, best + 16);
    }
    const have = <usize>min(GROUP, count - (<i32>group << 3));
    for (let lane: usize = 0; lane < have; lane++) {
      const i = <usize>load<i32>(names + (lane << 2));
      const x = vectors + ((i * <usize>v) << 2);
      const least = load<f32>(best + (lane << 2));
      if (least < Infinity) {
        const block = <usize>load<i32>(best + (lane << 2), 32);
        const mask = equals(V, v, x, list, block, least);
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
  const last = have - 1;
  for (let k = 0; k < GROUP; k += 4)
    toLanes(
      v, vectorAt(v, vectors, order, min(k, last)), vectorAt(v, vectors, order, min(k + 1, last)),
      vectorAt(v, vectors, order, min(k + 2, last)), vectorAt(v, vectors, order, min(k + 3, last)), lanes + (<usize>k << 2),
    );
}

// @ts-ignore: decorator
@inline
function vectorAt(v: i32, vectors: usize, order: usize, k: i32): usize {
  return vectors + ((<usize>load<i32>(order + (<usize>k << 2)) * <usize>v) << 2);
}

/** Squared distances to the center within which a codeword can be nearer than it, of eight vectors; infinite for NaN. */
// @ts-ignore: decorator
@inline
function groupBounds(v: i32, lanes: usize, center: usize, bounds: usize): void {
  let s = f32x4.splat(0), t = s;
  for (let k: usize = 0; k < <usize>v; k++) {
    const c = v128.load_splat<f32>(center + (k << 2));
    s = accumulate(s, v128.load(lanes + (k << 5)), c);
    t = accumulate(t, v128.load(lanes + (k << 5), 16), c);
  }
  v128.store(bounds, boundOf(s));
  v128.store(bounds, boundOf(t), 16);
}

/** 4 d: twice the distance. 1e-4 is room for the rounding of the distances, 1e-30 for their underflow. */
// @ts-ignore: decorator
@inline
function boundOf(d: v128): v128 {
  const bound = f32x4.add(f32x4.mul(d, f32x4.splat(4.0 * (1.0 + 1e-4))), f32x4.splat(1e-30));
  return f32x4.pmin(f32x4.splat(Infinity), bound);
}

// @ts-ignore: decorator
@inline
function largest(bounds: usize): f32 {
  let m = f32x4.max(v128.load(bounds), v128.load(bounds, 16));
  m = f32x4.max(m, v128.shuffle<f32>(m, m, 2, 3, 0, 1));
  m = f32x4.max(m, v128.shuffle<f32>(m, m, 1, 0, 3, 2));
  return f32x4.extract_lane(m, 0);
}

/** The numbers in `order` by bound, in steps of a few percent; returns the largest bound. */
function sortByBound(bounds: usize, order: usize, count: i32, sorted: usize, counts: usize): f32 {
  let low: u32 = 0x7f800000;
  let high: u32 = 0;
  const end = bounds + (<usize>count << 2);
  for (let at = bounds; at < end; at += 4) {
    const bits = load<u32>(at); // positive floats are ordered as their bits
    low = min(low, bits);
    high = max(high, bits);
  }
  const shift = bucketShift(low, high);
  memory.fill(counts, 0, BUCKETS << 2);
  for (let at = bounds; at < end; at += 4) increment(counts + bucket(load<u32>(at), low, shift));
  countsToPlaces(counts);
  for (let k: usize = 0; k < <usize>count; k++) {
    const place = increment(counts + bucket(load<u32>(bounds + (k << 2)), low, shift));
    store<i32>(sorted + (<usize>place << 2), load<i32>(order + (k << 2)));
  }
  return reinterpret<f32>(high);
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
    let d: v128;
    if (v == 4) d = blockDistances(4, v, center, at);
    else if (v == 6) d = blockDistances(6, v, center, at);
    else if (v == 8) d = blockDistances(8, v, center, at);
    else d = blockDistances(0, v, center, at);
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
  const shift = bucketShift(low, high);
  memory.fill(counts, 0, BUCKETS << 2);
  for (let k: usize = 0; k < count; k++) increment(counts + bucket(load<u32>(near + (k << 2)), low, shift));
  countsToPlaces(counts);
  memory.fill(thresholds, 0xff, (listed + 1) << 2);
  for (let k: usize = 0; k < count; k++) {
    const bits = load<u32>(near + (k << 2));
    const position = <usize>increment(counts + bucket(bits, low, shift));
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

// Counting sort of non-negative floats by their bits, in 256 buckets between the least and the largest.

// @ts-ignore: decorator
@inline
function bucketShift(low: u32, high: u32): i32 {
  return max(0, 24 - <i32>clz(high > low ? high - low : 1));
}

/** Byte offset of the counter. */
// @ts-ignore: decorator
@inline
function bucket(bits: u32, low: u32, shift: i32): usize {
  return bits <= low ? 0 : min<usize>((bits - low) >> shift, BUCKETS - 1) << 2;
}

// @ts-ignore: decorator
@inline
function increment(at: usize): i32 {
  const value = load<i32>(at);
  store<i32>(at, value + 1);
  return value;
}

function countsToPlaces(counts: usize): void {
  let place = 0;
  for (let at = counts; at < counts + (BUCKETS << 2); at += 4) {
    const size = load<i32>(at);
    store<i32>(at, place);
    place += size;
  }
}

/**
 * Four vectors against the list until it leaves the bound. best: least distances, their blocks at 32, flags at 64 where a later
 * block held an equal. Returns the number of blocks visited.
 */
// @ts-ignore: decorator
@inline
function scanList4(V: i32, v: i32, lanes: usize, list: usize, thresholds: usize, listed: i32, bound: f32, best: usize): i32 {
  const x0 = v128.load(lanes);
  let x1 = x0, x2 = x0, x3 = x0, x4 = x0, x5 = x0, x6 = x0, x7 = x0;
  if (V > 1) x1 = v128.load(lanes, 32);
  if (V > 2) x2 = v128.load(lanes, 64);
  if (V > 3) x3 = v128.load(lanes, 96);
  if (V > 4) x4 = v128.load(lanes, 128);
  if (V > 5) x5 = v128.load(lanes, 160);
  if (V > 6) x6 = v128.load(lanes, 192);
  if (V > 7) x7 = v128.load(lanes, 224);
  let least = f32x4.splat(Infinity);
  let where = i32x4.splat(0);
  let ties = where;
  const bytes = <usize>v << 4;
  let block = 0;
  for (; block < listed; block++) {
    if (load<f32>(thresholds + (<usize>block << 2)) > bound) break;
    const at = list + <usize>block * bytes;
    let m = f32x4.splat(Infinity);
    for (let c = at; c < at + 16; c += 4) {
      let sum = square(x0, v128.load_splat<f32>(c));
      if (V == 0) {
        for (let t: usize = 16; t < bytes; t += 16)
          sum = accumulate(sum, v128.load(lanes + (t << 1)), v128.load_splat<f32>(c + t));
      }
      if (V > 1) sum = accumulate(sum, x1, v128.load_splat<f32>(c, 16));
      if (V > 2) sum = accumulate(sum, x2, v128.load_splat<f32>(c, 32));
      if (V > 3) sum = accumulate(sum, x3, v128.load_splat<f32>(c, 48));
      if (V > 4) sum = accumulate(sum, x4, v128.load_splat<f32>(c, 64));
      if (V > 5) sum = accumulate(sum, x5, v128.load_splat<f32>(c, 80));
      if (V > 6) sum = accumulate(sum, x6, v128.load_splat<f32>(c, 96));
      if (V > 7) sum = accumulate(sum, x7, v128.load_splat<f32>(c, 112));
      m = f32x4.pmin(m, sum);
    }
    ties = v128.or(ties, f32x4.eq(m, least));
    where = i32x4.max_s(where, v128.and(f32x4.lt(m, least), i32x4.splat(block)));
    least = f32x4.pmin(least, m);
  }
  v128.store(best, least);
  v128.store(best, where, 32);
  v128.store(best, ties, 64);
  return block;
}

/** `scanList4` for eight vectors at once, V 2 or 4. */
// @ts-ignore: decorator
@inline
function scanList8(V: i32, lanes: usize, list: usize, thresholds: usize, listed: i32, bound: f32, best: usize): i32 {
  const x0 = v128.load(lanes), y0 = v128.load(lanes, 16);
  const x1 = v128.load(lanes, 32), y1 = v128.load(lanes, 48);
  let x2 = x0, x3 = x0, y2 = y0, y3 = y0;
  if (V > 2) { x2 = v128.load(lanes, 64); y2 = v128.load(lanes, 80); }
  if (V > 3) { x3 = v128.load(lanes, 96); y3 = v128.load(lanes, 112); }
  let leastX = f32x4.splat(Infinity), leastY = leastX;
  let whereX = i32x4.splat(0), whereY = whereX;
  let tiesX = whereX, tiesY = whereX;
  const bytes = <usize>V << 4;
  let block = 0;
  for (; block < listed; block++) {
    if (load<f32>(thresholds + (<usize>block << 2)) > bound) break;
    const at = list + <usize>block * bytes;
    let m = f32x4.splat(Infinity), n = m;
    for (let p = at; p < at + 16; p += 4) {
      let c = v128.load_splat<f32>(p);
      let s = square(x0, c), t = square(y0, c);
      c = v128.load_splat<f32>(p, 16);
      s = accumulate(s, x1, c); t = accumulate(t, y1, c);
      if (V > 2) { c = v128.load_splat<f32>(p, 32); s = accumulate(s, x2, c); t = accumulate(t, y2, c); }
      if (V > 3) { c = v128.load_splat<f32>(p, 48); s = accumulate(s, x3, c); t = accumulate(t, y3, c); }
      m = f32x4.pmin(m, s);
      n = f32x4.pmin(n, t);
    }
    const here = i32x4.splat(block);
    tiesX = v128.or(tiesX, f32x4.eq(m, leastX));
    tiesY = v128.or(tiesY, f32x4.eq(n, leastY));
    whereX = i32x4.max_s(whereX, v128.and(f32x4.lt(m, leastX), here));
    whereY = i32x4.max_s(whereY, v128.and(f32x4.lt(n, leastY), here));
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
function equals(V: i32, v: i32, x: usize, list: usize, block: usize, least: f32): i32 {
  return i32x4.bitmask(f32x4.eq(blockDistances(V, v, x, list + ((block * <usize>v) << 4)), f32x4.splat(least)));
}

/** The lowest index among the members of the first `count` blocks at the distance `least`. */
function lowestOfEquals(v: i32, x: usize, list: usize, members: usize, count: i32, least: f32): i32 {
  let lowest = i32.MAX_VALUE;
  for (let block: usize = 0; block < <usize>count; block++) {
    let mask = equals(0, v, x, list, block, least);
    for (; mask != 0; mask &= mask - 1) lowest = min(lowest, load<i32>(members + (block << 4) + (<usize>ctz(mask) << 2)));
  }
  return lowest;
}
