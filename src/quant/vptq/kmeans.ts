import type { Engine } from "../../engine/engine.js";
import { usageError } from "../../errors.js";
import type { Random } from "../../random.js";
import type { F32, I32 } from "../../tensor/index.js";
import { breathe } from "../../turns.js";
import { seedCentroids } from "./seeding.js";

export interface KMeansOptions {
  /** Most Lloyd iterations. */
  iterations: number;
  /** Stop when an iteration lowers the objective by less than this share of it. Default 3e-5. */
  tolerance?: number;
  /** Starting centroids [C, v]; default `seedCentroids`. */
  initial?: F32;
  /** A guess at the first assignment [n], which speeds it up and changes nothing. */
  guess?: I32;
  random: Random;
  signal?: AbortSignal;
}

export interface KMeansResult {
  /** [C, v]. */
  centroids: F32;
  /** Nearest centroid of each vector, [n]. */
  indices: I32;
  /** sum of weight times squared distance to the nearest centroid. */
  objective: number;
  /** Assignments that were made. */
  iterations: number;
  /** Empty clusters that were given a vector. */
  repaired: number;
}

/**
 * Weighted k-means by Lloyd's iteration: vectors [n, v], weights [n] >= 0, C <= n codewords. Sums are taken in f64, so the
 * result does not depend on the number of threads. No iteration raises the objective, repairs
 * included: an empty cluster, which serves nobody, moves onto the vector that is served worst (weight times squared
 * distance, the first of equals).
 */
export async function kmeans(
  engine: Engine,
  vectors: F32,
  weights: F32,
  codewords: number,
  options: KMeansOptions,
): Promise<KMeansResult> {
  const [count] = vectors.shape;
  if (codewords > count)
    throw usageError(`kmeans: expected no more codewords than vectors (${count}), got ${codewords}`);
  const tolerance = options.tolerance ?? 3e-5;
  return engine.scope(async () => {
    let centroids = options.initial
      ? engine.copy(options.initial)
      : await seedCentroids(engine, vectors, weights, codewords, options.random, options.signal);
    let previous = options.guess;
    let last = Number.POSITIVE_INFINITY;
    let repaired = 0;
    for (let iteration = 1; ; iteration++) {
      await breathe(options.signal);
      const nearest = engine.nearestCodeword(vectors, centroids, previous);
      const { indices } = nearest;
      if (previous !== options.guess) previous?.dispose();
      const objective = await engine.dot(weights, nearest.distances);
      const settled = last - objective <= tolerance * objective;
      if (settled || iteration >= options.iterations)
        return { centroids, indices, objective, iterations: iteration, repaired };
      const next: { centroids: F32; moves?: number } = await engine.scope(async () => {
        const { sums, totals } = engine.segmentSum(vectors, weights, indices, codewords);
        const empty = emptyClusters(await engine.read(totals));
        if (empty.length === 0) return { centroids: engine.transpose(engine.divide(engine.transpose(sums), totals)) };
        return repair(engine, vectors, weights, nearest.distances, centroids, sums, totals, empty);
      });
      repaired += next.moves ?? 0;
      last = next.moves ? Number.POSITIVE_INFINITY : objective;
      nearest.distances.dispose();
      centroids.dispose();
      centroids = next.centroids;
      previous = indices;
    }
  });
}

const emptyClusters = (totals: Float32Array): number[] => {
  const empty: number[] = [];
  for (let codeword = 0; codeword < totals.length; codeword++) if (!(totals[codeword] > 0)) empty.push(codeword);
  return empty;
};

/** The means where some clusters are empty: these move onto vectors, or keep their centroids when none is served badly. */
async function repair(
  engine: Engine,
  vectors: F32,
  weights: F32,
  distances: F32,
  centroids: F32,
  sums: F32,
  totals: F32,
  empty: readonly number[],
): Promise<{ centroids: F32; moves: number }> {
  const [codewords, length] = centroids.shape;
  const [sum, total, values] = [await engine.read(sums), await engine.read(totals), await engine.read(centroids)];
  for (let codeword = 0; codeword < codewords; codeword++) {
    if (!(total[codeword] > 0)) continue;
    for (let d = codeword * length; d < (codeword + 1) * length; d++) values[d] = sum[d] / total[codeword];
  }
  const moves = await worstServed(engine, weights, distances, empty.length);
  const chosen = engine.upload(Int32Array.from(moves), [moves.length], "i32");
  const rows = await engine.read(engine.gatherRows(vectors, chosen));
  for (let i = 0; i < moves.length; i++) values.set(rows.subarray(i * length, (i + 1) * length), empty[i] * length);
  return { centroids: engine.upload(values, [codewords, length], "f32"), moves: moves.length };
}

/** The vectors with the largest weight times squared distance, at most `count`, none of them at distance 0. */
async function worstServed(engine: Engine, weights: F32, distances: F32, count: number): Promise<number[]> {
  const cost = await engine.read(distances);
  const factors = await engine.read(weights);
  const served: number[] = [];
  for (let i = 0; i < cost.length; i++) {
    cost[i] *= factors[i];
    if (cost[i] > 0) served.push(i);
  }
  return served.sort((a, b) => cost[b] - cost[a] || a - b).slice(0, count);
}
