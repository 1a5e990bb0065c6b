import { float, int, pointer } from "./lib/job";
import { sum, sumOfProducts, sumOfSquares, sumOfSquaresFrom, sumOfTriples } from "./lib/rows";
import { madd, nmadd } from "./lib/simd";

// Layer norm, and the gradients of both norms. A unit of the gradients is a block of rows; it leaves its share of the
// gradients of weight and bias, whose sum over all blocks is for `sumColumns`.

/** (x - mean) / sqrt(variance + epsilon) * weight + bias. Slots: 0 target, 1 x, 2 weight, 3 bias, 4 width, 5 epsilon (f32). Units: rows. */
export function layerNorm(begin: i32, end: i32, args: usize, scratch: usize): void {
  const width = int(args, 4);
  const bytes = <usize>width << 2;
  const weight = pointer(args, 2);
  const bias = pointer(args, 3);
  for (let row = begin; row < end; row++) {
    const x = pointer(args, 1) + <usize>row * bytes;
    const target = pointer(args, 0) + <usize>row * bytes;
    const mean = <f32>(sum(x, width) / <f64>width);
    const factor = inverseDeviation(x, width, mean, float(args, 5));
    const means = f32x4.splat(mean);
    const factors = f32x4.splat(factor);
    let at: usize = 0;
    for (; at + 16 <= bytes; at += 16) {
      const normalized = f32x4.mul(f32x4.sub(v128.load(x + at), means), factors);
      v128.store(target + at, madd(normalized, v128.load(weight + at), v128.load(bias + at)));
    }
    for (; at < bytes; at += 4) {
      const normalized = f32x4.mul(f32x4.sub(v128.load32_zero(x + at), means), factors);
      const result = madd(normalized, v128.load32_zero(weight + at), v128.load32_zero(bias + at));
      v128.store_lane<f32>(target + at, result, 0);
    }
  }
}

function inverseDeviation(x: usize, width: i32, mean: f32, epsilon: f32): f32 {
  return <f32>(1 / Math.sqrt(sumOfSquaresFrom(x, width, mean) / <f64>width + <f64>epsilon));
}

/**
 * With y = x / size: the gradient of x is (g w - y mean(g w y)) / size, of the weight g y.
 * Slots: 0 gradient of x, 1 of the weight by blocks [blocks, D] or 0 for none, 2 x, 3 weight, 4 gradient of the result, 5 width,
 * 6 epsilon (f32), 7 rows, 8 rows of a block. Units: blocks.
 */
export function rmsNormGrad(begin: i32, end: i32, args: usize, scratch: usize): void {
  const width = int(args, 5);
  const bytes = <usize>width << 2;
  const weight = pointer(args, 3);
  const shares = pointer(args, 1);
  for (let block = begin; block < end; block++) {
    const share = shares + <usize>block * bytes;
    if (shares) memory.fill(share, 0, bytes);
    for (let row = block * int(args, 8); row < min(int(args, 7), (block + 1) * int(args, 8)); row++) {
      const x = pointer(args, 2) + <usize>row * bytes;
      const grad = pointer(args, 4) + <usize>row * bytes;
      const target = pointer(args, 0) + <usize>row * bytes;
      const factor = 1 / Math.sqrt(sumOfSquares(x, width) / <f64>width + <f64>float(args, 6));
      const along = sumOfTriples(grad, weight, x, width, 0);
      const factors = f32x4.splat(<f32>factor);
      const backs = f32x4.splat(<f32>((along / <f64>width) * factor * factor));
      let at: usize = 0;
      for (; at + 16 <= bytes; at += 16) {
        const g = v128.load(grad + at);
        const input = v128.load(x + at);
        v128.store(target + at, f32x4.mul(nmadd(input, backs, f32x4.mul(g, v128.load(weight + at))), factors));
        if (shares) v128.store(share + at, madd(g, f32x4.mul(input, factors), v128.load(share + at)));
      }
      for (; at < bytes; at += 4) {
        const g = v128.load32_zero(grad + at);
        const input = v128.load32_zero(x + at);
        const ofX = f32x4.mul(nmadd(input, backs, f32x4.mul(g, v128.load32_zero(weight + at))), factors);
        v128.store_lane<f32>(target + at, ofX, 0);
        if (shares) v128.store_lane<f32>(share + at, madd(g, f32x4.mul(input, factors), v128.load32_zero(share + at)), 0);
      }
    }
  }
}

/**
 * With y = (x - mean) / deviation: the gradient of x is (g w - mean(g w) - y mean(g w y)) / deviation, of the weight g y, of
 * the bias g. Slots: as `rmsNormGrad`, and 9: gradient of the bias by blocks [blocks, D].
 */
export function layerNormGrad(begin: i32, end: i32, args: usize, scratch: usize): void {
  const width = int(args, 5);
  const bytes = <usize>width << 2;
  const weight = pointer(args, 3);
  const shares = pointer(args, 1);
  for (let block = begin; block < end; block++) {
    const share = shares + <usize>block * bytes;
    const biasShare = pointer(args, 9) + <usize>block * bytes;
    if (shares) {
      memory.fill(share, 0, bytes);
      memory.fill(biasShare, 0, bytes);
    }
    for (let row = block * int(args, 8); row < min(int(args, 7), (block + 1) * int(args, 8)); row++) {
      const x = pointer(args, 2) + <usize>row * bytes;
      const grad = pointer(args, 4) + <usize>row * bytes;
      const target = pointer(args, 0) + <usize>row * bytes;
      const mean = <f32>(sum(x, width) / <f64>width);
      const factor = inverseDeviation(x, width, mean, float(args, 6));
      const total = sumOfProducts(grad, weight, width);
      const along = sumOfTriples(grad, weight, x, width, mean) * <f64>factor;
      const means = f32x4.splat(mean);
      const factors = f32x4.splat(factor);
      const shifts = f32x4.splat(<f32>(total / <f64>width));
      const backs = f32x4.splat(<f32>(along / <f64>width));
      let at: usize = 0;
      for (; at + 16 <= bytes; at += 16) {
        const g = v128.load(grad + at);
        const normalized = f32x4.mul(f32x4.sub(v128.load(x + at), means), factors);
        const ahead = f32x4.sub(f32x4.mul(g, v128.load(weight + at)), shifts);
        v128.store(target + at, f32x4.mul(nmadd(normalized, backs, ahead), factors));
        if (!shares) continue;
        v128.store(share + at, madd(g, normalized, v128.load(share + at)));
        v128.store(biasShare + at, f32x4.add(g, v128.load(biasShare + at)));
      }
      for (; at < bytes; at += 4) {
        const g = v128.load32_zero(grad + at);
        const normalized = f32x4.mul(f32x4.sub(v128.load32_zero(x + at), means), factors);
        const ahead = f32x4.sub(f32x4.mul(g, v128.load32_zero(weight + at)), shifts);
        v128.store_lane<f32>(target + at, f32x4.mul(nmadd(normalized, backs, ahead), factors), 0);
        if (!shares) continue;
        v128.store_lane<f32>(share + at, madd(g, normalized, v128.load32_zero(share + at)), 0);
        v128.store_lane<f32>(biasShare + at, f32x4.add(g, v128.load32_zero(biasShare + at)), 0);
      }
    }
  }
}
