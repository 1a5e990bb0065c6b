import { float, int, pointer } from "./lib/job";
import { nmadd, madd } from "./lib/simd";
import { sumOfSquares } from "./lib/rows";

/** x / sqrt(mean(x^2) + epsilon) * weight. Slots: 0 target, 1 x, 2 weight, 3 width, 4 epsilon (f32). Units: rows. */
export function rmsNorm(begin: i32, end: i32, args: usize, scratch: usize): void {
  const width = int(args, 3);
  const bytes = <usize>width << 2;
  const weight = pointer(args, 2);
  for (let row = begin; row < end; row++) {
    const x = pointer(args, 1) + <usize>row * bytes;
    const target = pointer(args, 0) + <usize>row * bytes;
    const factor = <f32>(1 / Math.sqrt(sumOfSquares(x, width) / <f64>width + <f64>float(args, 4)));
    const factors = f32x4.splat(factor);
    let at: usize = 0;
    for (; at + 16 <= bytes; at += 16)
      v128.store(target + at, f32x4.mul(f32x4.mul(v128.load(x + at), factors), v128.load(weight + at)));
    for (; at < bytes; at += 4) store<f32>(target + at, load<f32>(x + at) * factor * load<f32>(weight + at));
  }
}

/**
 * Rotates the pairs (i, i + r) of each head. Slots: 0 target, 1 x [B, T, H, d], 2 cos, 3 sin [positions, r], 4 T, 5 H, 6 d,
 * 7 r, 8 start. Units: tokens.
 */
export function rope(begin: i32, end: i32, args: usize, scratch: usize): void {
  const heads = int(args, 5);
  const d = <usize>int(args, 6) << 2;
  const half = <usize>int(args, 7) << 2;
  const tokens = int(args, 4);
  const start = int(args, 8);
  for (let token = begin; token < end; token++) {
    const position = <usize>(start + (token % tokens)) * half;
    const cos = pointer(args, 2) + position;
    const sin = pointer(args, 3) + position;
    let x = pointer(args, 1) + <usize>token * <usize>heads * d;
    let target = pointer(args, 0) + <usize>token * <usize>heads * d;
    for (let head = 0; head < heads; head++) {
      let at: usize = 0;
      for (; at + 16 <= half; at += 16) {
        const c = v128.load(cos + at);
        const s = v128.load(sin + at);
        const low = v128.load(x + at);
        const high = v128.load(x + half + at);
        v128.store(target + at, nmadd(high, s, f32x4.mul(low, c)));
        v128.store(target + half + at, madd(low, s, f32x4.mul(high, c)));
      }
      for (; at < half; at += 4) {
        const c = v128.load32_zero(cos + at);
        const s = v128.load32_zero(sin + at);
        const low = v128.load32_zero(x + at);
        const high = v128.load32_zero(x + half + at);
        v128.store_lane<f32>(target + at, nmadd(high, s, f32x4.mul(low, c)), 0);
        v128.store_lane<f32>(target + half + at, madd(low, s, f32x4.mul(high, c)), 0);
      }
      memory.copy(target + 2 * half, x + 2 * half, d - 2 * half);
      x += d;
      target += d;
    }
  }
}
