// The packed matrix product: A in panels of 4 rows ([m / 4][k][4]), B in panels of 8 columns ([n / 8][k][8]), both padded
// with zeros, so that the microkernel reads them in order and sees no edges.

import { madd } from "./simd";

export const ROWS: i32 = 4;
export const COLUMNS: i32 = 8;
/** Length of a block of k: its slice of a B panel (16 kB) stays in L1, of 32 A panels (256 kB) in L2. */
const DEPTH: i32 = 512;

/**
 * Up to 4 rows of `length` numbers, `stride` bytes apart, into target[i][row]; consecutive i are `step` bytes apart.
 * Rows from `rows` on are zeros.
 */
export function packRows(source: usize, stride: usize, rows: i32, length: i32, target: usize, step: usize): void {
  // missing rows repeat the first and are masked away
  const s0 = source;
  const s1 = rows > 1 ? source + stride : source;
  const s2 = rows > 2 ? source + 2 * stride : source;
  const s3 = rows > 3 ? source + 3 * stride : source;
  const mask = i32x4(-1, rows > 1 ? -1 : 0, rows > 2 ? -1 : 0, rows > 3 ? -1 : 0);
  const bytes = <usize>length << 2;
  let at: usize = 0;
  for (; at + 16 <= bytes; at += 16) {
    const r0 = v128.load(s0 + at);
    const r1 = v128.load(s1 + at);
    const r2 = v128.load(s2 + at);
    const r3 = v128.load(s3 + at);
    const low01 = v128.shuffle<f32>(r0, r1, 0, 4, 1, 5);
    const low23 = v128.shuffle<f32>(r2, r3, 0, 4, 1, 5);
    const high01 = v128.shuffle<f32>(r0, r1, 2, 6, 3, 7);
    const high23 = v128.shuffle<f32>(r2, r3, 2, 6, 3, 7);
    v128.store(target, v128.and(mask, v128.shuffle<f64>(low01, low23, 0, 2)));
    v128.store(target + step, v128.and(mask, v128.shuffle<f64>(low01, low23, 1, 3)));
    v128.store(target + 2 * step, v128.and(mask, v128.shuffle<f64>(high01, high23, 0, 2)));
    v128.store(target + 3 * step, v128.and(mask, v128.shuffle<f64>(high01, high23, 1, 3)));
    target += 4 * step;
  }
  for (; at < bytes; at += 4) {
    const column = f32x4(load<f32>(s0 + at), load<f32>(s1 + at), load<f32>(s2 + at), load<f32>(s3 + at));
    v128.store(target, v128.and(mask, column));
    target += step;
  }
}

/**
 * Columns [0, columns) of a matrix whose rows are `stride` bytes apart into panels of `width` (4 or 8) columns; panel p
 * begins at target + p * panelBytes. `weights`, when not 0, holds a factor for each row.
 */
export function packColumns(
  source: usize,
  stride: usize,
  columns: i32,
  length: i32,
  width: i32,
  target: usize,
  panelBytes: usize,
  weights: usize,
): void {
  const whole = columns / width;
  const rest = columns - whole * width;
  const step = <usize>width << 2;
  for (let i = 0; i < length; i++) {
    let from = source + <usize>i * stride;
    let to = target + <usize>i * step;
    const weight = weights ? load<f32>(weights + (<usize>i << 2)) : 1;
    const factor = f32x4.splat(weight);
    for (let panel = 0; panel < whole; panel++) {
      v128.store(to, f32x4.mul(v128.load(from), factor));
      if (width == 8) v128.store(to, f32x4.mul(v128.load(from, 16), factor), 16);
      from += step;
      to += panelBytes;
    }
    if (rest == 0) continue;
    for (let c = 0; c < width; c++)
      store<f32>(to + (<usize>c << 2), c < rest ? load<f32>(from + (<usize>c << 2)) * weight : 0);
  }
}

/**
 * Adds (or, when `fresh`, writes) alpha times the product of an A panel and a B panel over `depth` of k to the 4 x 8 tile
 * at `c`, whose rows are `stride` bytes apart.
 */
export function tile4x8(depth: i32, a: usize, b: usize, c: usize, stride: usize, alpha: v128, fresh: bool): void {
  let c00 = f32x4.splat(0);
  let c01 = c00;
  let c10 = c00;
  let c11 = c00;
  let c20 = c00;
  let c21 = c00;
  let c30 = c00;
  let c31 = c00;
  const end = a + (<usize>depth << 4);
  do {
    const b0 = v128.load(b);
    const b1 = v128.load(b, 16);
    let x = v128.load32_splat(a);
    c00 = madd(x, b0, c00);
    c01 = madd(x, b1, c01);
    x = v128.load32_splat(a, 4);
    c10 = madd(x, b0, c10);
    c11 = madd(x, b1, c11);
    x = v128.load32_splat(a, 8);
    c20 = madd(x, b0, c20);
    c21 = madd(x, b1, c21);
    x = v128.load32_splat(a, 12);
    c30 = madd(x, b0, c30);
    c31 = madd(x, b1, c31);
    a += 16;
    b += 32;
  } while (a < end);
  put(c, c00, c01, alpha, fresh);
  c += stride;
  put(c, c10, c11, alpha, fresh);
  c += stride;
  put(c, c20, c21, alpha, fresh);
  c += stride;
  put(c, c30, c31, alpha, fresh);
}

// @ts-ignore: decorator
@inline
function put(c: usize, low: v128, high: v128, alpha: v128, fresh: bool): void {
  low = f32x4.mul(low, alpha);
  high = f32x4.mul(high, alpha);
  if (!fresh) {
    low = f32x4.add(low, v128.load(c));
    high = f32x4.add(high, v128.load(c, 16));
  }
  v128.store(c, low);
  v128.store(c, high, 16);
}

/** Bytes of scratch that `multiplyPanels` needs. */
export const TILE_BYTES: usize = 128;

/**
 * Rows [row, rowEnd) and columns [column, columnEnd) of C [m, n] from packed panels, `row` and `column` at panel borders.
 * C is overwritten, or added to when `accumulate`. In column j, rows from about j + `diagonal` on may be left out: what lies
 * below the diagonal that many rows down.
 */
export function multiplyPanels(
  packedA: usize,
  packedB: usize,
  c: usize,
  stride: usize,
  k: i32,
  row: i32,
  rowEnd: i32,
  column: i32,
  columnEnd: i32,
  alpha: f32,
  accumulate: bool,
  diagonal: i32,
  scratch: usize,
): void {
  const factor = f32x4.splat(alpha);
  for (let from = 0; from < k; from += DEPTH) {
    const depth = min(DEPTH, k - from);
    const fresh = !accumulate && from == 0;
    for (let j = column; j < columnEnd; j += COLUMNS) {
      const b = packedB + ((<usize>j * <usize>k) << 2) + (<usize>from << 5);
      const width = min(COLUMNS, columnEnd - j);
      const last = min(rowEnd, j + COLUMNS + diagonal);
      for (let i = row; i < last; i += ROWS) {
        const a = packedA + ((<usize>i * <usize>k) << 2) + (<usize>from << 4);
        const target = c + <usize>i * stride + (<usize>j << 2);
        const height = min(ROWS, rowEnd - i);
        if (height == ROWS && width == COLUMNS) tile4x8(depth, a, b, target, stride, factor, fresh);
        else {
          tile4x8(depth, a, b, scratch, 32, factor, true);
          for (let r = 0; r < height; r++)
            for (let s = 0; s < width; s++) {
              const at = target + <usize>r * stride + (<usize>s << 2);
              const value = load<f32>(scratch + (<usize>(r * 8 + s) << 2));
              store<f32>(at, fresh ? value : value + load<f32>(at));
            }
        }
      }
    }
  }
}
