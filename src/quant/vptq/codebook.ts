import type { Engine } from "../../engine/engine.js";
import type { Random } from "../../random.js";
import type { F32 } from "../../tensor/index.js";
import { exchangeCodewords, MOST_EXCHANGED } from "./exchange.js";
import { kmeans } from "./kmeans.js";
import { randomSubset } from "./subset.js";

/** Vectors for each codeword that the search works on before the last Lloyd iterations see all; fewer where no exchange follows. */
const [SEARCH_VECTORS, ROUGH_VECTORS] = [128, 16];

export interface CodebookOptions {
  /** Most Lloyd iterations on all vectors. */
  iterations: number;
  random: Random;
  signal?: AbortSignal;
}

/**
 * A codebook [C, v] for vectors [n, v] with weights [n]: weighted k-means from k-means++ seeds, an exchange of
 * codewords until none helps, both on a random subset when there are many vectors, and Lloyd's iteration on all of
 * them.
 */
export async function trainCodebook(
  engine: Engine,
  vectors: F32,
  weights: F32,
  codewords: number,
  options: CodebookOptions,
): Promise<F32> {
  const { random, signal, iterations } = options;
  return engine.scope(async () => {
    const share = codewords > MOST_EXCHANGED ? ROUGH_VECTORS : SEARCH_VECTORS;
    const subset = await randomSubset(engine, vectors, weights, codewords * share, random);
    const rough = { iterations: Math.min(iterations, 30), tolerance: 1e-3, random, signal };
    const seeded = await kmeans(engine, subset.vectors, subset.weights, codewords, rough);
    const { centroids } = await exchangeCodewords(engine, subset.vectors, subset.weights, seeded, random, signal);
    // the exchange has been near the end already: the last hundredths of a percent are not worth the iterations
    const last = { iterations, tolerance: 1e-4, initial: centroids, random, signal };
    return (await kmeans(engine, vectors, weights, codewords, last)).centroids;
  });
}
