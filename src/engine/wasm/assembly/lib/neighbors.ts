// The list of a codeword's neighbors for ../neighbor.ts, and the search in it.

import { accumulate, BLOCK, blockCount, blockDistances, square } from "./nearest";

const BUCKETS: i32 = 256;

/** The numbers in `order` by bound, in steps of a few percent; returns the largest bound. */
export function sortByBound(bounds: usize, order: usize, count: i32, sorted: usize, counts: usize): f32 {
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
 * Codewords within the radius (squared) of the center, from near to far in steps of a few percent: in blocks of four, padded
 * with NaN, their indices, and per block the least squared distance of any in it or after it (infinite behind the last). Returns the blocks.
 */
export function neighborList(
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
export function scanList4(V: i32, v: i32, lanes: usize, list: usize, thresholds: usize, listed: i32, bound: f32, best: usize): i32 {
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
export function scanList8(V: i32, lanes: usize, list: usize, thresholds: usize, listed: i32, bound: f32, best: usize): i32 {
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
export function equals(V: i32, v: i32, x: usize, list: usize, block: usize, least: f32): i32 {
  return i32x4.bitmask(f32x4.eq(blockDistances(V, v, x, list + ((block * <usize>v) << 4)), f32x4.splat(least)));
}

/** The lowest index among the members of the first `count` blocks at the distance `least`. */
export function lowestOfEquals(v: i32, x: usize, list: usize, members: usize, count: i32, least: f32): i32 {
  let lowest = i32.MAX_VALUE;
  for (let block: usize = 0; block < <usize>count; block++) {
    let mask = equals(0, v, x, list, block, least);
    for (; mask != 0; mask &= mask - 1) lowest = min(lowest, load<i32>(members + (block << 4) + (<usize>ctz(mask) << 2)));
  }
  return lowest;
}
