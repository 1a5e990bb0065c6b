import { float, int, pointer } from "./lib/job";
import { madd, sumLanes, sumLanes4 } from "./lib/simd";

// Products with few rows: one pass over B, no packing. They are bound by memory when m is 1 to 4 (token generation).

/** Rows of B that one unit of `dotRows` takes. */
const GROUP: i32 = 8;

/** One row times eight: the sums of a . b_j go to target[0..8). */
function dot1x8(a: usize, b: usize, stride: usize, bytes: usize, target: usize): void {
  const b4 = b + 4 * stride;
  const s2 = 2 * stride;
  const s3 = 3 * stride;
  let c0 = f32x4.splat(0);
  let c1 = c0;
  let c2 = c0;
  let c3 = c0;
  let c4 = c0;
  let c5 = c0;
  let c6 = c0;
  let c7 = c0;
  let at: usize = 0;
  for (; at + 16 <= bytes; at += 16) {
    const x = v128.load(a + at);
    const low = b + at;
    const high = b4 + at;
    c0 = madd(x, v128.load(low), c0);
    c1 = madd(x, v128.load(low + stride), c1);
    c2 = madd(x, v128.load(low + s2), c2);
    c3 = madd(x, v128.load(low + s3), c3);
    c4 = madd(x, v128.load(high), c4);
    c5 = madd(x, v128.load(high + stride), c5);
    c6 = madd(x, v128.load(high + s2), c6);
    c7 = madd(x, v128.load(high + s3), c7);
  }
  let first = sumLanes4(c0, c1, c2, c3);
  let second = sumLanes4(c4, c5, c6, c7);
  for (; at < bytes; at += 4) {
    const x = v128.load32_splat(a + at);
    const low = b + at;
    const high = b4 + at;
    const firsts = f32x4(load<f32>(low), load<f32>(low + stride), load<f32>(low + s2), load<f32>(low + s3));
    const seconds = f32x4(load<f32>(high), load<f32>(high + stride), load<f32>(high + s2), load<f32>(high + s3));
    first = madd(x, firsts, first);
    second = madd(x, seconds, second);
  }
  v128.store(target, first);
  v128.store(target, second, 16);
}

/** Four rows of A, `strideA` apart, times two of B: sums of row i and b_j at target[8 i + j]. */
function dot4x2(a: usize, strideA: usize, b: usize, stride: usize, bytes: usize, target: usize): void {
  const a1 = a + strideA;
  const a2 = a1 + strideA;
  const a3 = a2 + strideA;
  const b1 = b + stride;
  let c00 = f32x4.splat(0);
  let c01 = c00;
  let c10 = c00;
  let c11 = c00;
  let c20 = c00;
  let c21 = c00;
  let c30 = c00;
  let c31 = c00;
  let at: usize = 0;
  for (; at + 16 <= bytes; at += 16) {
    const y0 = v128.load(b + at);
    const y1 = v128.load(b1 + at);
    let x = v128.load(a + at);
    c00 = madd(x, y0, c00);
    c01 = madd(x, y1, c01);
    x = v128.load(a1 + at);
    c10 = madd(x, y0, c10);
    c11 = madd(x, y1, c11);
    x = v128.load(a2 + at);
    c20 = madd(x, y0, c20);
    c21 = madd(x, y1, c21);
    x = v128.load(a3 + at);
    c30 = madd(x, y0, c30);
    c31 = madd(x, y1, c31);
  }
  let first = sumLanes4(c00, c10, c20, c30);
  let second = sumLanes4(c01, c11, c21, c31);
  for (; at < bytes; at += 4) {
    const x = f32x4(load<f32>(a + at), load<f32>(a1 + at), load<f32>(a2 + at), load<f32>(a3 + at));
    first = madd(x, v128.load32_splat(b + at), first);
    second = madd(x, v128.load32_splat(b1 + at), second);
  }
  v128.store_lane<f32>(target, first, 0, 0);
  v128.store_lane<f32>(target, first, 1, 32);
  v128.store_lane<f32>(target, first, 2, 64);
  v128.store_lane<f32>(target, first, 3, 96);
  v128.store_lane<f32>(target, second, 0, 4);
  v128.store_lane<f32>(target, second, 1, 36);
  v128.store_lane<f32>(target, second, 2, 68);
  v128.store_lane<f32>(target, second, 3, 100);
}

function dot1x1(a: usize, b: usize, bytes: usize): f32 {
  let sum = f32x4.splat(0);
  let at: usize = 0;
  for (; at + 16 <= bytes; at += 16) sum = madd(v128.load(a + at), v128.load(b + at), sum);
  let total = f32x4.splat(sumLanes(sum));
  for (; at < bytes; at += 4) total = madd(v128.load32_zero(a + at), v128.load32_zero(b + at), total);
  return f32x4.extract_lane(total, 0);
}

// @ts-ignore: decorator
@inline
function put(at: usize, value: f32, accumulate: bool): void {
  store<f32>(at, accumulate ? load<f32>(at) + value : value);
}

/**
 * C [m, n] = alpha A B^T for rows that are k long and contiguous. Slots: 0 a, 1 its row stride, 2 b, 3 its row stride,
 * 4 c, 5 its row stride, 6 its column stride (all strides in bytes), 7 m, 8 n, 9 k, 10 alpha (f32), 11 accumulate.
 * Units: 8 rows of B. Scratch: 128 bytes.
 */
export function dotRows(begin: i32, end: i32, args: usize, scratch: usize): void {
  const a = pointer(args, 0);
  const strideA = pointer(args, 1);
  const strideB = pointer(args, 3);
  const rowStride = pointer(args, 5);
  const columnStride = pointer(args, 6);
  const m = int(args, 7);
  const n = int(args, 8);
  const bytes = <usize>int(args, 9) << 2;
  const alpha = float(args, 10);
  const accumulate = int(args, 11) != 0;
  for (let unit = begin; unit < end; unit++) {
    const first = unit * GROUP;
    const count = min(GROUP, n - first);
    const b = pointer(args, 2) + <usize>first * strideB;
    const c = pointer(args, 4) + <usize>first * columnStride;
    if (count < GROUP) {
      for (let i = 0; i < m; i++)
        for (let j = 0; j < count; j++) {
          const sum = dot1x1(a + <usize>i * strideA, b + <usize>j * strideB, bytes);
          put(c + <usize>i * rowStride + <usize>j * columnStride, alpha * sum, accumulate);
        }
      continue;
    }
    for (let i = 0; i < m; ) {
      const x = a + <usize>i * strideA;
      const rows = m - i >= 4 ? 4 : 1;
      if (rows == 4) {
        for (let j = 0; j < GROUP; j += 2)
          dot4x2(x, strideA, b + <usize>j * strideB, strideB, bytes, scratch + (<usize>j << 2));
      } else dot1x8(x, b, strideB, bytes, scratch);
      for (let r = 0; r < rows; r++) {
        const target = c + <usize>(i + r) * rowStride;
        for (let j = 0; j < GROUP; j++)
          put(target + <usize>j * columnStride, alpha * load<f32>(scratch + (<usize>(8 * r + j) << 2)), accumulate);
      }
      i += rows;
    }
  }
}

/** Columns of B that one unit of `combineRows` takes: runs of 1 kB, long enough for the machine to read ahead. */
const STRIP: i32 = 256;

/** sums[0..bytes) += a[0..4) times four rows of B. */
function combine4(a: usize, b: usize, stride: usize, bytes: usize, sums: usize): void {
  const b1 = b + stride;
  const b2 = b1 + stride;
  const b3 = b2 + stride;
  const x0 = v128.load32_splat(a);
  const x1 = v128.load32_splat(a, 4);
  const x2 = v128.load32_splat(a, 8);
  const x3 = v128.load32_splat(a, 12);
  let at: usize = 0;
  for (; at + 16 <= bytes; at += 16) {
    let sum = madd(x0, v128.load(b + at), v128.load(sums + at));
    sum = madd(x1, v128.load(b1 + at), sum);
    sum = madd(x2, v128.load(b2 + at), sum);
    v128.store(sums + at, madd(x3, v128.load(b3 + at), sum));
  }
  for (; at < bytes; at += 4) {
    let sum = madd(x0, v128.load32_zero(b + at), v128.load32_zero(sums + at));
    sum = madd(x1, v128.load32_zero(b1 + at), sum);
    sum = madd(x2, v128.load32_zero(b2 + at), sum);
    v128.store_lane<f32>(sums + at, madd(x3, v128.load32_zero(b3 + at), sum), 0);
  }
}

/** sums[0..bytes) += a[0] times one row of B. */
function combine1(a: usize, b: usize, bytes: usize, sums: usize): void {
  const x = v128.load32_splat(a);
  for (let at: usize = 0; at < bytes; at += 4)
    v128.store_lane<f32>(sums + at, madd(x, v128.load32_zero(b + at), v128.load32_zero(sums + at)), 0);
}

/**
 * C [m, n] = alpha A B for B [k, n]. Slots: as `dotRows`, without slot 6. Units: 256 columns of B. Scratch: 1024 m bytes.
 */
export function combineRows(begin: i32, end: i32, args: usize, scratch: usize): void {
  const strideA = pointer(args, 1);
  const strideB = pointer(args, 3);
  const m = int(args, 7);
  const k = int(args, 9);
  const alpha = float(args, 10);
  const accumulate = int(args, 11) != 0;
  for (let unit = begin; unit < end; unit++) {
    const first = unit * STRIP;
    const bytes = <usize>min(STRIP, int(args, 8) - first) << 2;
    const b = pointer(args, 2) + (<usize>first << 2);
    memory.fill(scratch, 0, <usize>m << 10);
    for (let row = 0; row < k; row += 4) {
      const from = b + <usize>row * strideB;
      for (let i = 0; i < m; i++) {
        const a = pointer(args, 0) + <usize>i * strideA + (<usize>row << 2);
        const sums = scratch + (<usize>i << 10);
        if (row + 4 <= k) combine4(a, from, strideB, bytes, sums);
        else for (let r: usize = 0; r < <usize>(k - row); r++) combine1(a + (r << 2), from + r * strideB, bytes, sums);
      }
    }
    for (let i = 0; i < m; i++) {
      const c = pointer(args, 4) + <usize>i * pointer(args, 5) + (<usize>first << 2);
      for (let j: usize = 0; j < bytes; j += 4) put(c + j, alpha * load<f32>(scratch + (<usize>i << 10) + j), accumulate);
    }
  }
}
