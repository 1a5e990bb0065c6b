import { int, pointer } from "./lib/job";

// Walsh-Hadamard transform of rows, in their place: four elements at a time, two bits of the index a pass.

/** The four lanes of a vector among themselves. */
// @ts-ignore: decorator
@inline
function lanes(x: v128): v128 {
  // [a + b, a - b, c + d, c - d], then the halves
  const signs1 = f32x4(1, -1, 1, -1);
  const signs2 = f32x4(1, 1, -1, -1);
  const y = f32x4.add(v128.shuffle<f32>(x, x, 0, 0, 2, 2), f32x4.mul(v128.shuffle<f32>(x, x, 1, 1, 3, 3), signs1));
  return f32x4.add(v128.shuffle<f32>(y, y, 0, 1, 0, 1), f32x4.mul(v128.shuffle<f32>(y, y, 2, 3, 2, 3), signs2));
}

/** target = x times factor, transformed; n = 1, 2. */
function transformFew(target: usize, x: usize, n: i32, factor: f32): void {
  const a = load<f32>(x) * factor;
  if (n == 1) {
    store<f32>(target, a);
    return;
  }
  const b = load<f32>(x, 4) * factor;
  store<f32>(target, a + b);
  store<f32>(target, a - b, 4);
}

/** Rows of n = 4 and more: the first pass scales, too, so that nothing grows beyond what it ends as. */
function transform(target: usize, x: usize, n: i32, factor: f32): void {
  const bytes = <usize>n << 2;
  const factors = f32x4.splat(factor);
  for (let at: usize = 0; at < bytes; at += 16) v128.store(target + at, lanes(f32x4.mul(v128.load(x + at), factors)));
  let half: usize = 16; // bytes between the two that are added
  for (; half << 1 < bytes; half <<= 2) {
    const span = half << 2;
    for (let begin = target; begin < target + bytes; begin += span)
      for (let at = begin; at < begin + half; at += 16) {
        const a = v128.load(at);
        const b = v128.load(at + half);
        const c = v128.load(at + 2 * half);
        const d = v128.load(at + 3 * half);
        const sum = f32x4.add(a, b);
        const apart = f32x4.sub(a, b);
        const otherSum = f32x4.add(c, d);
        const otherApart = f32x4.sub(c, d);
        v128.store(at, f32x4.add(sum, otherSum));
        v128.store(at + half, f32x4.add(apart, otherApart));
        v128.store(at + 2 * half, f32x4.sub(sum, otherSum));
        v128.store(at + 3 * half, f32x4.sub(apart, otherApart));
      }
  }
  if (half >= bytes) return;
  for (let at = target; at < target + half; at += 16) {
    const a = v128.load(at);
    const b = v128.load(at + half);
    v128.store(at, f32x4.add(a, b));
    v128.store(at + half, f32x4.sub(a, b));
  }
}

/** Each row times H_n / sqrt(n). Slots: 0 target, 1 x, 2 n. Units: rows. */
export function hadamard(begin: i32, end: i32, args: usize, scratch: usize): void {
  const n = int(args, 2);
  const bytes = <usize>n << 2;
  const factor = <f32>(1 / Math.sqrt(<f64>n));
  for (let row = begin; row < end; row++) {
    const target = pointer(args, 0) + <usize>row * bytes;
    const x = pointer(args, 1) + <usize>row * bytes;
    if (n < 4) transformFew(target, x, n, factor);
    else transform(target, x, n, factor);
  }
}
