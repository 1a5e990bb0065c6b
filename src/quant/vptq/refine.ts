import type { CodebookSegment, Engine, VectorSweepResult } from "../../engine/engine.js";
import type { F32 } from "../../tensor/index.js";
import { breathe } from "../../turns.js";
import type { MethodContext } from "../method.js";
import { proxyLoss } from "../proxy.js";
import { adaptCodebooks } from "./adapt.js";
import { type Codes, decodeCodes, roundToStorage } from "./codes.js";
import { leastSquaresCentroids } from "./least-squares.js";
import type { NormalisedProblem } from "./normalise.js";
import type { VptqScheme } from "./scheme.js";
import type { SegmentPlan } from "./segments.js";

/** Sweeps of coordinate descent a round. */
const DESCENTS = 3;

/** Codes and what they cost: tr(E H' E^T), rows weighted. */
export interface RatedCodes extends Codes {
  loss: number;
}

/** Called after each step: "adapt", "least squares", "descent". */
export type OnStep = (step: string, codes: Codes) => Promise<void>;

/** What codes cost; `quantized` is what they decode to, when it is known. */
export function rate(engine: Engine, problem: NormalisedProblem, codes: Codes, quantized?: F32): Promise<RatedCodes> {
  const [columns, paddedRows] = problem.weights.shape;
  return engine.scope(async () => {
    const decoded = quantized ?? decodeCodes(engine, codes, columns, paddedRows);
    const loss = await proxyLoss(engine, problem.weights, decoded, problem.hessian, problem.rowWeights);
    return { segments: codes.segments, indices: codes.indices, loss };
  });
}

/**
 * Beyond the paper: lowers tr(E H' E^T) itself. First the codebooks adapt to what the sweep met, and the sweep is made
 * anew. Then each of `scheme.refine` rounds fits all centroids to the indices by least squares on the whole Hessian and
 * chooses the indices again by coordinate descent; least squares end it. Returns the best codes seen, never worse than
 * the sweep given.
 */
export function refineCodes(
  problem: NormalisedProblem,
  plan: SegmentPlan[],
  published: { segments: CodebookSegment[]; sweep: VectorSweepResult },
  scheme: VptqScheme,
  context: MethodContext,
  onStep?: OnStep,
): Promise<RatedCodes> {
  const { engine, signal } = context;
  const { beam, refine: rounds } = scheme;
  return engine.scope(async () => {
    let best = await rate(engine, problem, { segments: published.segments, indices: published.sweep.indices });
    if (rounds === 0) return best;
    let current = await engine.scope(async () => {
      const segments = await adaptCodebooks(problem, plan, published.segments, published.sweep, context);
      const { indices } = engine.vectorSweep(problem.weights, problem.feedback, segments, { beam });
      return rate(engine, problem, { segments, indices });
    });
    await onStep?.("adapt", current);
    if (current.loss < best.loss) best = current;
    for (let round = 0; round < rounds; round++) {
      await breathe(signal);
      current = await descend(problem, best, beam, context, onStep);
      if (!(current.loss < best.loss)) break;
      best = current;
    }
    const last = await fitCentroids(problem, best, context);
    await onStep?.("least squares", last);
    current = await rate(engine, problem, last);
    return current.loss < best.loss ? current : best;
  });
}

/** One round: least-squares centroids, then indices by coordinate descent. */
function descend(
  problem: NormalisedProblem,
  start: Codes,
  beam: number,
  context: MethodContext,
  onStep?: OnStep,
): Promise<RatedCodes> {
  const { engine, signal } = context;
  const { hessian } = problem;
  const [columns, paddedRows] = problem.weights.shape;
  return engine.scope(async () => {
    const fitted = await fitCentroids(problem, start, context);
    await onStep?.("least squares", fitted);
    const { segments } = fitted;
    let quantized = decodeCodes(engine, fitted, columns, paddedRows);
    let { indices } = fitted;
    for (let sweep = 0; sweep < DESCENTS; sweep++) {
      await breathe(signal);
      const next = engine.scope(() => {
        const target = withPadding(engine, problem, quantized);
        return engine.coordinateSweep(target, hessian, quantized, segments, indices, { beam });
      });
      quantized.dispose();
      ({ indices, quantized } = next);
      await onStep?.("descent", { segments, indices });
    }
    return rate(engine, problem, { segments, indices }, quantized);
  });
}

/** W^T with the padding as it is decoded now, so that it does not speak for other codewords; rows are independent. */
function withPadding(engine: Engine, { weights, rows }: NormalisedProblem, quantized: F32): F32 {
  const paddedRows = weights.shape[1];
  if (paddedRows === rows) return weights;
  const padding = engine.upload(new Float32Array(paddedRows).fill(1, rows), [paddedRows], "f32");
  return engine.add(weights, engine.multiply(quantized, padding));
}

/** Least-squares centroids for the codes' indices, rounded to the stored type. */
function fitCentroids(problem: NormalisedProblem, codes: Codes, context: MethodContext): Promise<Codes> {
  const { engine, signal } = context;
  return engine.scope(async () => {
    const fitted = await leastSquaresCentroids(engine, problem, codes, { signal });
    const segments: CodebookSegment[] = fitted.map(({ begin, end, stages }) => ({
      begin,
      end,
      stages: stages.map((book) => roundToStorage(engine, book)),
    }));
    return { segments, indices: codes.indices };
  });
}
