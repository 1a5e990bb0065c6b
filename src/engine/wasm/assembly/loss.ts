import { exp4 } from "./lib/exp";
import { int, pointer } from "./lib/job";
import { largest, sumOfExp } from "./lib/rows";

/** -log softmax(logits)[target]. Slots: 0 result, 1 logits, 2 targets, 3 width. Units: rows. */
export function crossEntropy(begin: i32, end: i32, args: usize, scratch: usize): void {
  const width = int(args, 3);
  for (let row = begin; row < end; row++) {
    const logits = pointer(args, 1) + (<usize>row * <usize>width << 2);
    const target = load<u32>(pointer(args, 2) + (<usize>row << 2));
    const top = largest(logits, width);
    const logTotal = Math.log(sumOfExp(logits, width, top));
    const loss = logTotal + (<f64>top - <f64>load<f32>(logits + (<usize>target << 2)));
    store<f32>(pointer(args, 0) + (<usize>row << 2), <f32>loss);
  }
}

/**
 * sum p (log p - log q), p = softmax(reference), q = softmax(logits). Slots: 0 result, 1 reference, 2 logits, 3 width.
 * Units: rows. With p in hand, log p - log q = (reference - its top) - (logits - their top) - log of the quotient of the sums,
 * all in f64.
 */
export function klDivergence(begin: i32, end: i32, args: usize, scratch: usize): void {
  const width = int(args, 3);
  const bytes = <usize>width << 2;
  for (let row = begin; row < end; row++) {
    const p = pointer(args, 1) + <usize>row * bytes;
    const q = pointer(args, 2) + <usize>row * bytes;
    const topP = largest(p, width);
    const topQ = largest(q, width);
    const totalP = sumOfExp(p, width, topP);
    const shift = Math.log(totalP) - Math.log(sumOfExp(q, width, topQ));
    const tops = f32x4.splat(topP);
    const topsP = f64x2.splat(<f64>topP);
    const topsQ = f64x2.splat(<f64>topQ);
    const shifts = f64x2.splat(shift);
    let sum = f64x2.splat(0);
    let at: usize = 0;
    for (; at + 16 <= bytes; at += 16) {
      const x = v128.load(p + at);
      const y = v128.load(q + at);
      const weight = exp4(f32x4.sub(x, tops));
      sum = f64x2.add(sum, term(apart(x, topsP), apart(y, topsQ), weight, shifts));
      const upper = v128.shuffle<f32>(weight, weight, 2, 3, 2, 3);
      const upperX = apart(v128.shuffle<f32>(x, x, 2, 3, 2, 3), topsP);
      const upperY = apart(v128.shuffle<f32>(y, y, 2, 3, 2, 3), topsQ);
      sum = f64x2.add(sum, term(upperX, upperY, upper, shifts));
    }
    let total = f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1);
    for (; at < bytes; at += 4) {
      const x = v128.load32_zero(p + at);
      const y = v128.load32_zero(q + at);
      const weight = exp4(f32x4.sub(x, tops));
      total += f64x2.extract_lane(term(apart(x, topsP), apart(y, topsQ), weight, shifts), 0);
    }
    total /= totalP;
    store<f32>(pointer(args, 0) + (<usize>row << 2), total < 0 ? 0 : <f32>total); // NaN stays
  }
}

/** The two low lanes less their top, in f64. */
// @ts-ignore: decorator
@inline
function apart(x: v128, tops: v128): v128 {
  return f64x2.sub(f64x2.promote_low_f32x4(x), tops);
}

/** weight (two low lanes of f32) * (x - y - shift). */
// @ts-ignore: decorator
@inline
function term(x: v128, y: v128, weight: v128, shifts: v128): v128 {
  return f64x2.mul(f64x2.promote_low_f32x4(weight), f64x2.sub(f64x2.sub(x, y), shifts));
}
