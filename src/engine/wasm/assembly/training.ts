import { float, int, pointer } from "./lib/job";
import { madd } from "./lib/simd";

const BLOCK: i32 = 4096;

/**
 * first = beta1 first + (1 - beta1) g; second = beta2 second + (1 - beta2) g^2;
 * parameter = keep parameter - rate first / (sqrt(second) root + epsilon), with the corrections within `rate` and `root`.
 * Slots: 0 parameter, 1 gradient, 2 first, 3 second, 4 size, then f32: 5 beta1, 6 1 - beta1, 7 beta2, 8 1 - beta2, 9 keep,
 * 10 rate, 11 root, 12 epsilon. Units: blocks of 4096 elements.
 */
export function adamwStep(begin: i32, end: i32, args: usize, scratch: usize): void {
  const parameter = pointer(args, 0);
  const gradient = pointer(args, 1);
  const first = pointer(args, 2);
  const second = pointer(args, 3);
  const last = <usize>min(end * BLOCK, int(args, 4)) << 2;
  let at = <usize>(begin * BLOCK) << 2;
  for (; at + 16 <= last; at += 16) {
    const g = v128.load(gradient + at);
    const m = firstMoment(v128.load(first + at), g, args);
    const v = secondMoment(v128.load(second + at), g, args);
    v128.store(first + at, m);
    v128.store(second + at, v);
    v128.store(parameter + at, stepped(v128.load(parameter + at), m, v, args));
  }
  for (; at < last; at += 4) {
    const g = v128.load32_zero(gradient + at);
    const m = firstMoment(v128.load32_zero(first + at), g, args);
    const v = secondMoment(v128.load32_zero(second + at), g, args);
    v128.store_lane<f32>(first + at, m, 0);
    v128.store_lane<f32>(second + at, v, 0);
    v128.store_lane<f32>(parameter + at, stepped(v128.load32_zero(parameter + at), m, v, args), 0);
  }
}

// @ts-ignore: decorator
@inline
function firstMoment(m: v128, g: v128, args: usize): v128 {
  return madd(m, f32x4.splat(float(args, 5)), f32x4.mul(g, f32x4.splat(float(args, 6))));
}

// @ts-ignore: decorator
@inline
function secondMoment(v: v128, g: v128, args: usize): v128 {
  return madd(v, f32x4.splat(float(args, 7)), f32x4.mul(f32x4.mul(g, f32x4.splat(float(args, 8))), g));
}

// @ts-ignore: decorator
@inline
function stepped(p: v128, m: v128, v: v128, args: usize): v128 {
  const size = madd(f32x4.sqrt(v), f32x4.splat(float(args, 11)), f32x4.splat(float(args, 12)));
  const step = f32x4.div(f32x4.mul(m, f32x4.splat(float(args, 10))), size);
  return f32x4.sub(f32x4.mul(p, f32x4.splat(float(args, 9))), step);
}
