import { exp4 } from "./exp";
import { madd, sumLanes } from "./simd";

// Reductions over one row of f32 in a fixed order: f32 lanes over 256 elements, then f64.

const RUN: usize = 1024; // bytes

/** Sum of the squares of `size` elements. */
export function sumOfSquares(x: usize, size: i32): f64 {
  const end = x + (<usize>size << 2);
  let total: f64 = 0;
  while (x + 16 <= end) {
    const stop = min(x + RUN, end);
    let sum0 = f32x4.splat(0);
    let sum1 = sum0;
    for (; x + 32 <= stop; x += 32) {
      const a = v128.load(x);
      const b = v128.load(x, 16);
      sum0 = madd(a, a, sum0);
      sum1 = madd(b, b, sum1);
    }
    for (; x + 16 <= stop; x += 16) {
      const a = v128.load(x);
      sum0 = madd(a, a, sum0);
    }
    total += <f64>sumLanes(f32x4.add(sum0, sum1));
  }
  for (; x < end; x += 4) total += <f64>load<f32>(x) * <f64>load<f32>(x);
  return total;
}

/** Largest of `size` elements; NaN is passed over. -infinity for an empty row. */
export function largest(x: usize, size: i32): f32 {
  const end = x + (<usize>size << 2);
  let lanes = f32x4.splat(-Infinity);
  for (; x + 16 <= end; x += 16) lanes = f32x4.pmax(lanes, v128.load(x));
  for (; x < end; x += 4) lanes = f32x4.pmax(lanes, v128.load32_splat(x));
  return max(
    max(f32x4.extract_lane(lanes, 0), f32x4.extract_lane(lanes, 1)),
    max(f32x4.extract_lane(lanes, 2), f32x4.extract_lane(lanes, 3)),
  );
}

/** Sum of exp(x_i - offset). */
export function sumOfExp(x: usize, size: i32, offset: f32): f64 {
  const end = x + (<usize>size << 2);
  const offsets = f32x4.splat(offset);
  let total: f64 = 0;
  while (x + 16 <= end) {
    const stop = min(x + RUN, end);
    let sum = f32x4.splat(0);
    for (; x + 16 <= stop; x += 16) sum = f32x4.add(sum, exp4(f32x4.sub(v128.load(x), offsets)));
    total += <f64>sumLanes(sum);
  }
  for (; x < end; x += 4) total += <f64>f32x4.extract_lane(exp4(f32x4.sub(v128.load32_splat(x), offsets)), 0);
  return total;
}
