import { exp4 } from "./exp";
import { madd } from "./simd";

/**
 * The tail of the standard normal distribution, P(X > |x|), of four f32 lanes; relative error below 6e-7 while exp(-x^2 / 2)
 * is a normal number. exp(-x^2 / 2) times t Q(t), t = 1 / (1 + 0.34 |x|): Q of degree 8 was fitted to erfcx(x / sqrt 2) / 2t
 * on 0 <= x <= 13.5, where its relative error is 3e-8.
 */
// @ts-ignore: decorator
@inline
export function normalTail4(x: v128): v128 {
  const t = f32x4.div(f32x4.splat(1), madd(f32x4.abs(x), f32x4.splat(0.34), f32x4.splat(1)));
  let q = madd(f32x4.splat(-0.0263703115), t, f32x4.splat(0.140672339));
  q = madd(q, t, f32x4.splat(-0.275462744));
  q = madd(q, t, f32x4.splat(0.20473311));
  q = madd(q, t, f32x4.splat(-0.0463953387));
  q = madd(q, t, f32x4.splat(0.116035063));
  q = madd(q, t, f32x4.splat(0.115035071));
  q = madd(q, t, f32x4.splat(0.13613348));
  q = madd(q, t, f32x4.splat(0.135619345));
  return f32x4.mul(f32x4.mul(q, t), normalExp4(x));
}

/** exp(-x^2 / 2), sqrt(2 pi) times the density of the standard normal distribution. */
// @ts-ignore: decorator
@inline
export function normalExp4(x: v128): v128 {
  return exp4(f32x4.mul(f32x4.mul(x, x), f32x4.splat(-0.5)));
}

/** P(X <= x) from the tail of |x|. */
// @ts-ignore: decorator
@inline
export function distribution4(x: v128, tail: v128): v128 {
  return v128.bitselect(tail, f32x4.sub(f32x4.splat(1), tail), f32x4.lt(x, f32x4.splat(0)));
}
