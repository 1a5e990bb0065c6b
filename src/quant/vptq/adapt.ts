import type { CodebookSegment, VectorSweepResult } from "../../engine/engine.js";
import { createRandom } from "../../random.js";
import type { F32 } from "../../tensor/index.js";
import type { MethodContext } from "../method.js";
import { roundToStorage, vectorsOf } from "./codes.js";
import { kmeans } from "./kmeans.js";
import type { NormalisedProblem } from "./normalise.js";
import type { SegmentPlan } from "./segments.js";
import { vectorWeights } from "./weights.js";

/** Most Lloyd iterations a codebook. */
const ITERATIONS = 15;

/**
 * Codebooks for the vectors that the sweep really met: weights with the errors of earlier columns fed into them are
 * spread wider than the weights that the codebooks were trained on. Their exact cost is known: tr(E H E^T) is the sum
 * over columns of |compensated - quantized|^2 / U_ii^2. A few iterations of k-means a stage, the other stages as they
 * were chosen.
 */
export function adaptCodebooks(
  problem: NormalisedProblem,
  plan: SegmentPlan[],
  segments: CodebookSegment[],
  sweep: VectorSweepResult,
  context: MethodContext,
): Promise<CodebookSegment[]> {
  const { engine, signal, seed, name } = context;
  return engine.scope(async () => {
    const error = engine.subtract(sweep.compensated, sweep.quantized);
    const adapted: CodebookSegment[] = [];
    for (const [s, { begin, end, stages }] of segments.entries()) {
      const weights = await vectorWeights(engine, problem, plan[s], problem.columnCosts);
      // what the codewords of a stage should be: its present choice plus what is left
      const rest = vectorsOf(engine, error, begin, end, stages[0].shape[1]);
      const books: F32[] = [];
      for (const [stage, book] of stages.entries()) {
        const fitted = await engine.scope(async () => {
          const chosen = engine.view(sweep.indices[s][stage], [rest.shape[0]]);
          engine.addInto(rest, engine.gatherRows(book, chosen)); // now the stage's targets
          const random = createRandom(seed, name, "adapt", s, stage);
          const options = { iterations: ITERATIONS, initial: book, guess: chosen, random, signal };
          const { centroids, indices } = await kmeans(engine, rest, weights, book.shape[0], options);
          engine.addInto(rest, engine.gatherRows(centroids, indices), -1);
          return roundToStorage(engine, centroids);
        });
        books.push(fitted);
      }
      adapted.push({ begin, end, stages: books });
    }
    return adapted;
  });
}
