import { exp4 } from "./lib/exp";
import { int, pointer } from "./lib/job";
import { distribution4, normalExp4, normalTail4 } from "./lib/normal";
import { madd } from "./lib/simd";

// Nonlinear functions of single elements and their gradients. Units: blocks of 4096 elements.

const BLOCK: i32 = 4096;
/** 1 / sqrt(2 pi). */
const DENSITY: f32 = 0.39894228;

const EXP: i32 = 0;
const RELU: i32 = 1;
const GELU: i32 = 2;
const RELU_GRAD: i32 = 3;
const GELU_GRAD: i32 = 4;

/** `grad` counts for the gradients only. */
// @ts-ignore: decorator
@inline
function apply(operation: i32, a: v128, grad: v128): v128 {
  if (operation == EXP) return exp4(a);
  if (operation == RELU) return f32x4.max(a, f32x4.splat(0));
  if (operation == GELU) return f32x4.mul(a, distribution4(a, normalTail4(a)));
  if (operation == RELU_GRAD) return v128.and(grad, f32x4.gt(a, f32x4.splat(0)));
  const density = f32x4.mul(normalExp4(a), f32x4.splat(DENSITY));
  return f32x4.mul(grad, madd(a, density, distribution4(a, normalTail4(a))));
}

/** Slots: 0 target, 1 a, 2 size, 3 the gradient. */
// @ts-ignore: decorator
@inline
function each(operation: i32, begin: i32, end: i32, args: usize): void {
  const target = pointer(args, 0);
  const a = pointer(args, 1);
  const grad = pointer(args, 3);
  const last = <usize>min(end * BLOCK, int(args, 2)) << 2;
  const none = f32x4.splat(0);
  const derived = operation == RELU_GRAD || operation == GELU_GRAD;
  let at = <usize>(begin * BLOCK) << 2;
  for (; at + 16 <= last; at += 16)
    v128.store(target + at, apply(operation, v128.load(a + at), derived ? v128.load(grad + at) : none));
  for (; at < last; at += 4) {
    const result = apply(operation, v128.load32_zero(a + at), derived ? v128.load32_zero(grad + at) : none);
    v128.store_lane<f32>(target + at, result, 0);
  }
}

/** exp(a). Slots: see `each`. */
export function exp(begin: i32, end: i32, args: usize, scratch: usize): void {
  each(EXP, begin, end, args);
}

/** max(a, 0). Slots: see `each`. */
export function relu(begin: i32, end: i32, args: usize, scratch: usize): void {
  each(RELU, begin, end, args);
}

/** a P(X <= a). Slots: see `each`. */
export function gelu(begin: i32, end: i32, args: usize, scratch: usize): void {
  each(GELU, begin, end, args);
}

/** The gradient where a > 0, else 0. Slots: see `each`. */
export function reluGrad(begin: i32, end: i32, args: usize, scratch: usize): void {
  each(RELU_GRAD, begin, end, args);
}

/** The gradient times P(X <= a) + a density(a). Slots: see `each`. */
export function geluGrad(begin: i32, end: i32, args: usize, scratch: usize): void {
  each(GELU_GRAD, begin, end, args);
}

/** grad silu(gate), of `up`. */
// @ts-ignore: decorator
@inline
function ofUp(gate: v128, sigmoid: v128, grad: v128): v128 {
  return f32x4.mul(grad, f32x4.mul(gate, sigmoid));
}

/** grad up sigmoid (1 + gate (1 - sigmoid)), of `gate`. */
// @ts-ignore: decorator
@inline
function ofGate(gate: v128, sigmoid: v128, up: v128, grad: v128): v128 {
  const one = f32x4.splat(1);
  const slope = f32x4.mul(sigmoid, madd(gate, f32x4.sub(one, sigmoid), one));
  return f32x4.mul(f32x4.mul(grad, up), slope);
}

// @ts-ignore: decorator
@inline
function sigmoid4(x: v128): v128 {
  return f32x4.div(f32x4.splat(1), f32x4.add(f32x4.splat(1), exp4(f32x4.neg(x))));
}

/** Slots: 0 gradient of gate, 1 of up, 2 gate, 3 up, 4 gradient of the result, 5 size. */
export function siluMultiplyGrad(begin: i32, end: i32, args: usize, scratch: usize): void {
  const targetGate = pointer(args, 0);
  const targetUp = pointer(args, 1);
  const gates = pointer(args, 2);
  const ups = pointer(args, 3);
  const grads = pointer(args, 4);
  const last = <usize>min(end * BLOCK, int(args, 5)) << 2;
  let at = <usize>(begin * BLOCK) << 2;
  for (; at + 16 <= last; at += 16) {
    const gate = v128.load(gates + at);
    const grad = v128.load(grads + at);
    const sigmoid = sigmoid4(gate);
    v128.store(targetUp + at, ofUp(gate, sigmoid, grad));
    v128.store(targetGate + at, ofGate(gate, sigmoid, v128.load(ups + at), grad));
  }
  for (; at < last; at += 4) {
    const gate = v128.load32_zero(gates + at);
    const grad = v128.load32_zero(grads + at);
    const sigmoid = sigmoid4(gate);
    v128.store_lane<f32>(targetUp + at, ofUp(gate, sigmoid, grad), 0);
    v128.store_lane<f32>(targetGate + at, ofGate(gate, sigmoid, v128.load32_zero(ups + at), grad), 0);
  }
}
