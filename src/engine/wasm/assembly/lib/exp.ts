import { madd, nmadd } from "./simd";

/**
 * exp of four f32 lanes, relative error below 2e-7; 0 below -86.6 (1e-38), infinity above 88.73, NaN stays NaN.
 * Reduction by n ln 2 in two parts, then a polynomial of degree 6 (the coefficients of Cephes' expf).
 */
// @ts-ignore: decorator
@inline
export function exp4(x: v128): v128 {
  const tiny = f32x4.lt(x, f32x4.splat(-86.6));
  x = f32x4.pmin(x, f32x4.splat(89)); // this order of the operands lets NaN through
  x = f32x4.pmax(x, f32x4.splat(-87));
  // adding 1.5 * 2^23 rounds to a whole number, found in the low bits
  const shifted = f32x4.add(f32x4.mul(x, f32x4.splat(1.44269504)), f32x4.splat(12582912));
  const n = f32x4.sub(shifted, f32x4.splat(12582912));
  let r = nmadd(n, f32x4.splat(0.693359375), x);
  r = nmadd(n, f32x4.splat(-2.12194440e-4), r);
  let p = madd(f32x4.splat(1.9875691500e-4), r, f32x4.splat(1.3981999507e-3));
  p = madd(p, r, f32x4.splat(8.3334519073e-3));
  p = madd(p, r, f32x4.splat(4.1665795894e-2));
  p = madd(p, r, f32x4.splat(1.6666665459e-1));
  p = madd(p, r, f32x4.splat(5.0000001201e-1));
  p = madd(p, f32x4.mul(r, r), f32x4.add(r, f32x4.splat(1)));
  // 2^n as 2^(n - 1) * 2: n is 128 just below overflow
  const power = i32x4.add(i32x4.shl(shifted, 23), i32x4.splat(0x3f000000));
  return v128.andnot(f32x4.mul(f32x4.add(p, p), power), tiny);
}
