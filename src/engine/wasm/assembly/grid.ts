import { f16Scale } from "./lib/f16";
import { codes4, firstOf, leastOf, mostOf, quantizeRun, quantizeRunGrad } from "./lib/fakequantize";
import { int, pointer } from "./lib/job";

// Training of affine grids. Units: rows, of I columns in groups of `group`, or of activations. Slots begin with I, group,
// G = ceil(I / group), K = 2^bits - 1, symmetric.

const ANY: i32 = -1;
const MAGNITUDE: i32 = 0x7fffffff;
const LEAST_STEP: f32 = 1e-8;

// f64, as the reference, so that both round to the same f32.
function sigmoid(x: f32): f64 {
  return 1 / (1 + Math.exp(-(<f64>x)));
}

// @ts-ignore: decorator
@inline
function rangeOf(high: f32, low: f32, symmetric: i32): f64 {
  return symmetric ? 2 * <f64>max(high, -low) : <f64>(high - low);
}

// @ts-ignore: decorator
@inline
function zeroOf(low: f32, step: f32, levels: f32, symmetric: i32): f32 {
  return symmetric ? (levels + 1) / 2 : min(levels, max<f32>(0, nearest(-low / step)));
}

/** `clippedGrid`. Slots 5..: weights [O, I], upper and lower logits [O, G] or both 0, scale and zero [O, G]. */
export function clippedGrid(begin: i32, end: i32, args: usize, scratch: usize): void {
  const columns = int(args, 0);
  const group = int(args, 1);
  const groups = int(args, 2);
  const levels = <f32>int(args, 3);
  const symmetric = int(args, 4);
  const upper = pointer(args, 6);
  const lower = pointer(args, 7);
  for (let row = begin; row < end; row++) {
    let w = pointer(args, 5) + (<usize>row * <usize>columns << 2);
    let on = <usize>row * <usize>groups << 2;
    for (let left = columns; left > 0; left -= group) {
      const bytes = <usize>min(left, group) << 2;
      let high = mostOf(w, bytes);
      let low = leastOf(w, bytes);
      if (upper) {
        high = <f32>(sigmoid(load<f32>(upper + on)) * <f64>high);
        low = <f32>(sigmoid(load<f32>(lower + on)) * <f64>low);
      }
      const range = rangeOf(high, low, symmetric);
      const step: f32 = range == 0 ? 1 : f16Scale(<f32>(range / <f64>levels));
      store<f32>(pointer(args, 8) + on, step);
      store<f32>(pointer(args, 9) + on, zeroOf(low, step, levels, symmetric));
      w += bytes;
      on += 4;
    }
  }
}

/**
 * `clippedGridGrad`. Slots 5..: weights [O, I], upper and lower logits [O, G] or both 0, gradient of the scale [O, G]; gradients of
 * the weights (or 0: not wanted) and of both logits.
 */
export function clippedGridGrad(begin: i32, end: i32, args: usize, scratch: usize): void {
  const columns = int(args, 0);
  const group = int(args, 1);
  const groups = int(args, 2);
  const levels = <f64>int(args, 3);
  const symmetric = int(args, 4);
  const wanted = pointer(args, 9) != 0;
  const upper = pointer(args, 6);
  const lower = pointer(args, 7);
  for (let row = begin; row < end; row++) {
    let w = pointer(args, 5) + (<usize>row * <usize>columns << 2);
    let target = pointer(args, 9) + (<usize>row * <usize>columns << 2);
    let on = <usize>row * <usize>groups << 2;
    if (wanted) memory.fill(target, 0, <usize>columns << 2);
    memory.fill(pointer(args, 10) + on, 0, <usize>groups << 2);
    memory.fill(pointer(args, 11) + on, 0, <usize>groups << 2);
    for (let left = columns; left > 0; left -= group) {
      const bytes = <usize>min(left, group) << 2;
      const most = mostOf(w, bytes);
      const least = leastOf(w, bytes);
      const shrinkHigh = upper ? sigmoid(load<f32>(upper + on)) : 1;
      const shrinkLow = lower ? sigmoid(load<f32>(lower + on)) : 1;
      const high = <f32>(shrinkHigh * <f64>most);
      const low = <f32>(shrinkLow * <f64>least);
      const step = <f32>(rangeOf(high, low, symmetric) / levels);
      // clamped where it rounds to 0 or to infinity; the ties at both ends round there
      if (step > 2.98023223876953125e-8 && step < 65520) {
        const ofRange = (symmetric ? 2 : 1) * <f64>load<f32>(pointer(args, 8) + on) / levels;
        if (most > 0 && (!symmetric || high >= -low)) {
          if (wanted) store<f32>(target + firstOf(w, bytes, most, ANY), <f32>(ofRange * shrinkHigh));
          store<f32>(pointer(args, 10) + on, <f32>(ofRange * shrinkHigh * (1 - shrinkHigh) * <f64>most));
        }
        if (least < 0 && (!symmetric || high < -low)) {
          if (wanted) store<f32>(target + firstOf(w, bytes, least, ANY), <f32>(-ofRange * shrinkLow));
          store<f32>(pointer(args, 11) + on, <f32>(-ofRange * shrinkLow * (1 - shrinkLow) * <f64>least));
        }
      }
      w += bytes;
      target += bytes;
      on += 4;
    }
  }
}

// @ts-ignore: decorator
@inline
function shiftOf(zero: f32, levels: f32): f32 {
  return min(levels, max<f32>(0, nearest(zero)));
}

/** `fakeQuantize`. Slots 5..: weights [O, I], scale and zero [O, G], result [O, I]. */
export function fakeQuantize(begin: i32, end: i32, args: usize, scratch: usize): void {
  const columns = int(args, 0);
  const group = int(args, 1);
  const groups = int(args, 2);
  const levels = <f32>int(args, 3);
  for (let row = begin; row < end; row++) {
    let at = <usize>row * <usize>columns << 2;
    let on = <usize>row * <usize>groups << 2;
    for (let left = columns; left > 0; left -= group) {
      const bytes = <usize>min(left, group) << 2;
      const shift = shiftOf(load<f32>(pointer(args, 7) + on), levels);
      quantizeRun(pointer(args, 8) + at, pointer(args, 5) + at, bytes, load<f32>(pointer(args, 6) + on), shift, levels);
      at += bytes;
      on += 4;
    }
  }
}

/**
 * `fakeQuantizeGrad`. Slots 5..: weights, scale, zero, grad [O, I]; gradients of the first three, or 0 for that of the weights.
 * Scratch: 16 bytes.
 */
export function fakeQuantizeGrad(begin: i32, end: i32, args: usize, scratch: usize): void {
  const columns = int(args, 0);
  const group = int(args, 1);
  const groups = int(args, 2);
  const levels = <f32>int(args, 3);
  for (let row = begin; row < end; row++) {
    let at = <usize>row * <usize>columns << 2;
    let on = <usize>row * <usize>groups << 2;
    for (let left = columns; left > 0; left -= group) {
      const bytes = <usize>min(left, group) << 2;
      const step = load<f32>(pointer(args, 6) + on);
      const zero = load<f32>(pointer(args, 7) + on);
      const shift = shiftOf(zero, levels);
      const x = pointer(args, 5) + at;
      const target = pointer(args, 9) ? pointer(args, 9) + at : 0;
      quantizeRunGrad(target, x, pointer(args, 8) + at, bytes, step, shift, levels, scratch);
      store<f32>(pointer(args, 10) + on, <f32>load<f64>(scratch));
      const ofZero: f64 = zero >= 0 && zero <= levels ? -<f64>step * load<f64>(scratch, 8) : 0;
      store<f32>(pointer(args, 11) + on, <f32>ofZero);
      at += bytes;
      on += 4;
    }
  }
}

/** `affineCodes`. Slots 5..: weights [O, I], scale and zero [O, G], codes u8 [O, I]. */
export function affineCodes(begin: i32, end: i32, args: usize, scratch: usize): void {
  const columns = int(args, 0);
  const group = int(args, 1);
  const groups = int(args, 2);
  const levels = <f32>int(args, 3);
  const top = f32x4.splat(levels);
  for (let row = begin; row < end; row++) {
    let w = pointer(args, 5) + (<usize>row * <usize>columns << 2);
    let target = pointer(args, 8) + <usize>row * <usize>columns;
    let on = <usize>row * <usize>groups << 2;
    for (let left = columns; left > 0; left -= group) {
      const step = f32x4.splat(load<f32>(pointer(args, 6) + on));
      const shift = f32x4.splat(shiftOf(load<f32>(pointer(args, 7) + on), levels));
      let count = min(left, group);
      for (; count >= 4; count -= 4) {
        const words = i32x4.trunc_sat_f32x4_s(codes4(v128.load(w), step, shift, top));
        const narrow = i16x8.narrow_i32x4_s(words, words);
        v128.store32_lane(target, i8x16.narrow_i16x8_u(narrow, narrow), 0);
        w += 16;
        target += 4;
      }
      for (; count > 0; count--) {
        const words = i32x4.trunc_sat_f32x4_s(codes4(v128.load32_zero(w), step, shift, top));
        store<u8>(target, <u8>i32x4.extract_lane(words, 0));
        w += 4;
        target += 1;
      }
      on += 4;
    }
  }
}

/** `fakeQuantizeRows`. Slots: C, K, symmetric, x [R, C], result. */
export function fakeQuantizeRows(begin: i32, end: i32, args: usize, scratch: usize): void {
  const bytes = <usize>int(args, 0) << 2;
  const levels = <f32>int(args, 1);
  const symmetric = int(args, 2);
  for (let row = begin; row < end; row++) {
    const x = pointer(args, 3) + <usize>row * bytes;
    const low = leastOf(x, bytes);
    const step = max(LEAST_STEP, <f32>(rangeOf(mostOf(x, bytes), low, symmetric) / <f64>levels));
    const shift = zeroOf(low, step, levels, symmetric);
    quantizeRun(pointer(args, 4) + <usize>row * bytes, x, bytes, step, shift, levels);
  }
}

/** `fakeQuantizeRowsGrad`. Slots: C, K, symmetric, x [R, C], grad, gradient of x. Scratch: 16 bytes. */
export function fakeQuantizeRowsGrad(begin: i32, end: i32, args: usize, scratch: usize): void {
  const bytes = <usize>int(args, 0) << 2;
  const levels = <f32>int(args, 1);
  const symmetric = int(args, 2);
  for (let row = begin; row < end; row++) {
    const x = pointer(args, 3) + <usize>row * bytes;
    const target = pointer(args, 5) + <usize>row * bytes;
    const most = mostOf(x, bytes);
    const least = leastOf(x, bytes);
    const exact = <f32>(rangeOf(most, least, symmetric) / <f64>levels);
    const step = max(LEAST_STEP, exact);
    const shift = zeroOf(least, step, levels, symmetric);
    quantizeRunGrad(target, x, pointer(args, 4) + <usize>row * bytes, bytes, step, shift, levels, scratch);
    if (!(exact >= LEAST_STEP)) continue;
    const ofRange = (symmetric ? 2 : 1) * load<f64>(scratch) / <f64>levels;
    if (symmetric) {
      const at = firstOf(x, bytes, max(most, -least), MAGNITUDE);
      addTo(target + at, load<f32>(x + at) > 0 ? ofRange : -ofRange);
    } else {
      if (most > 0) addTo(target + firstOf(x, bytes, most, ANY), ofRange);
      if (least < 0) addTo(target + firstOf(x, bytes, least, ANY), -ofRange);
    }
  }
}

function addTo(target: usize, value: f64): void {
  store<f32>(target, <f32>(<f64>load<f32>(target) + value));
}
