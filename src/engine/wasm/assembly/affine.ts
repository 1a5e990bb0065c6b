// The affine grid and the column sweep on it. A unit takes a slab of rows through all columns, as in sweep.ts.

import { f16Scale } from "./lib/f16";
import { int, pointer } from "./lib/job";
import { BLOCK, loadSlab, payOne, payTile, payWithin, TILE } from "./lib/feedback";

/**
 * `affineGrid`. Slots: weights [I, O], I, O, rows of a slab, group of each column i32 [I], groups, levels, symmetric, scale [G, O],
 * zero [G, O]. Units: slabs. Scratch: least and largest weights, 2 [G][rows].
 */
export function affineGrid(begin: i32, end: i32, args: usize, scratch: usize): void {
  const columns = int(args, 1);
  const O = int(args, 2);
  const slabRows = int(args, 3);
  const groups = int(args, 5);
  const bytes = <usize>slabRows << 2;
  const lows = scratch;
  const highs = lows + <usize>groups * bytes;
  for (let unit = begin; unit < end; unit++) {
    const first = unit * slabRows;
    const rows = <usize>min(slabRows, O - first);
    memory.fill(scratch, 0, 2 * <usize>groups * bytes);
    for (let i: usize = 0; i < <usize>columns; i++) {
      const group = <usize>load<i32>(pointer(args, 4) + (i << 2));
      const w = pointer(args, 0) + ((i * <usize>O + <usize>first) << 2);
      widen(w, lows + group * bytes, highs + group * bytes, rows);
    }
    for (let group: usize = 0; group < <usize>groups; group++) {
      const to = (group * <usize>O + <usize>first) << 2;
      const low = lows + group * bytes, high = highs + group * bytes;
      fit(low, high, rows, <f32>int(args, 6), int(args, 7), pointer(args, 8) + to, pointer(args, 9) + to);
    }
  }
}

/** low = min(low, w), high = max(high, w). */
function widen(w: usize, low: usize, high: usize, rows: usize): void {
  let at: usize = 0;
  for (; at + 16 <= rows << 2; at += 16) {
    const x = v128.load(w + at);
    v128.store(low + at, f32x4.min(v128.load(low + at), x));
    v128.store(high + at, f32x4.max(v128.load(high + at), x));
  }
  for (; at < rows << 2; at += 4) {
    const x = load<f32>(w + at);
    store<f32>(low + at, min(load<f32>(low + at), x));
    store<f32>(high + at, max(load<f32>(high + at), x));
  }
}

/** Scale and zero of each row from its least weight (at most 0) and its largest (at least 0). */
function fit(low: usize, high: usize, rows: usize, levels: f32, symmetric: i32, scale: usize, zero: usize): void {
  for (let at: usize = 0; at < rows << 2; at += 4) {
    const l = load<f32>(low + at);
    const h = load<f32>(high + at);
    const range: f32 = symmetric ? 2 * max(-l, h) : h - l;
    const step: f32 = range == 0 ? 1 : f16Scale(range / levels);
    store<f32>(scale + at, step);
    store<f32>(zero + at, symmetric ? (levels + 1) / 2 : min(levels, max<f32>(0, nearest(-l / step))));
  }
}

/**
 * `affineSweep`. Slots: weights [I, O], feedback [I, I] or 0, I, O, rows of a slab, group of each column i32 [I], groups, levels,
 * symmetric, 1 when the grid is given, scale [G, O], zero [G, O], codes u8 [I, O], quantized [I, O]. Units: slabs. Scratch:
 * `affineScratch` in ../affine.ts.
 */
export function affineSweep(begin: i32, end: i32, args: usize, scratch: usize): void {
  const feedback = pointer(args, 1);
  const columns = int(args, 2);
  const O = int(args, 3);
  const slabRows = int(args, 4);
  const groupOf = pointer(args, 5);
  const groups = int(args, 6);
  const given = int(args, 9);
  const padded = (slabRows + 7) & ~7;
  const bytes = <usize>padded << 2;
  const slab = scratch;
  const errors = slab + <usize>(columns + TILE) * bytes;
  const packed = errors + BLOCK * bytes;
  const scale = packed + (BLOCK * TILE) * 4;
  const zero = scale + bytes;
  const decoded = zero + bytes;
  const code = decoded + bytes;
  const paid = code + bytes; // columns whose errors a column has, i32 [I]
  const fitted = paid + (<usize>columns << 2); // u8 [G]
  const top = f32x4.splat(<f32>int(args, 7));
  for (let unit = begin; unit < end; unit++) {
    const first = unit * slabRows;
    const rows = min(slabRows, O - first);
    loadSlab(pointer(args, 0), O, columns, first, rows, slab, padded);
    memory.fill(fitted, <u8>given, groups);
    memory.fill(paid, 0, <usize>columns << 2);
    memory.fill(zero, 0, bytes);
    for (let r: usize = 0; r < bytes; r += 4) store<f32>(scale + r, 1);
    for (let s = 0; s < columns; s += BLOCK) {
      const e = min(columns, s + BLOCK);
      for (let i = s; i < e; i++) {
        const group = load<i32>(groupOf + (<usize>i << 2));
        const on = (<usize>group * <usize>O + <usize>first) << 2;
        if (load<u8>(fitted + group) == 0) {
          if (feedback) catchUp(args, slab, padded, errors, group, s, e, i, paid);
          fitGroup(args, slab, padded, group, rows, decoded, code, on);
          store<u8>(fitted + group, 1);
        }
        memory.copy(scale, pointer(args, 10) + on, <usize>rows << 2);
        memory.copy(zero, pointer(args, 11) + on, <usize>rows << 2);
        const x = slab + <usize>i * bytes;
        for (let r: usize = 0; r < bytes; r += 16) {
          const unit = v128.load(scale + r), origin = v128.load(zero + r);
          const place = f32x4.add(f32x4.nearest(f32x4.div(v128.load(x + r), unit)), origin);
          const whole = i32x4.trunc_sat_f32x4_s(f32x4.min(top, f32x4.max(f32x4.splat(0), place)));
          const q = f32x4.mul(f32x4.sub(f32x4.convert_i32x4_s(whole), origin), unit);
          v128.store(decoded + r, q);
          const narrow = i16x8.narrow_i32x4_s(whole, whole);
          v128.store32_lane(code + (r >> 2), i8x16.narrow_i16x8_u(narrow, narrow), 0);
        }
        const at = <usize>i * <usize>O + <usize>first;
        memory.copy(pointer(args, 12) + at, code, rows);
        memory.copy(pointer(args, 13) + (at << 2), decoded, <usize>rows << 2);
        if (feedback == 0) continue;
        const error = errors + <usize>(i - s) * bytes;
        for (let r: usize = 0; r < bytes; r += 16)
          v128.store(error + r, f32x4.sub(v128.load(x + r), v128.load(decoded + r)));
        const factors = feedback + (<usize>i * <usize>columns << 2);
        for (let j = i + 1; j < e; j++)
          payOne(slab + <usize>j * bytes, error, load<f32>(factors + (<usize>j << 2)), padded);
      }
      if (feedback) payBlock(slab, padded, errors, feedback, columns, s, e, paid, packed);
    }
    for (let group = 0; group < groups; group++)
      if (load<u8>(fitted + group) == 0)
        fitGroup(args, slab, padded, group, rows, decoded, code, (<usize>group * <usize>O + <usize>first) << 2);
  }
}

/** Pays to the columns of a group behind the block what columns [s, i) owe them, before their grid is taken. */
function catchUp(args: usize, slab: usize, padded: i32, errors: usize, group: i32, s: i32, e: i32, i: i32, paid: usize): void {
  const feedback = pointer(args, 1);
  const columns = int(args, 2);
  for (let j = e; j < columns; j++) {
    if (load<i32>(pointer(args, 5) + (<usize>j << 2)) != group) continue;
    payWithin(slab, padded, errors, feedback, columns, s, i, j, j + 1);
    store<i32>(paid + (<usize>j << 2), i);
  }
}

/** Grid of a group from its columns as they are; `low` and `high` are room for two rows of the slab. */
function fitGroup(args: usize, slab: usize, padded: i32, group: i32, rows: i32, low: usize, high: usize, on: usize): void {
  const bytes = <usize>padded << 2;
  memory.fill(low, 0, bytes);
  memory.fill(high, 0, bytes);
  const columns = int(args, 2);
  for (let j = 0; j < columns; j++)
    if (load<i32>(pointer(args, 5) + (<usize>j << 2)) == group) widen(slab + <usize>j * bytes, low, high, padded);
  fit(low, high, rows, <f32>int(args, 7), int(args, 8), pointer(args, 10) + on, pointer(args, 11) + on);
}

/** Pays to all columns behind the block [s, e) what they have not had of it. */
function payBlock(
  slab: usize, padded: i32, errors: usize, feedback: usize, columns: i32, s: i32, e: i32, paid: usize, packed: usize,
): void {
  const bytes = <usize>padded << 2;
  for (let j = e; j < columns; j += TILE) {
    const stop = min(columns, j + TILE);
    let whole = true;
    for (let k = j; k < stop; k++) if (load<i32>(paid + (<usize>k << 2)) > s) whole = false;
    if (whole) payTile(slab, padded, errors, feedback, columns, s, e, j, packed);
    else {
      for (let k = j; k < stop; k++) {
        const from = max(s, load<i32>(paid + (<usize>k << 2)));
        payWithin(slab, padded, errors + <usize>(from - s) * bytes, feedback, columns, from, e, k, k + 1);
      }
    }
  }
}
