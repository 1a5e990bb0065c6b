import { madd, nmadd } from "./simd";

/**
 * exp of four f32 lanes, relative error below 2e-7; 0 below -86.99 (1.7e-38), infinity above 88.73, NaN stays NaN.
 * exp(x) = 2^n exp(r), |r| <= ln 2 / 2, with a polynomial of degree 6 (the coefficients of Cephes' expf) in Estrin's order,
 * whose chain of dependent operations is short.
 */
// @ts-ignore: decorator
@inline
export function exp4(x: v128): v128 {
  x = f32x4.pmin(x, f32x4.splat(89)); // this order of the operands lets NaN through
  x = f32x4.pmax(x, f32x4.splat(-87));
  // adding 1.5 * 2^23 rounds to a whole number, found in the low bits
  const shifted = madd(x, f32x4.splat(1.44269504), f32x4.splat(12582912));
  const n = f32x4.sub(shifted, f32x4.splat(12582912));
  let r = nmadd(n, f32x4.splat(0.693359375), x);
  r = nmadd(n, f32x4.splat(-2.12194440e-4), r);
  const r2 = f32x4.mul(r, r);
  const high = madd(f32x4.splat(1.9875691500e-4), r, f32x4.splat(1.3981999507e-3));
  const middle = madd(f32x4.splat(8.3334519073e-3), r, f32x4.splat(4.1665795894e-2));
  const low = madd(f32x4.splat(1.6666665459e-1), r, f32x4.splat(5.0000001201e-1));
  const p = madd(madd(madd(high, r2, middle), r2, low), r2, f32x4.add(r, f32x4.splat(1)));
  // 2^n as 2^(n - 1) * 2: n is 128 just below overflow, and at -126 the factor is 0
  const power = i32x4.add(i32x4.shl(shifted, 23), i32x4.splat(0x3f000000));
  return f32x4.mul(f32x4.add(p, p), power);
}
