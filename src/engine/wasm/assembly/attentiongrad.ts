import { float, int, pointer } from "./lib/job";
import { packColumns, packRows, tile4x8 } from "./lib/product";
import { addSlope, softmaxStep, UNSEEN } from "./lib/softmax";

// The gradient of causal attention. For a tile of queries of one head, all its scores come first (held transposed, [keys][8
// queries], as in attention.ts), then, block of keys by block of keys, with the probabilities p, the gradient g of the result
// and delta = g . result: dp = g v, ds = p (dp - delta) scale, dq += ds k, dk += ds^T q, dv += p^T g. Nothing is computed
// twice. A unit has sums of dk and dv of its own, in fixed order, that `addKeyGrads` adds up.

/** Keys in one step: ds and p of a tile (3 x 8 kB) stay in L1. */
const KEYS: i32 = 64;
/** Queries of a tile. */
const QUERIES: i32 = 32;
const PANELS: i32 = QUERIES / 8;

/** 8 rows (queries), missing ones as zeros, of `d` numbers into [d][8]. */
function packEight(source: usize, stride: usize, rows: i32, d: i32, target: usize): void {
  packRows(source, stride, min(4, rows), d, target, 32);
  if (rows > 4) packRows(source + 4 * stride, stride, min(4, rows - 4), d, target + 16, 32);
  else for (let i = 0; i < d; i++) v128.store(target + 16 + (<usize>i << 5), f32x4.splat(0));
}

/** delta[lane] = sum over i of a b, both [d][8]. */
function dotsOfEight(a: usize, b: usize, d: i32, target: usize): void {
  let low = f32x4.splat(0);
  let high = low;
  const end = a + (<usize>d << 5);
  for (; a < end; a += 32, b += 32) {
    low = f32x4.add(low, f32x4.mul(v128.load(a), v128.load(b)));
    high = f32x4.add(high, f32x4.mul(v128.load(a, 16), v128.load(b, 16)));
  }
  v128.store(target, low);
  v128.store(target, high, 16);
}

/**
 * p = e / sum and ds = p (dp - delta) scale of 4 keys and 8 queries: dp becomes ds, [4 keys][8 queries] both, and p and ds
 * also go, transposed, to [8 queries][4 keys].
 */
// @ts-ignore: decorator
@inline
function fourKeys(e: usize, dp: usize, inverse: usize, delta: usize, scale: v128, p: usize, ds: usize): void {
  for (let half: usize = 0; half < 32; half += 16) {
    const inverses = v128.load(inverse + half);
    const deltas = v128.load(delta + half);
    const p0 = f32x4.mul(v128.load(e + half), inverses);
    const p1 = f32x4.mul(v128.load(e + half, 32), inverses);
    const p2 = f32x4.mul(v128.load(e + half, 64), inverses);
    const p3 = f32x4.mul(v128.load(e + half, 96), inverses);
    const s0 = f32x4.mul(f32x4.mul(f32x4.sub(v128.load(dp + half), deltas), scale), p0);
    const s1 = f32x4.mul(f32x4.mul(f32x4.sub(v128.load(dp + half, 32), deltas), scale), p1);
    const s2 = f32x4.mul(f32x4.mul(f32x4.sub(v128.load(dp + half, 64), deltas), scale), p2);
    const s3 = f32x4.mul(f32x4.mul(f32x4.sub(v128.load(dp + half, 96), deltas), scale), p3);
    v128.store(dp + half, s0);
    v128.store(dp + half, s1, 32);
    v128.store(dp + half, s2, 64);
    v128.store(dp + half, s3, 96);
    storeTransposed(p0, p1, p2, p3, p + (half << 2));
    storeTransposed(s0, s1, s2, s3, ds + (half << 2));
  }
}

// @ts-ignore: decorator
@inline
function storeTransposed(a: v128, b: v128, c: v128, d: v128, target: usize): void {
  const lowAb = v128.shuffle<f32>(a, b, 0, 4, 1, 5);
  const lowCd = v128.shuffle<f32>(c, d, 0, 4, 1, 5);
  const highAb = v128.shuffle<f32>(a, b, 2, 6, 3, 7);
  const highCd = v128.shuffle<f32>(c, d, 2, 6, 3, 7);
  v128.store(target, v128.shuffle<f64>(lowAb, lowCd, 0, 2));
  v128.store(target, v128.shuffle<f64>(lowAb, lowCd, 1, 3), 16);
  v128.store(target, v128.shuffle<f64>(highAb, highCd, 0, 2), 32);
  v128.store(target, v128.shuffle<f64>(highAb, highCd, 1, 3), 48);
}

/**
 * Slots: 0 keys in panels of 4 keys, 1 keys in panels of 4 elements, 2 values in panels of 4 keys (see `packKeysValues`), 3 q,
 * 4 result, 5 its gradient, 6 gradient of q [B, T, H, d], 7 sums of the gradients of k and 8 of v [units][T4][d8], 9 T, 10 H,
 * 11 K, 12 d, 13 window, 14 scale (f32), 15 slopes [H] or 0, 16 chunks.
 * Units: for a key head (of all batches) every `chunks`-th tile of queries of the heads that share it, by chunk. Scratch:
 * 4 T4 * 32 for scores, 32 * (3 d + 2 d8) numbers for queries and gradients, 32 d4 for dq, 3 * 32 * 64 for p and ds, and 128.
 */
export function attendGrad(begin: i32, end: i32, args: usize, scratch: usize): void {
  const tokens = int(args, 9);
  const heads = int(args, 10);
  const keyHeads = int(args, 11);
  const d = int(args, 12);
  const chunks = int(args, 16);
  const padded = (tokens + 3) & ~3;
  const d4 = (d + 3) & ~3;
  const d8 = (d + 7) & ~7;
  const group = heads / keyHeads;
  const tiles = (tokens + QUERIES - 1) / QUERIES;
  const sumBytes = (<usize>padded * <usize>d8) << 2;
  for (let unit = begin; unit < end; unit++) {
    const keyHead = unit / chunks; // of all batches
    const batch = keyHead / keyHeads;
    const packed = <usize>keyHead * <usize>padded;
    const sumsOfK = pointer(args, 7) + <usize>unit * sumBytes;
    const sumsOfV = pointer(args, 8) + <usize>unit * sumBytes;
    memory.fill(sumsOfK, 0, sumBytes);
    memory.fill(sumsOfV, 0, sumBytes);
    const keyPanels = pointer(args, 0) + ((packed * <usize>d) << 2);
    const keyColumns = pointer(args, 1) + ((packed * <usize>d4) << 2);
    const valuePanels = pointer(args, 2) + ((packed * <usize>d) << 2);
    for (let tile = tiles - 1 - (unit % chunks); tile >= 0; tile -= chunks)
      for (let member = 0; member < group; member++) {
        const head = (keyHead % keyHeads) * group + member;
        tileGrad(args, batch, head, tile * QUERIES, keyPanels, keyColumns, valuePanels, sumsOfK, sumsOfV, scratch);
      }
  }
}

function tileGrad(
  args: usize,
  batch: i32,
  head: i32,
  firstQuery: i32,
  keyPanels: usize,
  keyColumns: usize,
  valuePanels: usize,
  sumsOfK: usize,
  sumsOfV: usize,
  scratch: usize,
): void {
  const tokens = int(args, 9);
  const heads = int(args, 10);
  const d = int(args, 12);
  const window = int(args, 13);
  const scale = f32x4.splat(float(args, 14));
  const slopes = pointer(args, 15);
  const one = f32x4.splat(1);
  const padded = (tokens + 3) & ~3;
  const d4 = (d + 3) & ~3;
  const d8 = (d + 7) & ~7;
  const stride = <usize>(heads * d) << 2; // of a token
  const origin = (<usize>((batch * tokens + firstQuery) * heads + head) * <usize>d) << 2;
  const count = min(QUERIES, tokens - firstQuery);
  const panels = (count + 7) >> 3;
  const panelBytes = <usize>d << 5;
  const scoreBytes = <usize>padded << 5; // of a panel
  const sumBytes = <usize>d4 << 5;

  const queries = scratch; // [4 panels][d][8]
  const grads = queries + PANELS * panelBytes;
  const results = grads + PANELS * panelBytes;
  const queryColumns = results + PANELS * panelBytes; // [d8 / 8][32][8]
  const gradColumns = queryColumns + ((QUERIES * <usize>d8) << 2);
  const sums = gradColumns + ((QUERIES * <usize>d8) << 2); // dq, [4 panels][d4][8]
  const states = sums + PANELS * sumBytes; // maxima, sums and then their inverses, delta: 24 numbers in 128 bytes
  const p = states + PANELS * 128; // [16][32 queries][4 keys]
  const dsTransposed = p + ((QUERIES * KEYS) << 2);
  const ds = dsTransposed + ((QUERIES * KEYS) << 2); // [4 panels][64 keys][8]
  const scores = ds + ((QUERIES * KEYS) << 2); // [4 panels][T4][8]

  memory.fill(sums, 0, PANELS * sumBytes);
  const whole = <usize>(panels << 3);
  if (<usize>count < whole) {
    // the columns of missing queries must be numbers
    memory.fill(queryColumns, 0, (QUERIES * <usize>d8) << 3);
  }
  packColumns(pointer(args, 3) + origin, stride, d, count, 8, queryColumns, QUERIES << 5, 0);
  packColumns(pointer(args, 5) + origin, stride, d, count, 8, gradColumns, QUERIES << 5, 0);
  for (let panel = 0; panel < panels; panel++) {
    const rows = min(8, count - panel * 8);
    const at = origin + <usize>(panel * 8) * stride;
    const offset = <usize>panel * panelBytes;
    packEight(pointer(args, 3) + at, stride, rows, d, queries + offset);
    packEight(pointer(args, 5) + at, stride, rows, d, grads + offset);
    packEight(pointer(args, 4) + at, stride, rows, d, results + offset);

    const state = states + (<usize>panel << 7);
    v128.store(state, f32x4.splat(UNSEEN));
    v128.store(state, f32x4.splat(UNSEEN), 16);
    v128.store(state, f32x4.splat(0), 32);
    v128.store(state, f32x4.splat(0), 48);
    dotsOfEight(grads + offset, results + offset, d, state + 64);
    const position = firstQuery + panel * 8;
    const low = lowOf(position, window);
    const high = highOf(position, tokens);
    const panelScores = scores + <usize>panel * scoreBytes + (<usize>low << 5);
    for (let key = low; key < high; key += 4) {
      const to = panelScores + (<usize>(key - low) << 5);
      tile4x8(d, keyPanels + ((<usize>key * <usize>d) << 2), queries + offset, to, 32, scale, true);
    }
    if (slopes) addSlope(panelScores, high - low, load<f32>(slopes + (<usize>head << 2)), low, position);
    softmaxStep(panelScores, high - low, state, 0, 0, true, low, position, window);
    v128.store(state, f32x4.div(one, v128.load(state, 32)), 32);
    v128.store(state, f32x4.div(one, v128.load(state, 48)), 48);
  }

  const last = highOf(firstQuery + (panels - 1) * 8, tokens);
  for (let block = lowOf(firstQuery, window); block < last; block += KEYS) {
    for (let panel = 0; panel < panels; panel++) {
      const position = firstQuery + panel * 8;
      const low = max(block, lowOf(position, window));
      const high = min(block + KEYS, highOf(position, tokens));
      if (low >= high) continue;
      const state = states + (<usize>panel << 7);
      const panelDs = ds + ((<usize>panel * KEYS) << 5) - (<usize>block << 5);
      for (let key = low; key < high; key += 4) {
        const dp = panelDs + (<usize>key << 5);
        const a = valuePanels + ((<usize>key * <usize>d) << 2);
        tile4x8(d, a, grads + <usize>panel * panelBytes, dp, 32, one, true);
        const transposed = ((<usize>(key - block) * QUERIES) << 2) + (<usize>panel << 7);
        const e = scores + <usize>panel * scoreBytes + (<usize>key << 5);
        fourKeys(e, dp, state + 32, state + 64, scale, p + transposed, dsTransposed + transposed);
      }
      for (let i = 0; i < d4; i += 4) {
        const a = keyColumns + ((<usize>i * <usize>padded) << 2) + (<usize>low << 4);
        const to = sums + <usize>panel * sumBytes + (<usize>i << 5);
        tile4x8(high - low, a, panelDs + (<usize>low << 5), to, 32, one, false);
      }
    }
    let first = 0; // panels that see the four keys
    let end = 0;
    for (let key = block; key < min(block + KEYS, last); key += 4) {
      while (first < panels && highOf(firstQuery + first * 8, tokens) <= key) first++;
      while (end < panels && lowOf(firstQuery + end * 8, window) <= key) end++;
      if (first >= end) continue;
      const depth = (end - first) * 8;
      const a = ((<usize>(key - block) * QUERIES) << 2) + (<usize>first << 7);
      const to = (<usize>key * <usize>d8) << 2;
      for (let i = 0; i < d8; i += 8) {
        const b = ((<usize>i * QUERIES) << 2) + (<usize>first << 8);
        const at = to + (<usize>i << 2);
        tile4x8(depth, p + a, gradColumns + b, sumsOfV + at, <usize>d8 << 2, one, false);
        tile4x8(depth, dsTransposed + a, queryColumns + b, sumsOfK + at, <usize>d8 << 2, one, false);
      }
    }
  }

  for (let query = 0; query < count; query++) {
    const source = sums + <usize>(query >> 3) * sumBytes + (<usize>(query & 7) << 2);
    const target = pointer(args, 6) + origin + <usize>query * stride;
    for (let i: usize = 0; i < <usize>d; i++) store<f32>(target + (i << 2), load<f32>(source + (i << 5)));
  }
}

/** The first key, rounded down to 4, that the query at `position` sees; from there on 8 queries do. */
// @ts-ignore: decorator
@inline
function lowOf(position: i32, window: i32): i32 {
  return max(0, position - window + 1) & ~3;
}

/** Behind the last key, rounded up to 4, that the 8 queries from `position` on see. */
// @ts-ignore: decorator
@inline
function highOf(position: i32, tokens: i32): i32 {
  return (min(position + 7, tokens - 1) + 4) & ~3;
}

/**
 * Gradients of k and v [B, T, K, d] from the sums of `chunks` units a head. Slots: 0 gradient of k, 1 of v, 2 sums of k, 3 of
 * v, 4 T, 5 K, 6 d, 7 chunks. Units: tokens of all batches.
 */
export function addKeyGrads(begin: i32, end: i32, args: usize, scratch: usize): void {
  const tokens = int(args, 4);
  const keyHeads = int(args, 5);
  const d = int(args, 6);
  const chunks = int(args, 7);
  const d8 = (d + 7) & ~7;
  const unitBytes = (<usize>((tokens + 3) & ~3) * <usize>d8) << 2;
  for (let token = begin; token < end; token++)
    for (let head = 0; head < keyHeads; head++) {
      const unit = <usize>(((token / tokens) * keyHeads + head) * chunks);
      const from = unit * unitBytes + ((<usize>(token % tokens) * <usize>d8) << 2);
      const to = (<usize>(token * keyHeads + head) * <usize>d) << 2;
      addUp(pointer(args, 2) + from, unitBytes, chunks, d, pointer(args, 0) + to);
      addUp(pointer(args, 3) + from, unitBytes, chunks, d, pointer(args, 1) + to);
    }
}

/** The sum of `count` vectors of `d` numbers, `stride` bytes apart. They may be read up to a multiple of 4. */
function addUp(source: usize, stride: usize, count: i32, d: i32, target: usize): void {
  const bytes = <usize>d << 2;
  for (let at: usize = 0; at < bytes; at += 16) {
    let sum = v128.load(source + at);
    for (let part = 1; part < count; part++) sum = f32x4.add(sum, v128.load(source + at + <usize>part * stride));
    if (at + 16 <= bytes) v128.store(target + at, sum);
    else {
      v128.store_lane<f32>(target + at, sum, 0);
      if (at + 8 <= bytes) v128.store_lane<f32>(target + at + 4, sum, 1);
      if (at + 12 <= bytes) v128.store_lane<f32>(target + at + 8, sum, 2);
    }
  }
}
