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

/**
 * Pairs of vectors and codewords up to which the next assignment is enqueued before it is known whether there is one: a card has
 * searched them in the time of the wait. Larger searches are too dear to be made for nothing.
 */
const MOST_AHEAD = 2 ** 26;

export interface KMeansResult {
  /** [C, v]. */
  centroids: F32;
  /** Nearest centroid of each vector, [n]. */
  indices: I32;
  /** Squared distance to it, [n]. */
  distances: F32;
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
  const early = engine.runsAhead && count * codewords <= MOST_AHEAD;
  return engine.scope(async () => {
    let centroids = options.initial
      ? engine.copy(options.initial)
      : await seedCentroids(engine, vectors, weights, codewords, options.random, options.signal);
    let nearest = engine.nearestCodeword(vectors, centroids, options.guess);
    let last = Number.POSITIVE_INFINITY;
    let repaired = 0;
    for (let iteration = 1; ; iteration++) {
      await breathe(options.signal);
      const { indices, distances } = nearest;
      const final = iteration >= options.iterations;
      const ahead = early && !final ? meansOf(engine, vectors, weights, indices, codewords) : undefined;
      const waiting = Promise.all([engine.dot(weights, distances), ahead && engine.read(ahead.totals)]);
      waiting.catch(() => {}); // it is awaited below, unless a call before fails
      // for the card to work on while we wait; of no use when this iteration is the last, or when a cluster is empty
      const guessed = ahead && engine.nearestCodeword(vectors, ahead.centroids, indices);
      const [objective, totals] = await waiting;
      if (last - objective <= tolerance * objective || final)
        return { centroids, indices, distances, objective, iterations: iteration, repaired };
      const means = ahead ?? meansOf(engine, vectors, weights, indices, codewords);
      const empty = emptyClusters(totals ?? (await engine.read(means.totals)));
      last = objective;
      let next = means.centroids;
      if (empty.length > 0) {
        const mended = await repair(engine, vectors, weights, distances, centroids, means, empty);
        next = mended.centroids;
        repaired += mended.moves;
        if (mended.moves > 0) last = Number.POSITIVE_INFINITY;
        for (const tensor of [means.centroids, guessed?.indices, guessed?.distances]) tensor?.dispose();
      }
      for (const tensor of [centroids, distances, means.sums, means.totals]) tensor.dispose();
      centroids = next;
      nearest = guessed && empty.length === 0 ? guessed : engine.nearestCodeword(vectors, centroids, indices);
      indices.dispose();
    }
  });
}

interface Means {
  /** sums / totals, [C, v]; what is empty has none. */
  centroids: F32;
  sums: F32;
  totals: F32;
}

function meansOf(engine: Engine, vectors: F32, weights: F32, indices: I32, codewords: number): Means {
  const { sums, totals } = engine.segmentSum(vectors, weights, indices, codewords);
  return { centroids: engine.divideRows(sums, totals), sums, totals };
}

const emptyClusters = (totals: Float32Array): number[] => {
  const empty: number[] = [];
  for (let codeword = 0; codeword < totals.length; codeword++) if (!(totals[codeword] > 0)) empty.push(codeword);
  return empty;
};

/** The means where some clusters are empty: these move onto vectors, or keep their centroids when none is served badly. */
function repair(
  engine: Engine,
  vectors: F32,
  weights: F32,
  distances: F32,
  centroids: F32,
  { sums, totals }: Means,
  empty: readonly number[],
): Promise<{ centroids: F32; moves: number }> {
  const [codewords, length] = centroids.shape;
  return engine.scope(async () => {
    const [sum, total, values] = await Promise.all([engine.read(sums), engine.read(totals), engine.read(centroids)]);
    for (let codeword = 0; codeword < codewords; codeword++) {
      if (!(total[codeword] > 0)) continue;
      for (let d = codeword * length; d < (codeword + 1) * length; d++) values[d] = sum[d] / total[codeword];
    }
    const moves = await worstServed(engine, weights, distances, empty.length);
    const chosen = engine.upload(Int32Array.from(moves), [moves.length], "i32");
    const rows = await engine.read(engine.gatherRows(vectors, chosen));
    for (let i = 0; i < moves.length; i++) values.set(rows.subarray(i * length, (i + 1) * length), empty[i] * length);
    return { centroids: engine.upload(values, [codewords, length], "f32"), moves: moves.length };
  });
}

/** The vectors with the largest weight times squared distance, at most `count`, none of them at distance 0. */
async function worstServed(engine: Engine, weights: F32, distances: F32, count: number): Promise<number[]> {
  const [cost, factors] = await Promise.all([engine.read(distances), engine.read(weights)]);
  for (let i = 0; i < cost.length; i++) cost[i] *= factors[i];
  // of millions only those are sorted that share the upper half of their bits, in the order of positive numbers, with one taken
  const halves = new Uint16Array(cost.buffer, cost.byteOffset, 2 * cost.length);
  const held = new Uint32Array(2 ** 16);
  for (let i = 0; i < cost.length; i++) if (cost[i] > 0) held[halves[2 * i + 1]]++;
  let least = held.length - 1;
  for (let together = held[least]; together < count && least > 0; together += held[least]) least--;
  const chosen: number[] = [];
  for (let i = 0; i < cost.length; i++) if (cost[i] > 0 && halves[2 * i + 1] >= least) chosen.push(i);
  return chosen.sort((a, b) => cost[b] - cost[a] || a - b).slice(0, count);
}
