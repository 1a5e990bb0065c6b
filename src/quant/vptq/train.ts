import type { CodebookSegment, VectorSweepResult } from "../../engine/engine.js";
import { throwIfAborted } from "../../errors.js";
import { createRandom } from "../../random.js";
import type { F32 } from "../../tensor/index.js";
import type { MethodContext } from "../method.js";
import { trainCodebook } from "./codebook.js";
import { roundToStorage, vectorsOf } from "./codes.js";
import type { NormalisedProblem } from "./normalise.js";
import type { VptqScheme } from "./scheme.js";
import type { SegmentPlan } from "./segments.js";
import { vectorWeights } from "./weights.js";

/**
 * VPTQ as published (arXiv 2409.17066, section 3.2): the main codebook of each segment by weighted k-means on W, each
 * residual codebook on what the sweep with the stages before it leaves (compensated minus quantized), weighed by the
 * same diagonal of the Hessian; then one sweep with all stages from the start. Codebooks are rounded to the stored type
 * before indices are chosen with them.
 */
export function trainCodebooks(
  problem: NormalisedProblem,
  plan: SegmentPlan[],
  scheme: VptqScheme,
  context: MethodContext,
): Promise<{ segments: CodebookSegment[]; sweep: VectorSweepResult }> {
  const { engine, signal } = context;
  const sweepWith = (segments: CodebookSegment[]) => {
    throwIfAborted(signal);
    return engine.vectorSweep(problem.weights, problem.feedback, segments, { beam: scheme.beam });
  };
  return engine.scope(async () => {
    const segments: CodebookSegment[] = [];
    const weights: F32[] = [];
    for (const [s, segment] of plan.entries()) {
      weights.push(await vectorWeights(engine, problem, segment, problem.columnWeights));
      const book = await trainStage(problem.weights, weights[s], segment, s, 0, scheme, context);
      segments.push({ begin: segment.begin, end: segment.end, stages: [book] });
    }
    let sweep = sweepWith(segments);
    const stages = Math.max(...plan.map(({ codebooks }) => codebooks.length));
    for (let stage = 1; stage < stages; stage++) {
      const residual = engine.subtract(sweep.compensated, sweep.quantized);
      for (const [s, segment] of plan.entries())
        if (stage < segment.codebooks.length)
          segments[s].stages.push(await trainStage(residual, weights[s], segment, s, stage, scheme, context));
      residual.dispose();
      disposeSweep(sweep);
      sweep = sweepWith(segments);
    }
    return { segments, sweep };
  });
}

/** One codebook [C, v] of one segment, from the vectors of its columns of [I, P] with their weights [n]. */
function trainStage(
  columns: F32,
  weights: F32,
  segment: SegmentPlan,
  segmentIndex: number,
  stage: number,
  scheme: VptqScheme,
  context: MethodContext,
): Promise<F32> {
  const { engine, seed, name, signal } = context;
  return engine.scope(async () => {
    const vectors = vectorsOf(engine, columns, segment.begin, segment.end, segment.vectorLength);
    const book = await trainCodebook(engine, vectors, weights, segment.codebooks[stage], {
      iterations: scheme.iterations,
      random: createRandom(seed, name, segmentIndex, stage),
      signal,
    });
    return roundToStorage(engine, book);
  });
}

/** Frees all tensors of a sweep. */
export function disposeSweep(sweep: VectorSweepResult): void {
  for (const stages of sweep.indices) for (const indices of stages) indices.dispose();
  sweep.quantized.dispose();
  sweep.compensated.dispose();
}
