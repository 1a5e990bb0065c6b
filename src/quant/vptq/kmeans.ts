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
 * Weighted k-means by Lloyd's iteration: vectors [n, v], weights [n] >= 0, C <= n codewords. Means are taken in f64 on
 * the host, so the result does not depend on the number of threads. No iteration raises the objective, repairs
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
  const [count, length] = vectors.shape;
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
      const means = await updateCentroids(engine, vectors, weights, indices, centroids);
      const moves =
        means.empty.length > 0 ? await worstServed(engine, weights, nearest.distances, means.empty.length) : [];
      for (const [i, vector] of moves.entries()) {
        const row = await engine.scope(() => engine.read(engine.view(vectors, [length], vector * length)));
        means.values.set(row, means.empty[i] * length);
      }
      repaired += moves.length;
      last = moves.length > 0 ? Number.POSITIVE_INFINITY : objective;
      nearest.distances.dispose();
      centroids.dispose();
      centroids = engine.upload(means.values, [codewords, length], "f32");
      previous = indices;
    }
  });
}

/** Weighted means of the clusters in f64; a cluster without weight keeps its centroid and is listed. */
async function updateCentroids(engine: Engine, vectors: F32, weights: F32, indices: I32, centroids: F32) {
  const [codewords, length] = centroids.shape;
  return engine.scope(async () => {
    const segments = engine.segmentSum(vectors, weights, indices, codewords);
    const sums = await engine.read(segments.sums);
    const totals = await engine.read(segments.totals);
    const values = await engine.read(centroids);
    const empty: number[] = [];
    for (let codeword = 0; codeword < codewords; codeword++) {
      if (!(totals[codeword] > 0)) empty.push(codeword);
      else
        for (let d = 0; d < length; d++) values[codeword * length + d] = sums[codeword * length + d] / totals[codeword];
    }
    return { values, empty };
  });
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
