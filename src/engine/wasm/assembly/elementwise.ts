import { exp4 } from "./lib/exp";
import { float, int, pointer } from "./lib/job";
import { madd } from "./lib/simd";

/** One unit of the elementwise kernels, in elements. */
const BLOCK: i32 = 4096;

const ADD: i32 = 0;
const SUBTRACT: i32 = 1;
const MULTIPLY: i32 = 2;
const DIVIDE: i32 = 3;

// @ts-ignore: decorator
@inline
function apply(operation: i32, a: v128, b: v128): v128 {
  if (operation == ADD) return f32x4.add(a, b);
  if (operation == SUBTRACT) return f32x4.sub(a, b);
  if (operation == MULTIPLY) return f32x4.mul(a, b);
  return f32x4.div(a, b);
}

/** Slots: 0 target, 1 a, 2 b, 3 size, 4 width: b has so many elements and repeats. Units: blocks of 4096 elements. */
// @ts-ignore: decorator
@inline
function binary(operation: i32, begin: i32, end: i32, args: usize): void {
  const width = int(args, 4);
  const last = min(end * BLOCK, int(args, 3));
  let at = begin * BLOCK;
  let column = at % width;
  while (at < last) {
    const length = min(last - at, width - column);
    const target = pointer(args, 0) + (<usize>at << 2);
    const a = pointer(args, 1) + (<usize>at << 2);
    const b = pointer(args, 2) + (<usize>column << 2);
    const bytes = <usize>length << 2;
    let i: usize = 0;
    for (; i + 16 <= bytes; i += 16) v128.store(target + i, apply(operation, v128.load(a + i), v128.load(b + i)));
    for (; i < bytes; i += 4)
      v128.store_lane<f32>(target + i, apply(operation, v128.load32_zero(a + i), v128.load32_zero(b + i)), 0);
    at += length;
    column = 0;
  }
}

/** target = a + b. Slots and units: see `binary`. */
export function add(begin: i32, end: i32, args: usize, scratch: usize): void {
  binary(ADD, begin, end, args);
}

/** target = a - b. Slots and units: see `binary`. */
export function subtract(begin: i32, end: i32, args: usize, scratch: usize): void {
  binary(SUBTRACT, begin, end, args);
}

/** target = a * b. Slots and units: see `binary`. */
export function multiply(begin: i32, end: i32, args: usize, scratch: usize): void {
  binary(MULTIPLY, begin, end, args);
}

/** target = a / b. Slots and units: see `binary`. */
export function divide(begin: i32, end: i32, args: usize, scratch: usize): void {
  binary(DIVIDE, begin, end, args);
}

/** target = a * factor. Slots: 0 target, 1 a, 2 size, 3 factor (f32). Units: blocks of 4096 elements. */
export function scale(begin: i32, end: i32, args: usize, scratch: usize): void {
  const target = pointer(args, 0);
  const a = pointer(args, 1);
  const factor = float(args, 3);
  const factors = f32x4.splat(factor);
  const last = <usize>min(end * BLOCK, int(args, 2)) << 2;
  let at = <usize>(begin * BLOCK) << 2;
  for (; at + 16 <= last; at += 16) v128.store(target + at, f32x4.mul(v128.load(a + at), factors));
  for (; at < last; at += 4) store<f32>(target + at, load<f32>(a + at) * factor);
}

/** target += a * factor. Slots and units as `scale`. */
export function addInto(begin: i32, end: i32, args: usize, scratch: usize): void {
  const target = pointer(args, 0);
  const a = pointer(args, 1);
  const factors = f32x4.splat(float(args, 3));
  const last = <usize>min(end * BLOCK, int(args, 2)) << 2;
  let at = <usize>(begin * BLOCK) << 2;
  for (; at + 16 <= last; at += 16)
    v128.store(target + at, madd(v128.load(a + at), factors, v128.load(target + at)));
  for (; at < last; at += 4) {
    const sum = madd(v128.load32_zero(a + at), factors, v128.load32_zero(target + at));
    v128.store_lane<f32>(target + at, sum, 0);
  }
}

/** Row r of target = row r of a * factors[r]. Slots: 0 target, 1 a, 2 factors, 3 width. Units: rows. */
export function scaleRows(begin: i32, end: i32, args: usize, scratch: usize): void {
  const bytes = <usize>int(args, 3) << 2;
  for (let row = begin; row < end; row++) {
    const target = pointer(args, 0) + <usize>row * bytes;
    const a = pointer(args, 1) + <usize>row * bytes;
    const factor = load<f32>(pointer(args, 2) + (<usize>row << 2));
    const factors = f32x4.splat(factor);
    let at: usize = 0;
    for (; at + 16 <= bytes; at += 16) v128.store(target + at, f32x4.mul(v128.load(a + at), factors));
    for (; at < bytes; at += 4) store<f32>(target + at, load<f32>(a + at) * factor);
  }
}

// @ts-ignore: decorator
@inline
function silu(gate: v128, up: v128): v128 {
  const denominator = f32x4.add(f32x4.splat(1), exp4(f32x4.neg(gate)));
  return f32x4.mul(f32x4.div(gate, denominator), up);
}

/** target = gate / (1 + exp(-gate)) * up. Slots: 0 target, 1 gate, 2 up, 3 size. Units: blocks of 4096 elements. */
export function siluMultiply(begin: i32, end: i32, args: usize, scratch: usize): void {
  const target = pointer(args, 0);
  const gate = pointer(args, 1);
  const up = pointer(args, 2);
  const last = <usize>min(end * BLOCK, int(args, 3)) << 2;
  let at = <usize>(begin * BLOCK) << 2;
  for (; at + 16 <= last; at += 16) v128.store(target + at, silu(v128.load(gate + at), v128.load(up + at)));
  for (; at < last; at += 4)
    v128.store_lane<f32>(target + at, silu(v128.load32_zero(gate + at), v128.load32_zero(up + at)), 0);
}
