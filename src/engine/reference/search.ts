// The search for codewords, shared by the assignment and the sweeps.

/** sum over t of (x_t - c_t)^2, in order of t, each difference, product and sum rounded to f32. */
export function squaredDistance(x: Float32Array, atX: number, c: Float32Array, atC: number, v: number): number {
  let sum = 0;
  for (let t = 0; t < v; t++) {
    const difference = Math.fround(x[atX + t] - c[atC + t]);
    sum = Math.fround(sum + Math.fround(difference * difference));
  }
  return sum;
}

/** Index of the codeword [C, v] nearest to the v elements of x from `at` on; the lowest of equals. */
export function nearest(x: Float32Array, at: number, codebook: Float32Array, v: number): number {
  let best = 0;
  let least = Number.POSITIVE_INFINITY;
  for (let c = 0; c * v < codebook.length; c++) {
    const distance = squaredDistance(x, at, codebook, c * v, v);
    if (distance < least) {
      least = distance;
      best = c;
    }
  }
  return best;
}

/** Finds sums of one codeword a stage. */
export interface StageSearch {
  /** The choice for the v elements of x from `at` on: one index a stage, in `chosen`; their sum, in `vector`. */
  find(x: Float32Array, at: number): void;
  readonly chosen: Int32Array;
  readonly vector: Float32Array;
}

/**
 * Stages [C_s, v] are searched one after the other, each for what the stages before it left. The `beam` nearest codewords of
 * the first stage are continued so, nearest first; the least distance after the last stage wins, the first of equals.
 */
export function createStageSearch(stages: readonly Float32Array[], v: number, beam: number): StageSearch {
  const [first, ...later] = stages;
  const width = Math.min(later.length > 0 ? beam : 1, first.length / v);
  const chosen = new Int32Array(stages.length);
  const vector = new Float32Array(v);
  const candidates = new Int32Array(width);
  const distances = new Float32Array(width);
  const trial = new Int32Array(stages.length);
  const rest = new Float32Array(v);

  function find(x: Float32Array, at: number): void {
    nearestFew(x, at, first, v, candidates, distances);
    let least = Number.POSITIVE_INFINITY;
    for (let n = 0; n < width; n++) {
      trial[0] = candidates[n];
      let total = distances[n];
      for (let t = 0; t < v; t++) rest[t] = x[at + t] - first[trial[0] * v + t];
      for (let stage = 1; stage < stages.length; stage++) {
        const codebook = stages[stage];
        trial[stage] = nearest(rest, 0, codebook, v);
        total = squaredDistance(rest, 0, codebook, trial[stage] * v, v);
        for (let t = 0; t < v; t++) rest[t] -= codebook[trial[stage] * v + t];
      }
      if (n === 0 || total < least) {
        least = total;
        chosen.set(trial);
      }
    }
    vector.fill(0);
    for (let stage = 0; stage < stages.length; stage++)
      for (let t = 0; t < v; t++) vector[t] += stages[stage][chosen[stage] * v + t];
  }
  return { find, chosen, vector };
}

/** Fills `indices` with the nearest codewords in order of (distance, index), and `distances`. */
function nearestFew(
  x: Float32Array,
  at: number,
  codebook: Float32Array,
  v: number,
  indices: Int32Array,
  distances: Float32Array,
): void {
  let found = 0;
  for (let c = 0; c * v < codebook.length; c++) {
    const distance = squaredDistance(x, at, codebook, c * v, v);
    if (found === indices.length && !(distance < distances[found - 1])) continue;
    if (found < indices.length) found++;
    let place = found - 1;
    for (; place > 0 && distance < distances[place - 1]; place--) {
      indices[place] = indices[place - 1];
      distances[place] = distances[place - 1];
    }
    indices[place] = c;
    distances[place] = distance;
  }
}
