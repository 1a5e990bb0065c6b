import { float, int, pointer } from "./lib/job";
import { madd } from "./lib/simd";

/** One unit of the elementwise kernels, in elements. */
const BLOCK: i32 = 4096;

/** target = a * factor. Slots: target, a, size, factor (f32). Units: blocks of 4096 elements. */
export function scale(begin: i32, end: i32, args: usize, scratch: usize): void {
  const target = pointer(args, 0);
  const a = pointer(args, 1);
  const factor = float(args, 3);
  const factors = f32x4.splat(factor);
  const last = (<usize>min(end * BLOCK, int(args, 2))) << 2;
  let at = (<usize>(begin * BLOCK)) << 2;
  for (; at + 16 <= last; at += 16) v128.store(target + at, f32x4.mul(v128.load(a + at), factors));
  for (; at < last; at += 4) store<f32>(target + at, load<f32>(a + at) * factor);
}

/** target += a * factor. Slots and units as `scale`. */
export function addInto(begin: i32, end: i32, args: usize, scratch: usize): void {
  const target = pointer(args, 0);
  const a = pointer(args, 1);
  const factor = float(args, 3);
  const factors = f32x4.splat(factor);
  const last = (<usize>min(end * BLOCK, int(args, 2))) << 2;
  let at = (<usize>(begin * BLOCK)) << 2;
  for (; at + 16 <= last; at += 16) v128.store(target + at, madd(v128.load(a + at), factors, v128.load(target + at)));
  for (; at < last; at += 4) store<f32>(target + at, load<f32>(a + at) * factor + load<f32>(target + at));
}
