/** A seeded generator of random numbers: the same seed gives the same sequence on every machine. */
export interface Random {
  /** Uniform in [0, 1), 53 bits. */
  next(): number;
  /** The next `count` of these, into the beginning of `target`: a few times faster than one by one. */
  fill(target: Float64Array, count: number): void;
  /** Uniform integer in [0, bound). */
  integer(bound: number): number;
  /** Standard normal (Box-Muller). */
  normal(): number;
}

/** splitmix32: spreads a seed over the state of the generator (Steele, Lea, Flood 2014, 32-bit variant). */
function splitmix32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return (z ^ (z >>> 16)) >>> 0;
  };
}

/** xoshiro128** (Blackman, Vigna 2018). `parts` are mixed into the seed: numbers, or names hashed with FNV-1a. */
export function createRandom(seed: number, ...parts: (number | string)[]): Random {
  let mixed = seed >>> 0;
  for (const part of parts) {
    for (const byte of new TextEncoder().encode(String(part))) mixed = Math.imul(mixed ^ byte, 0x01000193) >>> 0;
    mixed = Math.imul(mixed ^ 0xff, 0x01000193) >>> 0;
  }
  const mix = splitmix32(mixed);
  // 32 bits as a signed number: an unsigned one may be too large for an engine of JavaScript to keep outside the heap
  let a = mix() | 0;
  let b = mix() | 0;
  let c = mix() | 0;
  let d = mix() | 0;
  const rotate = (x: number, k: number) => (x << k) | (x >>> (32 - k));
  const fill = (target: Float64Array, count: number) => {
    // on variables that no closure holds: they stay in registers
    let [w, x, y, z] = [a, b, c, d];
    for (let i = 0; i < count; i++) {
      let high = 0;
      let low = 0;
      for (let half = 0; half < 2; half++) {
        high = low;
        low = Math.imul(rotate(Math.imul(x, 5), 7), 9);
        const t = x << 9;
        y ^= w;
        z ^= x;
        x ^= y;
        w ^= z;
        y ^= t;
        z = rotate(z, 11);
      }
      target[i] = ((high >>> 5) * 67108864 + (low >>> 6)) / 9007199254740992;
    }
    [a, b, c, d] = [w, x, y, z];
  };
  const one = new Float64Array(1);
  const next = () => {
    fill(one, 1);
    return one[0];
  };
  return {
    next,
    fill,
    integer: (bound) => Math.floor(next() * bound),
    normal: () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()),
  };
}

/** A random permutation of 0..count-1 (Fisher-Yates). */
export function shuffled(count: number, random: Random): Int32Array {
  const order = Int32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = random.integer(i + 1);
    const held = order[i];
    order[i] = order[j];
    order[j] = held;
  }
  return order;
}
