import { exp4 } from "./exp";
import { madd, sumLanes } from "./simd";

// Reductions over one row of f32 in a fixed order: f32 lanes over 256 elements, then f64.

const RUN: usize = 1024; // bytes

const SUM: i32 = 0;
const SQUARES_FROM: i32 = 1;
const PRODUCTS: i32 = 2;
const TRIPLES: i32 = 3;

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

/** Sum of `size` elements. */
export function sum(x: usize, size: i32): f64 {
  return sumOver(SUM, x, x, x, size, 0);
}

/** Sum of (x_i - center)^2. */
export function sumOfSquaresFrom(x: usize, size: i32, center: f32): f64 {
  return sumOver(SQUARES_FROM, x, x, x, size, center);
}

/** Sum of a_i b_i. */
export function sumOfProducts(a: usize, b: usize, size: i32): f64 {
  return sumOver(PRODUCTS, a, b, b, size, 0);
}

/** Sum of a_i b_i (c_i - center). */
export function sumOfTriples(a: usize, b: usize, c: usize, size: i32, center: f32): f64 {
  return sumOver(TRIPLES, a, b, c, size, center);
}

// @ts-ignore: decorator
@inline
function addTerm(what: i32, a: v128, b: v128, c: v128, centers: v128, total: v128): v128 {
  if (what == SUM) return f32x4.add(a, total);
  if (what == PRODUCTS) return madd(a, b, total);
  if (what == TRIPLES) return madd(f32x4.mul(a, b), f32x4.sub(c, centers), total);
  const difference = f32x4.sub(a, centers);
  return madd(difference, difference, total);
}

// @ts-ignore: decorator
@inline
function sumOver(what: i32, a: usize, b: usize, c: usize, size: i32, center: f32): f64 {
  const bytes = <usize>size << 2;
  const centers = f32x4.splat(center);
  const none = f32x4.splat(0);
  let total: f64 = 0;
  let at: usize = 0;
  while (at + 16 <= bytes) {
    const stop = min(at + RUN, bytes);
    let sum0 = none;
    let sum1 = none;
    for (; at + 32 <= stop; at += 32) {
      sum0 = addTerm(what, v128.load(a + at), v128.load(b + at), v128.load(c + at), centers, sum0);
      sum1 = addTerm(what, v128.load(a + at, 16), v128.load(b + at, 16), v128.load(c + at, 16), centers, sum1);
    }
    for (; at + 16 <= stop; at += 16)
      sum0 = addTerm(what, v128.load(a + at), v128.load(b + at), v128.load(c + at), centers, sum0);
    total += <f64>sumLanes(f32x4.add(sum0, sum1));
  }
  for (; at < bytes; at += 4) {
    const x = v128.load32_splat(a + at);
    const term = addTerm(what, x, v128.load32_splat(b + at), v128.load32_splat(c + at), centers, none);
    total += <f64>f32x4.extract_lane(term, 0);
  }
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
