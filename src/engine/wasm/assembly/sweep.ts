// The column sweeps over codebooks. Rows do not meet each other: a unit takes a slab of them through all columns, in a copy
// of its own that stays in the cache.

import { int, pointer } from "./lib/job";
import { BLOCK, loadSlab, payOne, payTile, TILE } from "./lib/feedback";
import { chooseStages, nextSegment, segmentEnd } from "./lib/stages";

/**
 * `vectorSweep`. Slots: weights [I, P], feedback [I, I] or 0, I, P, rows of a slab, segments (see lib/stages), most stages, beam,
 * quantized [I, P], compensated [I, P]. Units: slabs. Scratch: `sweepScratch` in ../sweep.ts.
 */
export function vectorSweep(begin: i32, end: i32, args: usize, scratch: usize): void {
  const weights = pointer(args, 0);
  const feedback = pointer(args, 1);
  const columns = int(args, 2);
  const P = int(args, 3);
  const slabRows = int(args, 4);
  const beam = int(args, 7);
  const padded = (slabRows + 7) & ~7;
  const bytes = <usize>padded << 2;
  const slab = scratch;
  const errors = slab + <usize>(columns + TILE) * bytes;
  const packed = errors + BLOCK * bytes;
  const decoded = packed + (BLOCK * TILE) * 4;
  const chosen = decoded + bytes;
  const work = chosen + <usize>int(args, 6) * bytes;
  for (let unit = begin; unit < end; unit++) {
    const first = unit * slabRows;
    const rows = min(slabRows, P - first);
    loadSlab(weights, P, columns, first, rows, slab, padded);
    memory.fill(decoded, 0, bytes);
    let segment = pointer(args, 5);
    for (let s = 0; s < columns; s += BLOCK) {
      const e = min(columns, s + BLOCK);
      for (let i = s; i < e; i++) {
        while (i >= segmentEnd(segment)) segment = nextSegment(segment);
        const x = slab + <usize>i * bytes;
        const count = rows / load<i32>(segment, 8);
        chooseStages(segment, beam, x, count, chosen, decoded, work);
        storeChosen(segment, i, P, first, count, chosen);
        const at = (<usize>i * <usize>P + <usize>first) << 2;
        memory.copy(pointer(args, 8) + at, decoded, <usize>rows << 2);
        memory.copy(pointer(args, 9) + at, x, <usize>rows << 2);
        if (feedback == 0) continue;
        const error = errors + <usize>(i - s) * bytes;
        for (let r: usize = 0; r < bytes; r += 16)
          v128.store(error + r, f32x4.sub(v128.load(x + r), v128.load(decoded + r)));
        const factors = feedback + (<usize>i * <usize>columns << 2);
        for (let j = i + 1; j < e; j++)
          payOne(slab + <usize>j * bytes, error, load<f32>(factors + (<usize>j << 2)), padded);
      }
      if (feedback == 0) continue;
      for (let j = e; j < columns; j += TILE) payTile(slab, padded, errors, feedback, columns, s, e, j, packed);
    }
  }
}

/** The chosen codewords of column i to the segment's indices [end - begin, P / v]. */
function storeChosen(segment: usize, i: i32, P: i32, first: i32, count: i32, chosen: usize): void {
  const v = load<i32>(segment, 8);
  const at = <usize>(i - load<i32>(segment)) * <usize>(P / v) + <usize>(first / v);
  for (let s = 0; s < load<i32>(segment, 12); s++) {
    const indices = load<usize>(segment + 16 + (<usize>s << 4), 12);
    memory.copy(indices + (at << 2), chosen + (<usize>(s * count) << 2), <usize>count << 2);
  }
}

/** Terms of H E that a tile adds at a time. */
const TERMS: i32 = 128;

/**
 * `coordinateSweep`. Slots: weights [I, P], hessian [I, I], I, P, rows of a slab, segments (their indices are changed in
 * place), most stages, beam, quantized [I, P] (in place). Units: slabs. Scratch: `coordinateScratch` in ../sweep.ts.
 */
export function coordinateSweep(begin: i32, end: i32, args: usize, scratch: usize): void {
  const weights = pointer(args, 0);
  const hessian = pointer(args, 1);
  const columns = int(args, 2);
  const P = int(args, 3);
  const slabRows = int(args, 4);
  const beam = int(args, 7);
  const quantized = pointer(args, 8);
  const padded = (slabRows + 7) & ~7;
  const bytes = <usize>padded << 3;
  const error = scratch; // E, f64 [I][padded]
  const gradient = error + <usize>columns * bytes; // H E of the block, f64 [BLOCK][padded]
  const packed = gradient + BLOCK * bytes; // f64 [TERMS][4]
  const change = packed + TERMS * 32; // of E_i, f64
  const wanted = change + bytes;
  const decoded = wanted + (bytes >> 1);
  const chosen = decoded + (bytes >> 1);
  const work = chosen + <usize>int(args, 6) * (bytes >> 1);
  memory.fill(wanted, 0, bytes >> 1);
  for (let unit = begin; unit < end; unit++) {
    const first = unit * slabRows;
    const rows = min(slabRows, P - first);
    memory.fill(error, 0, <usize>columns * bytes);
    for (let i = 0; i < columns; i++) {
      const at = (<usize>i * <usize>P + <usize>first) << 2;
      const to = error + <usize>i * bytes;
      for (let r: usize = 0; r < <usize>rows; r++) {
        const e = load<f32>(weights + at + (r << 2)) - load<f32>(quantized + at + (r << 2));
        store<f64>(to + (r << 3), <f64>e);
      }
    }
    let segment = pointer(args, 5);
    for (let s = 0; s < columns; s += BLOCK) {
      const e = min(columns, s + BLOCK);
      blockGradient(hessian, columns, s, e, error, padded, gradient, packed);
      for (let i = s; i < e; i++) {
        while (i >= segmentEnd(segment)) segment = nextSegment(segment);
        const curvature = load<f32>(hessian + ((<usize>i * <usize>columns + <usize>i) << 2));
        if (!(curvature > 0)) continue;
        const at = (<usize>i * <usize>P + <usize>first) << 2;
        const now = quantized + at;
        const g = gradient + <usize>(i - s) * bytes;
        for (let r: usize = 0; r < <usize>rows; r++)
          store<f32>(
            wanted + (r << 2),
            load<f32>(now + (r << 2)) + <f32>(load<f64>(g + (r << 3)) / <f64>curvature),
          );
        const v = load<i32>(segment, 8);
        const count = rows / v;
        chooseStages(segment, beam, wanted, count, chosen, decoded, work);
        if (!adopt(segment, i, P, first, count, chosen, wanted, decoded, now, weights + at, error + <usize>i * bytes, change, bytes))
          continue;
        for (let j = i + 1; j < e; j++) {
          const h = f64x2.splat(<f64>load<f32>(hessian + ((<usize>j * <usize>columns + <usize>i) << 2)));
          const to = gradient + <usize>(j - s) * bytes;
          for (let r: usize = 0; r < bytes; r += 16)
            v128.store(to + r, f64x2.add(v128.load(to + r), f64x2.mul(h, v128.load(change + r))));
        }
      }
    }
  }
}

/** Takes the choices that are strictly nearer than what is there; false when there is none. `change` gets that of the error. */
function adopt(
  segment: usize, i: i32, P: i32, first: i32, count: i32, chosen: usize, wanted: usize, decoded: usize,
  now: usize, weights: usize, error: usize, change: usize, bytes: usize,
): bool {
  const v = <usize>load<i32>(segment, 8);
  const at = <usize>(i - load<i32>(segment)) * <usize>(P / <i32>v) + <usize>(first / <i32>v);
  let any = false;
  memory.fill(change, 0, bytes);
  for (let k: usize = 0; k < <usize>count; k++) {
    const from = k * v;
    const there = distance(wanted + (from << 2), now + (from << 2), v);
    if (!(distance(wanted + (from << 2), decoded + (from << 2), v) < there)) continue;
    any = true;
    for (let r = from; r < from + v; r++) {
      const q = load<f32>(decoded + (r << 2));
      store<f32>(now + (r << 2), q);
      const after = <f64>(load<f32>(weights + (r << 2)) - q);
      store<f64>(change + (r << 3), after - load<f64>(error + (r << 3)));
      store<f64>(error + (r << 3), after);
    }
    for (let s: usize = 0; s < <usize>load<i32>(segment, 12); s++) {
      const indices = load<usize>(segment + 16 + (s << 4), 12);
      store<i32>(indices + ((at + k) << 2), load<i32>(chosen + ((s * <usize>count + k) << 2)));
    }
  }
  return any;
}

// @ts-ignore: decorator
@inline
function distance(x: usize, c: usize, v: usize): f32 {
  let sum: f32 = 0;
  for (let t: usize = 0; t < v << 2; t += 4) {
    const d = load<f32>(x + t) - load<f32>(c + t);
    sum += d * d;
  }
  return sum;
}

/** Rows [s, e) of H E, f64, terms in order. */
function blockGradient(hessian: usize, columns: i32, s: i32, e: i32, error: usize, padded: i32, gradient: usize, packed: usize): void {
  const bytes = <usize>padded << 3;
  memory.fill(gradient, 0, BLOCK * bytes);
  for (let from = 0; from < columns; from += TERMS) {
    const to = min(columns, from + TERMS);
    const stop = packed + (<usize>(to - from) << 5);
    for (let i = s; i < e; i += 4) {
      for (let k = 0; k < 4; k++) {
        // a block's last rows may be missing: the gradient has room for what the first of them then give again
        const row = hessian + (<usize>(i + k < e ? i + k : i) * <usize>columns << 2);
        for (let j = from; j < to; j++)
          store<f64>(packed + (<usize>(j - from) << 5) + (<usize>k << 3), <f64>load<f32>(row + (<usize>j << 2)));
      }
      for (let r: usize = 0; r < bytes; r += 32)
        fourGradients(gradient + <usize>(i - s) * bytes + r, bytes, error + <usize>from * bytes + r, packed, stop);
    }
  }
}

/** Four rows of H by four rows of the slab in registers. */
// @ts-ignore: decorator
@inline
function fourGradients(g0: usize, bytes: usize, error: usize, packed: usize, stop: usize): void {
  const g1 = g0 + bytes, g2 = g1 + bytes, g3 = g2 + bytes;
  let a0 = v128.load(g0), b0 = v128.load(g0, 16);
  let a1 = v128.load(g1), b1 = v128.load(g1, 16);
  let a2 = v128.load(g2), b2 = v128.load(g2, 16);
  let a3 = v128.load(g3), b3 = v128.load(g3, 16);
  for (; packed < stop; packed += 32) {
    const x = v128.load(error), y = v128.load(error, 16);
    let h = v128.load_splat<f64>(packed);
    a0 = f64x2.add(a0, f64x2.mul(h, x));
    b0 = f64x2.add(b0, f64x2.mul(h, y));
    h = v128.load_splat<f64>(packed, 8);
    a1 = f64x2.add(a1, f64x2.mul(h, x));
    b1 = f64x2.add(b1, f64x2.mul(h, y));
    h = v128.load_splat<f64>(packed, 16);
    a2 = f64x2.add(a2, f64x2.mul(h, x));
    b2 = f64x2.add(b2, f64x2.mul(h, y));
    h = v128.load_splat<f64>(packed, 24);
    a3 = f64x2.add(a3, f64x2.mul(h, x));
    b3 = f64x2.add(b3, f64x2.mul(h, y));
    error += bytes;
  }
  v128.store(g0, a0);
  v128.store(g0, b0, 16);
  v128.store(g1, a1);
  v128.store(g1, b1, 16);
  v128.store(g2, a2);
  v128.store(g2, b2, 16);
  v128.store(g3, a3);
  v128.store(g3, b3, 16);
}
