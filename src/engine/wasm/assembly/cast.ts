import { int, pointer } from "./lib/job";

// Conversions of 8 elements at a time. Slots: 0 target, 1 source, 2 size. Units: blocks of 4096 elements.
// Scratch: 64 bytes, where the last elements are padded to 8.

const BLOCK: i32 = 4096;

const F32_TO_F16: i32 = 0;
const F32_TO_BF16: i32 = 1;
const F32_TO_I32: i32 = 2;
const F32_TO_U16: i32 = 4;
const F32_TO_U8: i32 = 5;
const F16_TO_F32: i32 = 6;
const BF16_TO_F32: i32 = 7;
const I32_TO_F32: i32 = 8;
const U16_TO_F32: i32 = 10;
const U8_TO_F32: i32 = 11;

/** f16 bits of four f32, each in the low half of a lane; round to nearest even, NaN quiet with its upper payload. */
// @ts-ignore: decorator
@inline
function f16Of(x: v128): v128 {
  const sign = v128.and(i32x4.shr_u(x, 16), i32x4.splat(0x8000));
  const magnitude = v128.and(x, i32x4.splat(0x7fffffff));
  const odd = v128.and(i32x4.shr_u(magnitude, 13), i32x4.splat(1));
  const rebased = i32x4.add(i32x4.add(magnitude, i32x4.splat(0xfff - 0x38000000)), odd);
  const normal = i32x4.shr_u(rebased, 13);
  // below 2^-14: adding 0.5 moves the unit of the last place to 2^-24, and the adder rounds
  const subnormal = i32x4.sub(f32x4.add(magnitude, f32x4.splat(0.5)), i32x4.splat(0x3f000000));
  let bits = v128.bitselect(subnormal, normal, i32x4.lt_s(magnitude, i32x4.splat(0x38800000)));
  bits = v128.bitselect(i32x4.splat(0x7c00), bits, i32x4.ge_s(magnitude, i32x4.splat(0x477ff000)));
  const payload = v128.and(i32x4.shr_u(magnitude, 13), i32x4.splat(0x1ff));
  const quiet = v128.or(payload, i32x4.splat(0x7e00));
  bits = v128.bitselect(quiet, bits, i32x4.gt_s(magnitude, i32x4.splat(0x7f800000)));
  return v128.or(sign, bits);
}

/** f32 of four f16 patterns in the low halves of the lanes. */
// @ts-ignore: decorator
@inline
function f32OfF16(h: v128): v128 {
  const sign = i32x4.shl(v128.and(h, i32x4.splat(0x8000)), 16);
  const magnitude = i32x4.shl(v128.and(h, i32x4.splat(0x7fff)), 13);
  const value = f32x4.mul(magnitude, i32x4.splat(0x77800000)); // times 2^112: subnormals too
  const special = i32x4.ge_s(magnitude, i32x4.splat(0x0f800000)); // infinity and NaN
  const infinite = v128.or(magnitude, i32x4.splat(0x7f800000));
  return v128.or(sign, v128.bitselect(infinite, value, special));
}

/** bf16 bits of four f32 in the low halves of the lanes. */
// @ts-ignore: decorator
@inline
function bf16Of(x: v128): v128 {
  const upper = i32x4.shr_u(x, 16);
  const odd = v128.and(upper, i32x4.splat(1));
  const rounded = i32x4.shr_u(i32x4.add(i32x4.add(x, i32x4.splat(0x7fff)), odd), 16);
  const isNaN = i32x4.gt_s(v128.and(x, i32x4.splat(0x7fffffff)), i32x4.splat(0x7f800000));
  return v128.bitselect(v128.or(upper, i32x4.splat(0x40)), rounded, isNaN);
}

// @ts-ignore: decorator
@inline
function convert8(kind: i32, source: usize, target: usize): void {
  if (kind <= F32_TO_U8) {
    const low = v128.load(source);
    const high = v128.load(source, 16);
    if (kind == F32_TO_F16) {
      v128.store(target, i16x8.narrow_i32x4_u(f16Of(low), f16Of(high)));
    } else if (kind == F32_TO_BF16) {
      v128.store(target, i16x8.narrow_i32x4_u(bf16Of(low), bf16Of(high)));
    } else if (kind == F32_TO_I32) {
      v128.store(target, i32x4.trunc_sat_f32x4_s(low));
      v128.store(target, i32x4.trunc_sat_f32x4_s(high), 16);
    } else {
      const a = i32x4.trunc_sat_f32x4_s(low);
      const b = i32x4.trunc_sat_f32x4_s(high);
      if (kind == F32_TO_U16) v128.store(target, i16x8.narrow_i32x4_u(a, b));
      else {
        const words = i16x8.narrow_i32x4_s(a, b);
        v128.store64_lane(target, i8x16.narrow_i16x8_u(words, words), 0);
      }
    }
  } else {
    let low: v128;
    let high: v128;
    if (kind == I32_TO_F32) {
      low = f32x4.convert_i32x4_s(v128.load(source));
      high = f32x4.convert_i32x4_s(v128.load(source, 16));
    } else {
      const words = kind == U8_TO_F32 ? v128.load8x8_u(source) : v128.load(source);
      low = i32x4.extend_low_i16x8_u(words);
      high = i32x4.extend_high_i16x8_u(words);
      if (kind == F16_TO_F32) {
        low = f32OfF16(low);
        high = f32OfF16(high);
      } else if (kind == BF16_TO_F32) {
        low = i32x4.shl(low, 16);
        high = i32x4.shl(high, 16);
      } else {
        low = f32x4.convert_i32x4_s(low);
        high = f32x4.convert_i32x4_s(high);
      }
    }
    v128.store(target, low);
    v128.store(target, high, 16);
  }
}

/** `from` and `to`: bytes of an element. */
// @ts-ignore: decorator
@inline
function convert(kind: i32, from: usize, to: usize, begin: i32, end: i32, args: usize, scratch: usize): void {
  const first = begin * BLOCK;
  const size = min(end * BLOCK, int(args, 2)) - first;
  let source = pointer(args, 1) + <usize>first * from;
  let target = pointer(args, 0) + <usize>first * to;
  for (let i = size >> 3; i > 0; i--) {
    convert8(kind, source, target);
    source += 8 * from;
    target += 8 * to;
  }
  const rest = <usize>(size & 7);
  if (rest > 0) {
    memory.fill(scratch, 0, 32);
    memory.copy(scratch, source, rest * from);
    convert8(kind, scratch, scratch + 32);
    memory.copy(target, scratch + 32, rest * to);
  }
}

export function f32ToF16(begin: i32, end: i32, args: usize, scratch: usize): void {
  convert(F32_TO_F16, 4, 2, begin, end, args, scratch);
}
export function f32ToBf16(begin: i32, end: i32, args: usize, scratch: usize): void {
  convert(F32_TO_BF16, 4, 2, begin, end, args, scratch);
}
export function f32ToI32(begin: i32, end: i32, args: usize, scratch: usize): void {
  convert(F32_TO_I32, 4, 4, begin, end, args, scratch);
}
export function f32ToU16(begin: i32, end: i32, args: usize, scratch: usize): void {
  convert(F32_TO_U16, 4, 2, begin, end, args, scratch);
}
export function f32ToU8(begin: i32, end: i32, args: usize, scratch: usize): void {
  convert(F32_TO_U8, 4, 1, begin, end, args, scratch);
}
export function f16ToF32(begin: i32, end: i32, args: usize, scratch: usize): void {
  convert(F16_TO_F32, 2, 4, begin, end, args, scratch);
}
export function bf16ToF32(begin: i32, end: i32, args: usize, scratch: usize): void {
  convert(BF16_TO_F32, 2, 4, begin, end, args, scratch);
}
export function i32ToF32(begin: i32, end: i32, args: usize, scratch: usize): void {
  convert(I32_TO_F32, 4, 4, begin, end, args, scratch);
}
export function u16ToF32(begin: i32, end: i32, args: usize, scratch: usize): void {
  convert(U16_TO_F32, 2, 4, begin, end, args, scratch);
}
export function u8ToF32(begin: i32, end: i32, args: usize, scratch: usize): void {
  convert(U8_TO_F32, 1, 4, begin, end, args, scratch);
}
