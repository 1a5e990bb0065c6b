import { int, pointer } from "./lib/job";

/** Elements of one partial result of `dot` and `allFinite`. */
const BLOCK: i32 = 4096;

/** partial[unit] = sum of a_i b_i over a block of 4096, in f64. Slots: 0 partial (f64), 1 a, 2 b, 3 size. */
export function dot(begin: i32, end: i32, args: usize, scratch: usize): void {
  const a = pointer(args, 1);
  const b = pointer(args, 2);
  for (let unit = begin; unit < end; unit++) {
    const last = <usize>min((unit + 1) * BLOCK, int(args, 3)) << 2;
    let at = <usize>(unit * BLOCK) << 2;
    let sum0 = f64x2.splat(0);
    let sum1 = f64x2.splat(0);
    for (; at + 16 <= last; at += 16) {
      const x = v128.load(a + at);
      const y = v128.load(b + at);
      sum0 = f64x2.add(sum0, f64x2.mul(f64x2.promote_low_f32x4(x), f64x2.promote_low_f32x4(y)));
      const highX = f64x2.promote_low_f32x4(v128.shuffle<f32>(x, x, 2, 3, 2, 3));
      const highY = f64x2.promote_low_f32x4(v128.shuffle<f32>(y, y, 2, 3, 2, 3));
      sum1 = f64x2.add(sum1, f64x2.mul(highX, highY));
    }
    const pair = f64x2.add(sum0, sum1);
    let sum = f64x2.extract_lane(pair, 0) + f64x2.extract_lane(pair, 1);
    for (; at < last; at += 4) sum += <f64>load<f32>(a + at) * <f64>load<f32>(b + at);
    store<f64>(pointer(args, 0) + (<usize>unit << 3), sum);
  }
}

/** partial[unit] = 1 when all of a block of 4096 are finite, else 0. Slots: 0 partial (i32), 1 a, 2 size. */
export function allFinite(begin: i32, end: i32, args: usize, scratch: usize): void {
  const a = pointer(args, 1);
  for (let unit = begin; unit < end; unit++) {
    const last = <usize>min((unit + 1) * BLOCK, int(args, 2)) << 2;
    let at = <usize>(unit * BLOCK) << 2;
    // x - x is 0 for a finite x and NaN otherwise; NaN stays in the sum
    let sum = f32x4.splat(0);
    for (; at + 16 <= last; at += 16) {
      const x = v128.load(a + at);
      sum = f32x4.add(sum, f32x4.sub(x, x));
    }
    for (; at < last; at += 4) {
      const x = v128.load32_zero(a + at);
      sum = f32x4.add(sum, f32x4.sub(x, x));
    }
    const finite = i32x4.all_true(f32x4.eq(sum, sum));
    store<i32>(pointer(args, 0) + (<usize>unit << 2), finite ? 1 : 0);
  }
}

/** Index of the first largest element of each row; NaN is never the largest. Slots: 0 target, 1 a, 2 width. Units: rows. */
export function argmax(begin: i32, end: i32, args: usize, scratch: usize): void {
  const width = int(args, 2);
  const bytes = <usize>width << 2;
  for (let row = begin; row < end; row++) {
    const a = pointer(args, 1) + <usize>row * bytes;
    let largest = f32x4.splat(-Infinity);
    let at: usize = 0;
    for (; at + 16 <= bytes; at += 16) largest = f32x4.pmax(largest, v128.load(a + at));
    let value = max(
      max(f32x4.extract_lane(largest, 0), f32x4.extract_lane(largest, 1)),
      max(f32x4.extract_lane(largest, 2), f32x4.extract_lane(largest, 3)),
    );
    for (; at < bytes; at += 4) {
      const x = load<f32>(a + at);
      if (x > value) value = x;
    }
    const values = f32x4.splat(value);
    at = 0;
    while (at + 16 <= bytes && !v128.any_true(f32x4.eq(v128.load(a + at), values))) at += 16;
    while (at < bytes && load<f32>(a + at) != value) at += 4;
    store<i32>(pointer(args, 0) + (<usize>row << 2), at < bytes ? <i32>(at >> 2) : 0);
  }
}
