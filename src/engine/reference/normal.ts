/** The density of the standard normal distribution. */
export const normalDensity = (x: number): number => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);

/**
 * The distribution function of the standard normal distribution, (1 + erf(x / sqrt 2)) / 2: near 0 by the series
 * 1/2 + density(x) (x + x^3 / 3 + x^5 / (3 5) + ..), whose terms have one sign, farther out by the continued fraction
 * density(x) / (|x| + 1 / (|x| + 2 / (|x| + ..))) of the tail. Relative error about 1e-14, of a tail 1e-11.
 */
export function normalDistribution(x: number): number {
  if (Math.abs(x) < 4) {
    let sum = 0;
    for (let term = x, n = 3; sum + term !== sum; n += 2) {
      sum += term;
      term *= (x * x) / n;
    }
    return 0.5 + normalDensity(x) * sum;
  }
  const size = Math.abs(x);
  let fraction = size;
  for (let n = 60; n > 0; n--) fraction = size + n / fraction;
  const tail = normalDensity(x) / fraction;
  return x < 0 ? tail : 1 - tail;
}
