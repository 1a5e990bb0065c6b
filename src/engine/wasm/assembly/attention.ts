import { exp4 } from "./lib/exp";
import { float, int, pointer } from "./lib/job";
import { packColumns, packRows, tile4x8 } from "./lib/product";
import { largest } from "./lib/rows";
import { madd, sumLanes4 } from "./lib/simd";
import { addSlope, softmaxStep, UNSEEN } from "./lib/softmax";

// Causal attention with an online softmax (FlashAttention, arXiv:2205.14135). Everything is held transposed: scores are
// [keys][8 queries], so that maximum, exp and sum run down columns without a shuffle, and the probabilities are at once
// the B panel of the second product. Keys are packed in panels of 4 ([L / 4][d][4]), values in panels of 4 of their
// elements ([d / 4][L][4]).

/** Keys in one step of the online softmax: their scores (8 kB) stay in L1. */
const KEYS: i32 = 256;
/** Queries of one head in a unit of `attendTiles`. */
const QUERIES: i32 = 32;
/** Keys that one unit of `packKeysValues` packs. */
const PACK: i32 = 64;

/**
 * Slots: 0 packed keys, 1 packed values or 0: none, 2 k, 3 v [B, S, K, d], 4 S, 5 K, 6 d, 7 L: valid keys. One packed head
 * has L4 * d and L4 * d4 numbers (rounded up to 4). Units: 64 keys of a head, heads of all batches in a row.
 */
export function packKeysValues(begin: i32, end: i32, args: usize, scratch: usize): void {
  const capacity = int(args, 4);
  const heads = int(args, 5);
  const d = int(args, 6);
  const length = int(args, 7);
  const padded = (length + 3) & ~3;
  const stride = <usize>(heads * d) << 2;
  const chunks = (length + PACK - 1) / PACK;
  for (let unit = begin; unit < end; unit++) {
    const head = unit / chunks; // of all batches
    const first = (unit % chunks) * PACK;
    const last = min(first + PACK, length);
    const origin = (<usize>(((head / heads) * capacity + first) * heads + (head % heads)) * <usize>d) << 2;
    const keys = pointer(args, 0) + ((<usize>head * <usize>padded * <usize>d) << 2);
    for (let key = first; key < last; key += 4) {
      const source = pointer(args, 2) + origin + <usize>(key - first) * stride;
      packRows(source, stride, min(4, last - key), d, keys + ((<usize>key * <usize>d) << 2), 16);
    }
    if (pointer(args, 1) == 0) continue;
    const panels = (d + 3) >> 2;
    const panelBytes = <usize>padded << 4;
    const values = pointer(args, 1) + <usize>(head * panels) * panelBytes + (<usize>first << 4);
    packColumns(pointer(args, 3) + origin, stride, d, last - first, 4, values, panelBytes, 0);
    if (last == length)
      for (let panel = 0; panel < panels; panel++)
        memory.fill(values + <usize>panel * panelBytes + (<usize>(last - first) << 4), 0, <usize>(padded - last) << 4);
  }
}

/**
 * Slots: 0 packed keys, 1 packed values, 2 q, 3 target [B, T, H, d], 4 T, 5 H, 6 K, 7 d, 8 L, 9 window (L + 1 for none),
 * 10 scale (f32), 11 slopes [H] or 0. Units: 32 queries of the heads that share a key head; the last, longest ones come first.
 * Scratch: 8192 + panels * (64 + 32 d + 32 d4) bytes, panels = 4 H / K.
 */
export function attendTiles(begin: i32, end: i32, args: usize, scratch: usize): void {
  const tokens = int(args, 4);
  const heads = int(args, 5);
  const keyHeads = int(args, 6);
  const d = int(args, 7);
  const length = int(args, 8);
  const window = int(args, 9);
  const scale = f32x4.splat(float(args, 10));
  const slopes = pointer(args, 11);
  const one = f32x4.splat(1);
  const padded = (length + 3) & ~3;
  const d4 = (d + 3) & ~3;
  const tiles = (tokens + QUERIES - 1) / QUERIES;
  const group = heads / keyHeads;
  const panelsOfHead = QUERIES / 8;
  const panels = panelsOfHead * group;
  const queryBytes = <usize>d << 5;
  const sumBytes = <usize>d4 << 5;
  const scores = scratch;
  const states = scores + (<usize>KEYS << 5);
  const queries = states + (<usize>panels << 6);
  const sums = queries + <usize>panels * queryBytes;
  const strideOfToken = <usize>(heads * d) << 2;

  for (let unit = begin; unit < end; unit++) {
    const keyHead = unit / tiles; // of all batches
    const batch = keyHead / keyHeads;
    const firstQuery = (tiles - 1 - (unit % tiles)) * QUERIES;
    const keys = pointer(args, 0) + ((<usize>keyHead * <usize>padded * <usize>d) << 2);
    const values = pointer(args, 1) + ((<usize>keyHead * <usize>padded * <usize>d4) << 2);

    for (let panel = 0; panel < panels; panel++) {
      const head = (keyHead % keyHeads) * group + panel / panelsOfHead;
      const query = firstQuery + (panel % panelsOfHead) * 8;
      const source = pointer(args, 2) + ((<usize>((batch * tokens + query) * heads + head) * <usize>d) << 2);
      const target = queries + <usize>panel * queryBytes;
      if (query + 4 <= tokens) packRows(source, strideOfToken, 4, d, target, 32);
      else if (query < tokens) packRows(source, strideOfToken, tokens - query, d, target, 32);
      if (query + 4 < tokens)
        packRows(source + 4 * strideOfToken, strideOfToken, min(4, tokens - query - 4), d, target + 16, 32);
      else for (let i = 0; i < d; i++) v128.store(target + 16 + (<usize>i << 5), f32x4.splat(0));
      const state = states + (<usize>panel << 6);
      v128.store(state, f32x4.splat(UNSEEN));
      v128.store(state, f32x4.splat(UNSEEN), 16);
      v128.store(state, f32x4.splat(0), 32);
      v128.store(state, f32x4.splat(0), 48);
    }
    memory.fill(sums, 0, <usize>panels * sumBytes);

    const earliest = max(0, length - tokens + firstQuery - window + 1);
    const latest = min(length, length - tokens + firstQuery + QUERIES);
    for (let block = (earliest / KEYS) * KEYS; block < latest; block += KEYS) {
      for (let panel = 0; panel < panels; panel++) {
        const query = firstQuery + (panel % panelsOfHead) * 8;
        if (query >= tokens) continue;
        const position = length - tokens + query; // of the first of the 8
        const last = min(position + 7, length - 1);
        const low = max(block, max(0, position - window + 1) & ~3);
        const high = min(block + KEYS, (last + 4) & ~3);
        if (low >= high) continue;
        const packed = queries + <usize>panel * queryBytes;
        const target = sums + <usize>panel * sumBytes;
        for (let key = low; key < high; key += 4) {
          const a = keys + ((<usize>key * <usize>d) << 2);
          tile4x8(d, a, packed, scores + (<usize>(key - low) << 5), 32, scale, true);
        }
        if (slopes) {
          const head = (keyHead % keyHeads) * group + panel / panelsOfHead;
          addSlope(scores, high - low, load<f32>(slopes + (<usize>head << 2)), low, position);
        }
        const masked = high > position + 1 || low < last - window + 1;
        softmaxStep(scores, high - low, states + (<usize>panel << 6), target, d, masked, low, position, window);
        for (let i = 0; i < d4; i += 4) {
          const a = values + ((<usize>i * <usize>padded) << 2) + (<usize>low << 4);
          tile4x8(high - low, a, scores, target + (<usize>i << 5), 32, one, false);
        }
      }
    }

    for (let panel = 0; panel < panels; panel++) {
      const head = (keyHead % keyHeads) * group + panel / panelsOfHead;
      const query = firstQuery + (panel % panelsOfHead) * 8;
      const state = states + (<usize>panel << 6);
      const source = sums + <usize>panel * sumBytes;
      for (let lane = 0; lane < min(8, tokens - query); lane++) {
        const inverse = <f32>1 / load<f32>(state + 32 + (<usize>lane << 2));
        const target = pointer(args, 3) + ((<usize>((batch * tokens + query + lane) * heads + head) * <usize>d) << 2);
        for (let i: usize = 0; i < <usize>d; i++)
          store<f32>(target + (i << 2), load<f32>(source + (i << 5) + (<usize>lane << 2)) * inverse);
      }
    }
  }
}

/** exp(x_i - offset) in place; returns the sum. */
function expInPlace(x: usize, size: i32, offset: f32): f32 {
  const end = x + (<usize>size << 2);
  const offsets = f32x4.splat(offset);
  let sum = f32x4.splat(0);
  for (; x + 16 <= end; x += 16) {
    const e = exp4(f32x4.sub(v128.load(x), offsets));
    v128.store(x, e);
    sum = f32x4.add(sum, e);
  }
  for (; x < end; x += 4) {
    const e = v128.and(exp4(f32x4.sub(v128.load32_splat(x), offsets)), i32x4(-1, 0, 0, 0));
    v128.store_lane<f32>(x, e, 0);
    sum = f32x4.add(sum, e);
  }
  return f32x4.extract_lane(sum, 0) + f32x4.extract_lane(sum, 1) + (f32x4.extract_lane(sum, 2) + f32x4.extract_lane(sum, 3));
}

/**
 * For few queries (token generation): one query at a time, keys and values as they lie in memory. Slots: 0 k, 1 v,
 * 2 q, 3 target, 4 T, 5 H, 6 K, 7 d, 8 L, 9 window, 10 scale (f32), 11 S, 12 slopes [H] or 0. Units: key heads of all batches.
 * Scratch: 4 L + 16 bytes.
 */
export function attendRows(begin: i32, end: i32, args: usize, scratch: usize): void {
  const tokens = int(args, 4);
  const heads = int(args, 5);
  const keyHeads = int(args, 6);
  const d = <usize>int(args, 7) << 2; // bytes
  const length = int(args, 8);
  const group = heads / keyHeads;
  const stride = <usize>keyHeads * d;
  const scale = float(args, 10);
  const slopes = pointer(args, 12);
  for (let unit = begin; unit < end; unit++) {
    const batch = unit / keyHeads;
    const origin = <usize>(batch * int(args, 11) * keyHeads + (unit % keyHeads)) * d;
    for (let row = 0; row < tokens * group; row++) {
      const token = row / group;
      const head = (unit % keyHeads) * group + (row % group);
      const offset = <usize>((batch * tokens + token) * heads + head) * d;
      const query = pointer(args, 2) + offset;
      const position = length - tokens + token;
      const first = max(0, position - int(args, 9) + 1);
      const count = position + 1 - first;
      const keys = pointer(args, 0) + origin + <usize>first * stride;
      scoreKeys(query, keys, stride, d, count, scale, scratch);
      if (slopes) {
        const slope = load<f32>(slopes + (<usize>head << 2));
        for (let j = 0; j < count; j++) {
          const at = scratch + (<usize>j << 2);
          store<f32>(at, load<f32>(at) + slope * <f32>(j + 1 - count)); // the last key stands at the query's position
        }
      }
      const total = expInPlace(scratch, count, largest(scratch, count));
      const values = pointer(args, 1) + origin + <usize>first * stride;
      mixValues(scratch, values, stride, d, count, 1 / total, pointer(args, 3) + offset);
    }
  }
}

/** scores[j] = scale * query . key_j, four keys at a time. `scores` has room for a multiple of 4. */
function scoreKeys(query: usize, keys: usize, stride: usize, d: usize, count: i32, scale: f32, scores: usize): void {
  const scales = f32x4.splat(scale);
  for (let j = 0; j < count; j += 4) {
    const k0 = keys + <usize>j * stride;
    // past the end the last key stands in; its score is written where nobody looks
    const k1 = keys + <usize>min(j + 1, count - 1) * stride;
    const k2 = keys + <usize>min(j + 2, count - 1) * stride;
    const k3 = keys + <usize>min(j + 3, count - 1) * stride;
    let s0 = f32x4.splat(0);
    let s1 = s0;
    let s2 = s0;
    let s3 = s0;
    let at: usize = 0;
    for (; at + 16 <= d; at += 16) {
      const x = v128.load(query + at);
      s0 = madd(x, v128.load(k0 + at), s0);
      s1 = madd(x, v128.load(k1 + at), s1);
      s2 = madd(x, v128.load(k2 + at), s2);
      s3 = madd(x, v128.load(k3 + at), s3);
    }
    let sum = sumLanes4(s0, s1, s2, s3);
    for (; at < d; at += 4) {
      const y = f32x4(load<f32>(k0 + at), load<f32>(k1 + at), load<f32>(k2 + at), load<f32>(k3 + at));
      sum = madd(v128.load32_splat(query + at), y, sum);
    }
    v128.store(scores + (<usize>j << 2), f32x4.mul(sum, scales));
  }
}

/** target = factor * sum of weights[j] * value_j, 16 elements of the values at a time. */
function mixValues(weights: usize, values: usize, stride: usize, d: usize, count: i32, factor: f32, target: usize): void {
  const factors = f32x4.splat(factor);
  let at: usize = 0;
  for (; at + 64 <= d; at += 64) {
    let s0 = f32x4.splat(0);
    let s1 = s0;
    let s2 = s0;
    let s3 = s0;
    let from = values + at;
    for (let j = 0; j < count; j++) {
      const w = v128.load32_splat(weights + (<usize>j << 2));
      s0 = madd(w, v128.load(from), s0);
      s1 = madd(w, v128.load(from, 16), s1);
      s2 = madd(w, v128.load(from, 32), s2);
      s3 = madd(w, v128.load(from, 48), s3);
      from += stride;
    }
    v128.store(target + at, f32x4.mul(s0, factors));
    v128.store(target + at, f32x4.mul(s1, factors), 16);
    v128.store(target + at, f32x4.mul(s2, factors), 32);
    v128.store(target + at, f32x4.mul(s3, factors), 48);
  }
  for (; at < d; at += 4) {
    let sum = f32x4.splat(0);
    let from = values + at;
    for (let j = 0; j < count; j++) {
      sum = madd(v128.load32_zero(weights + (<usize>j << 2)), v128.load32_zero(from), sum);
      from += stride;
    }
    v128.store_lane<f32>(target + at, f32x4.mul(sum, factors), 0);
  }
}
