import type { CodebookSegment, Engine } from "../../engine/engine.js";
import { throwIfAborted } from "../../errors.js";
import type { F32 } from "../../tensor/index.js";
import { proxyLoss } from "../proxy.js";
import { type Codes, decodeCodes, roundToStorage } from "./codes.js";
import { leastSquaresCentroids } from "./least-squares.js";
import type { NormalisedProblem } from "./normalise.js";

export interface RefineOptions {
  /** Rounds of least squares and re-chosen indices. */
  rounds: number;
  /** Coordinate-descent sweeps a round. */
  sweeps: number;
  beam: number;
  /** Choose all indices anew by a column sweep first in each round. */
  fresh: boolean;
  signal?: AbortSignal;
  /** Called after each step with the objective then: "least squares", "sweep", "descent". */
  onStep?: (step: string, loss: number) => void;
}

/** Codes and what they cost: tr(E H' E^T), rows weighted. */
export interface RatedCodes extends Codes {
  quantized: F32;
  loss: number;
}

/** Decodes and measures codes. */
export async function rate(engine: Engine, problem: NormalisedProblem, codes: Codes): Promise<RatedCodes> {
  const [columns, paddedRows] = problem.weights.shape;
  return engine.scope(async () => {
    const quantized = decodeCodes(engine, codes, columns, paddedRows);
    const loss = await proxyLoss(engine, problem.weights, quantized, problem.hessian, problem.rowWeights);
    return { ...codes, quantized, loss };
  });
}

/**
 * Beyond the paper: lowers tr(E H' E^T) itself. Each round fits all centroids to the indices by least squares on the whole
 * Hessian, then chooses indices again. Returns the best codes seen, never worse than those given.
 */
export async function refine(
  engine: Engine,
  problem: NormalisedProblem,
  start: RatedCodes,
  options: RefineOptions,
): Promise<RatedCodes> {
  const { rounds, sweeps, beam, fresh, signal, onStep } = options;
  return engine.scope(async () => {
    let best = start;
    const consider = (codes: RatedCodes, step: string): RatedCodes => {
      onStep?.(step, codes.loss);
      if (codes.loss < best.loss) best = codes;
      return codes;
    };
    let current = start;
    for (let round = 0; round < rounds; round++) {
      throwIfAborted(signal);
      current = consider(await fitCentroids(engine, problem, current, signal), "least squares");
      if (fresh) {
        const { indices } = engine.vectorSweep(problem.weights, problem.feedback, current.segments, { beam });
        current = consider(await rate(engine, problem, { segments: current.segments, indices }), "sweep");
      }
      for (let sweep = 0; sweep < sweeps; sweep++) {
        throwIfAborted(signal);
        const { segments } = current;
        const { indices } = engine.coordinateSweep(
          problem.weights,
          problem.hessian,
          current.quantized,
          segments,
          current.indices,
          { beam },
        );
        current = consider(await rate(engine, problem, { segments, indices }), "descent");
      }
    }
    if (rounds > 0) consider(await fitCentroids(engine, problem, best, signal), "least squares");
    return best;
  });
}

/** Least-squares centroids for the codes' indices, rounded to the stored type. */
async function fitCentroids(
  engine: Engine,
  problem: NormalisedProblem,
  codes: Codes,
  signal?: AbortSignal,
): Promise<RatedCodes> {
  return engine.scope(async () => {
    const fitted = await leastSquaresCentroids(engine, problem, codes, { signal });
    const segments: CodebookSegment[] = fitted.map((segment) => ({
      ...segment,
      stages: segment.stages.map((book) => roundToStorage(engine, book)),
    }));
    return rate(engine, problem, { segments, indices: codes.indices });
  });
}
