// The search for the nearest codeword, shared by the assignment of k-means and the column sweeps. A distance is the sum of
// (x_t - c_t)^2 in order of t, product and sum rounded to f32 (never fused), so that every path chooses the same codeword.
// Functions with a parameter V are inlined: V is the constant v where the loop over t is unrolled (2..8), or 0 for any v.

/** Codewords are laid out twice: as given, [C, v], and in blocks of four, [ceil(C / 8) * 2][v][4], padded with NaN. */
export const BLOCK: i32 = 4;

/** Vectors that a pass over the codebook serves. */
export const GROUP: i32 = 8;

/** Codewords between two updates of the running choice. */
const RUN: i32 = 8;

/** Scratch of `nearestRun` in bytes: transposed vectors [v][8], then distances and runs of 8 vectors. */
// @ts-ignore: decorator
@inline
export function searchScratch(v: i32): usize {
  return (<usize>v << 5) + 64;
}

/** Number of blocks of four of a codebook, padding included. */
// @ts-ignore: decorator
@inline
export function blockCount(codewords: i32): i32 {
  return ((codewords + 7) >> 3) << 1;
}

/** Adds (x - c)^2 to the sum. */
// @ts-ignore: decorator
@inline
export function accumulate(sum: v128, x: v128, c: v128): v128 {
  const d = f32x4.sub(x, c);
  return f32x4.add(sum, f32x4.mul(d, d));
}

// @ts-ignore: decorator
@inline
export function square(x: v128, c: v128): v128 {
  const d = f32x4.sub(x, c);
  return f32x4.mul(d, d);
}

/** Distances of the vector at `x` to the four codewords of a block. */
// @ts-ignore: decorator
@inline
export function blockDistances(V: i32, v: i32, x: usize, block: usize): v128 {
  let sum = square(v128.load_splat<f32>(x), v128.load(block));
  if (V == 0) {
    const end = x + (<usize>v << 2);
    for (x += 4; x < end; x += 4) {
      block += 16;
      sum = accumulate(sum, v128.load_splat<f32>(x), v128.load(block));
    }
    return sum;
  }
  if (V > 1) sum = accumulate(sum, v128.load_splat<f32>(x, 4), v128.load(block, 16));
  if (V > 2) sum = accumulate(sum, v128.load_splat<f32>(x, 8), v128.load(block, 32));
  if (V > 3) sum = accumulate(sum, v128.load_splat<f32>(x, 12), v128.load(block, 48));
  if (V > 4) sum = accumulate(sum, v128.load_splat<f32>(x, 16), v128.load(block, 64));
  if (V > 5) sum = accumulate(sum, v128.load_splat<f32>(x, 20), v128.load(block, 80));
  if (V > 6) sum = accumulate(sum, v128.load_splat<f32>(x, 24), v128.load(block, 96));
  if (V > 7) sum = accumulate(sum, v128.load_splat<f32>(x, 28), v128.load(block, 112));
  return sum;
}

/** Four vectors against one codeword; V is a constant, 2..8. */
// @ts-ignore: decorator
@inline
function laneDistances(V: i32, c: usize, x0: v128, x1: v128, x2: v128, x3: v128, x4: v128, x5: v128, x6: v128, x7: v128): v128 {
  let sum = square(x0, v128.load_splat<f32>(c));
  sum = accumulate(sum, x1, v128.load_splat<f32>(c, 4));
  if (V > 2) sum = accumulate(sum, x2, v128.load_splat<f32>(c, 8));
  if (V > 3) sum = accumulate(sum, x3, v128.load_splat<f32>(c, 12));
  if (V > 4) sum = accumulate(sum, x4, v128.load_splat<f32>(c, 16));
  if (V > 5) sum = accumulate(sum, x5, v128.load_splat<f32>(c, 20));
  if (V > 6) sum = accumulate(sum, x6, v128.load_splat<f32>(c, 24));
  if (V > 7) sum = accumulate(sum, x7, v128.load_splat<f32>(c, 28));
  return sum;
}

/**
 * Least distance of four vectors, and the run of 8 codewords where it first occurs. Inside a run only the least distance is
 * kept (no index), which leaves every register to the arithmetic; the codeword itself is found afterwards. V 2..8 constant.
 */
// @ts-ignore: decorator
@inline
function scan4(V: i32, lanes: usize, codebook: usize, codewords: i32, best: usize): void {
  const x0 = v128.load(lanes);
  const x1 = v128.load(lanes, 32);
  let x2 = x0, x3 = x0, x4 = x0, x5 = x0, x6 = x0, x7 = x0;
  if (V > 2) x2 = v128.load(lanes, 64);
  if (V > 3) x3 = v128.load(lanes, 96);
  if (V > 4) x4 = v128.load(lanes, 128);
  if (V > 5) x5 = v128.load(lanes, 160);
  if (V > 6) x6 = v128.load(lanes, 192);
  if (V > 7) x7 = v128.load(lanes, 224);
  let least = f32x4.splat(Infinity);
  let where = i32x4.splat(0);
  const bytes = <usize>V << 2;
  const end = codebook + <usize>codewords * bytes;
  let run = 0;
  for (let c = codebook; c < end; ) {
    const stop = min(end, c + RUN * bytes);
    let m = f32x4.splat(Infinity);
    do {
      m = f32x4.pmin(m, laneDistances(V, c, x0, x1, x2, x3, x4, x5, x6, x7));
      c += bytes;
    } while (c < stop);
    // runs come in ascending order, so the larger number is the newer one
    where = i32x4.max_s(where, v128.and(f32x4.lt(m, least), i32x4.splat(run)));
    least = f32x4.pmin(least, m);
    run++;
  }
  v128.store(best, least);
  v128.store(best, where, 32);
}

/** `scan4` for eight vectors at once, V 2..4. */
// @ts-ignore: decorator
@inline
function scan8(V: i32, lanes: usize, codebook: usize, codewords: i32, best: usize): void {
  const x0 = v128.load(lanes), y0 = v128.load(lanes, 16);
  const x1 = v128.load(lanes, 32), y1 = v128.load(lanes, 48);
  let x2 = x0, x3 = x0, y2 = y0, y3 = y0;
  if (V > 2) { x2 = v128.load(lanes, 64); y2 = v128.load(lanes, 80); }
  if (V > 3) { x3 = v128.load(lanes, 96); y3 = v128.load(lanes, 112); }
  let leastX = f32x4.splat(Infinity), leastY = leastX;
  let whereX = i32x4.splat(0), whereY = whereX;
  const bytes = <usize>V << 2;
  const end = codebook + <usize>codewords * bytes;
  let run = 0;
  for (let p = codebook; p < end; ) {
    const stop = min(end, p + RUN * bytes);
    let m = f32x4.splat(Infinity), n = m;
    do {
      let c = v128.load_splat<f32>(p);
      let s = square(x0, c), t = square(y0, c);
      c = v128.load_splat<f32>(p, 4);
      s = accumulate(s, x1, c); t = accumulate(t, y1, c);
      if (V > 2) { c = v128.load_splat<f32>(p, 8); s = accumulate(s, x2, c); t = accumulate(t, y2, c); }
      if (V > 3) { c = v128.load_splat<f32>(p, 12); s = accumulate(s, x3, c); t = accumulate(t, y3, c); }
      m = f32x4.pmin(m, s);
      n = f32x4.pmin(n, t);
      p += bytes;
    } while (p < stop);
    const runs = i32x4.splat(run);
    whereX = i32x4.max_s(whereX, v128.and(f32x4.lt(m, leastX), runs));
    whereY = i32x4.max_s(whereY, v128.and(f32x4.lt(n, leastY), runs));
    leastX = f32x4.pmin(leastX, m);
    leastY = f32x4.pmin(leastY, n);
    run++;
  }
  v128.store(best, leastX);
  v128.store(best, leastY, 16);
  v128.store(best, whereX, 32);
  v128.store(best, whereY, 48);
}

/** `scan4` for any v. */
function scanAny(v: i32, lanes: usize, codebook: usize, codewords: i32, best: usize): void {
  let least = f32x4.splat(Infinity);
  let where = i32x4.splat(0);
  const bytes = <usize>v << 2;
  const end = codebook + <usize>codewords * bytes;
  let run = 0;
  for (let c = codebook; c < end; ) {
    const stop = min(end, c + RUN * bytes);
    let m = f32x4.splat(Infinity);
    do {
      let sum = square(v128.load(lanes), v128.load_splat<f32>(c));
      let x = lanes;
      const next = c + bytes;
      for (c += 4; c < next; c += 4) {
        x += 32;
        sum = accumulate(sum, v128.load(x), v128.load_splat<f32>(c));
      }
      m = f32x4.pmin(m, sum);
    } while (c < stop);
    where = i32x4.max_s(where, v128.and(f32x4.lt(m, least), i32x4.splat(run)));
    least = f32x4.pmin(least, m);
    run++;
  }
  v128.store(best, least);
  v128.store(best, where, 32);
}

/** First codeword of a run whose distance to x is `least`. */
// @ts-ignore: decorator
@inline
function resolve(V: i32, v: i32, x: usize, blocks: usize, run: i32, least: f32): i32 {
  const first = blocks + ((<usize>run * <usize>v) << 5);
  const target = f32x4.splat(least);
  const low = i32x4.bitmask(f32x4.eq(blockDistances(V, v, x, first), target));
  const high = i32x4.bitmask(f32x4.eq(blockDistances(V, v, x, first + (<usize>v << 4)), target));
  return (run << 3) + ctz(low | (high << 4));
}

/** Four vectors to four lanes of [v][8]. */
// @ts-ignore: decorator
@inline
export function toLanes(v: i32, a: usize, b: usize, c: usize, d: usize, lanes: usize): void {
  const bytes = <usize>v << 2;
  let t: usize = 0;
  for (; t + 16 <= bytes; t += 16) {
    const rowA = v128.load(a + t), rowB = v128.load(b + t), rowC = v128.load(c + t), rowD = v128.load(d + t);
    const lowAB = v128.shuffle<f32>(rowA, rowB, 0, 4, 1, 5), highAB = v128.shuffle<f32>(rowA, rowB, 2, 6, 3, 7);
    const lowCD = v128.shuffle<f32>(rowC, rowD, 0, 4, 1, 5), highCD = v128.shuffle<f32>(rowC, rowD, 2, 6, 3, 7);
    const to = lanes + (t << 3);
    v128.store(to, v128.shuffle<i64>(lowAB, lowCD, 0, 2));
    v128.store(to, v128.shuffle<i64>(lowAB, lowCD, 1, 3), 32);
    v128.store(to, v128.shuffle<i64>(highAB, highCD, 0, 2), 64);
    v128.store(to, v128.shuffle<i64>(highAB, highCD, 1, 3), 96);
  }
  for (; t < bytes; t += 4) {
    const to = lanes + (t << 3);
    store<f32>(to, load<f32>(a + t));
    store<f32>(to, load<f32>(b + t), 4);
    store<f32>(to, load<f32>(c + t), 8);
    store<f32>(to, load<f32>(d + t), 12);
  }
}

/**
 * Nearest codewords of `count` vectors that lie one after the other: indices i32 and distances f32 [count], the lowest index of
 * equals. `blocks` is the codebook in blocks of four; scratch as `searchScratch`.
 */
export function nearestRun(
  v: i32, vectors: usize, count: i32, codebook: usize, blocks: usize, codewords: i32,
  indices: usize, distances: usize, scratch: usize,
): void {
  if (v == 2) run(2, v, vectors, count, codebook, blocks, codewords, indices, distances, scratch);
  else if (v == 4) run(4, v, vectors, count, codebook, blocks, codewords, indices, distances, scratch);
  else if (v == 6) run(6, v, vectors, count, codebook, blocks, codewords, indices, distances, scratch);
  else if (v == 8) run(8, v, vectors, count, codebook, blocks, codewords, indices, distances, scratch);
  else run(0, v, vectors, count, codebook, blocks, codewords, indices, distances, scratch);
}

// @ts-ignore: decorator
@inline
function run(
  V: i32, v: i32, vectors: usize, count: i32, codebook: usize, blocks: usize, codewords: i32,
  indices: usize, distances: usize, scratch: usize,
): void {
  const lanes = scratch;
  const best = scratch + (<usize>v << 5);
  const bytes = <usize>v << 2;
  const last = vectors + <usize>(count - 1) * bytes;
  for (let at = 0; at < count; at += GROUP) {
    // the last vector fills the group up
    for (let half: usize = 0; half < 32; half += 16) {
      const a = vectors + half * <usize>v;
      toLanes(v, min(a, last), min(a + bytes, last), min(a + 2 * bytes, last), min(a + 3 * bytes, last), lanes + half);
    }
    const have = min(GROUP, count - at);
    if (V == 4 || V == 2) scan8(V, lanes, codebook, codewords, best);
    else {
      for (let half: usize = 0; half < <usize>(have > 4 ? 32 : 16); half += 16) {
        if (V == 0) scanAny(v, lanes + half, codebook, codewords, best + half);
        else scan4(V, lanes + half, codebook, codewords, best + half);
      }
    }
    for (let k = 0; k < have; k++) {
      const slot = best + (<usize>k << 2);
      const least = load<f32>(slot);
      const out = <usize>(at + k) << 2;
      if (least < Infinity) {
        store<i32>(indices + out, resolve(V, v, vectors, blocks, load<i32>(slot, 32), least));
        store<f32>(distances + out, least);
      } else {
        // nothing is nearer than infinity: the first codeword, however far
        store<i32>(indices + out, 0);
        store<f32>(distances + out, f32x4.extract_lane(blockDistances(V, v, vectors, blocks), 0));
      }
      vectors += bytes;
    }
  }
}
