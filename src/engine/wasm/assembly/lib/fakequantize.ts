import { madd, sumLanes } from "./simd";

// Runs of consecutive f32 that share a scale h and a zero z. Every step towards a code is rounded alike in all builds: none of
// it is fused.

const RUN: usize = 1024; // bytes that are summed in f32 before they go to f64

/** round(x / h) + z clamped to 0 .. top; NaN stays NaN. */
// @ts-ignore: decorator
@inline
export function codes4(x: v128, step: v128, shift: v128, top: v128): v128 {
  const place = f32x4.add(f32x4.nearest(f32x4.div(x, step)), shift);
  return f32x4.pmin(f32x4.pmax(place, f32x4.splat(0)), top); // this order of the operands lets NaN through
}

// @ts-ignore: decorator
@inline
function quantized4(x: v128, step: v128, shift: v128, top: v128): v128 {
  return f32x4.mul(f32x4.sub(codes4(x, step, shift, top), shift), step);
}

/** target = (code - z) h of `bytes` bytes of x. */
export function quantizeRun(target: usize, x: usize, bytes: usize, h: f32, z: f32, levels: f32): void {
  const step = f32x4.splat(h), shift = f32x4.splat(z), top = f32x4.splat(levels);
  let at: usize = 0;
  for (; at + 16 <= bytes; at += 16) v128.store(target + at, quantized4(v128.load(x + at), step, shift, top));
  for (; at < bytes; at += 4)
    v128.store_lane<f32>(target + at, quantized4(v128.load32_zero(x + at), step, shift, top), 0);
}

/**
 * Straight-through gradient of `quantizeRun`. To `target`, unless it is 0, goes grad where the code was not clamped and 0
 * elsewhere; to `sums` two f64: the gradient of h, and the sum of grad where the code was clamped.
 */
export function quantizeRunGrad(
  target: usize, x: usize, grad: usize, bytes: usize, h: f32, z: f32, levels: f32, sums: usize,
): void {
  const step = f32x4.splat(h), shift = f32x4.splat(z), top = f32x4.splat(levels), none = f32x4.splat(0);
  let ofStep: f64 = 0;
  let outside: f64 = 0;
  let at: usize = 0;
  while (at < bytes) {
    const stop = min(at + RUN, bytes);
    let steps = none;
    let clamped = none;
    while (at < stop) {
      // the lanes behind the end have x = 0 and grad = 0, which add nothing
      const whole = at + 16 <= stop;
      const value = whole ? v128.load(x + at) : v128.load32_zero(x + at);
      const given = whole ? v128.load(grad + at) : v128.load32_zero(grad + at);
      const ratio = f32x4.div(value, step);
      const place = f32x4.add(f32x4.nearest(ratio), shift);
      const code = f32x4.pmin(f32x4.pmax(place, none), top);
      const inside = f32x4.eq(place, code);
      const passed = v128.and(given, inside);
      // inside: round(x / h) - x / h; outside: code - z
      const factor = f32x4.sub(f32x4.sub(code, shift), v128.and(ratio, inside));
      steps = madd(given, factor, steps);
      clamped = f32x4.add(clamped, v128.andnot(given, inside));
      if (whole) {
        if (target) v128.store(target + at, passed);
        at += 16;
      } else {
        if (target) v128.store_lane<f32>(target + at, passed, 0);
        at += 4;
      }
    }
    ofStep += <f64>sumLanes(steps);
    outside += <f64>sumLanes(clamped);
  }
  store<f64>(sums, ofStep);
  store<f64>(sums, outside, 8);
}

/** max(0, x) of a run; NaN is passed over. */
export function mostOf(x: usize, bytes: usize): f32 {
  let lanes = f32x4.splat(0);
  let at: usize = 0;
  for (; at + 16 <= bytes; at += 16) lanes = f32x4.pmax(lanes, v128.load(x + at));
  for (; at < bytes; at += 4) lanes = f32x4.pmax(lanes, v128.load32_zero(x + at));
  return max(
    max(f32x4.extract_lane(lanes, 0), f32x4.extract_lane(lanes, 1)),
    max(f32x4.extract_lane(lanes, 2), f32x4.extract_lane(lanes, 3)),
  );
}

/** min(0, x) of a run; NaN is passed over. */
export function leastOf(x: usize, bytes: usize): f32 {
  let lanes = f32x4.splat(0);
  let at: usize = 0;
  for (; at + 16 <= bytes; at += 16) lanes = f32x4.pmin(lanes, v128.load(x + at));
  for (; at < bytes; at += 4) lanes = f32x4.pmin(lanes, v128.load32_zero(x + at));
  return min(
    min(f32x4.extract_lane(lanes, 0), f32x4.extract_lane(lanes, 1)),
    min(f32x4.extract_lane(lanes, 2), f32x4.extract_lane(lanes, 3)),
  );
}

/** Offset in bytes of the first element whose bits under `mask` are those of `value`, which is there. */
export function firstOf(x: usize, bytes: usize, value: f32, mask: i32): usize {
  const wanted = f32x4.splat(value), masks = i32x4.splat(mask);
  let at: usize = 0;
  while (at + 16 <= bytes && !v128.any_true(f32x4.eq(v128.and(v128.load(x + at), masks), wanted))) at += 16;
  while (at + 4 < bytes && reinterpret<f32>(load<i32>(x + at) & mask) != value) at += 4;
  return at;
}
