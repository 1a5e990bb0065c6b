import type { Engine } from "../../engine/engine.js";
import type { Random } from "../../random.js";
import type { F32 } from "../../tensor/index.js";
import { breathe } from "../../turns.js";
import { randomSubset } from "./subset.js";

/** New seeds of a round, as a share of those there are: small is close to k-means++, large is fast. */
const GROWTH = 0.25;
/** Vectors that the seeds are drawn from, for each seed; of a large codebook at least fewer, beyond so many in all. */
const VECTORS_PER_SEED = 64;
const [FEWER_PER_SEED, MOST_VECTORS] = [8, 2 ** 19];

/**
 * Starting centroids [C, v] for weighted k-means: k-means++ (Arthur, Vassilvitskii 2007: a vector is drawn with
 * probability proportional to weight times squared distance to the seeds so far) in growing batches, as k-means||
 * (Bahmani et al., arXiv 1203.6402) draws them, from a random subset of the vectors when there are many.
 */
export async function seedCentroids(
  engine: Engine,
  allVectors: F32,
  allWeights: F32,
  codewords: number,
  random: Random,
  signal?: AbortSignal,
): Promise<F32> {
  return engine.scope(async () => {
    const most = Math.max(MOST_VECTORS, codewords * FEWER_PER_SEED);
    const wanted = Math.max(16384, Math.min(most, codewords * VECTORS_PER_SEED));
    const subset = await randomSubset(engine, allVectors, allWeights, wanted, random);
    const { vectors } = subset;
    const [count, length] = vectors.shape;
    const [weights, values] = await Promise.all([engine.read(subset.weights), engine.read(vectors)]);
    const seeds = new Float32Array(codewords * length);
    const distance = new Float32Array(count).fill(1); // before there are seeds, the weights alone decide
    const odds: Odds = { weights, distance, sums: new Float64Array(count), total: 0 };
    sumOdds(odds);
    let made = 0;
    while (made < codewords) {
      await breathe(signal);
      const batch = Math.min(codewords - made, Math.max(1, Math.floor(made * GROWTH)));
      const drawn = draw(odds, batch, random);
      // nothing is left to serve: fewer distinct vectors than codewords
      if (drawn.length === 0) break;
      for (const [i, vector] of drawn.entries())
        for (let d = 0; d < length; d++) seeds[(made + i) * length + d] = values[vector * length + d];
      const first = made;
      if (first === 0) distance.fill(Number.POSITIVE_INFINITY);
      made += drawn.length;
      if (made === codewords) break;
      const latest = await engine.scope(() => {
        const book = engine.upload(seeds.slice(first * length, made * length), [made - first, length], "f32");
        return engine.read(engine.nearestCodeword(vectors, book).distances);
      });
      sumOdds(odds, latest);
    }
    return engine.upload(seeds, [codewords, length], "f32");
  });
}

/** The odds of each vector, weight times distance (exact in f64), are not kept: their cumulative sums are. */
interface Odds {
  weights: Float32Array;
  /** To the nearest seed, squared. */
  distance: Float32Array;
  sums: Float64Array;
  total: number;
}

/** Renews the sums, with the latest distances among those to the nearest seed where there are some. */
function sumOdds(odds: Odds, latest = odds.distance): void {
  const { weights, distance, sums } = odds;
  let total = 0;
  for (let i = 0; i < distance.length; i++) {
    let nearest = distance[i];
    if (latest[i] < nearest) {
      nearest = latest[i];
      distance[i] = nearest;
    }
    total += weights[i] * nearest;
    sums[i] = total;
  }
  odds.total = total;
}

/** Up to `count` different indices, each drawn in proportion to the odds of those not drawn yet, in the order drawn. */
function draw(odds: Odds, count: number, random: Random): number[] {
  const { weights, distance, sums } = odds;
  const drawn: number[] = [];
  const kept: number[] = []; // distances of the drawn, which are 0 meanwhile
  for (; odds.total > 0; sumOdds(odds)) {
    // draws that hit a taken index are dropped; the sums are renewed when the batch is not full yet
    const attempts = count - drawn.length;
    for (let attempt = 0; attempt < attempts; attempt++) {
      const index = lowerBound(sums, random.next() * odds.total);
      if (!(weights[index] * distance[index] > 0)) continue;
      drawn.push(index);
      kept.push(distance[index]);
      distance[index] = 0;
    }
    if (drawn.length === count) break;
  }
  for (const [i, index] of drawn.entries()) distance[index] = kept[i];
  return drawn;
}

/** First index whose cumulative sum is above the target. */
function lowerBound(cumulative: Float64Array, target: number): number {
  let low = 0;
  let high = cumulative.length - 1;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (cumulative[middle] > target) high = middle;
    else low = middle + 1;
  }
  return low;
}
