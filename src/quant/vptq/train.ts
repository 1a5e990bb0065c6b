import type { CodebookSegment, Engine, VectorSweepResult } from "../../engine/engine.js";
import { throwIfAborted } from "../../errors.js";
import { createRandom } from "../../random.js";
import type { F32 } from "../../tensor/index.js";
import type { MethodContext } from "../method.js";
import { roundToStorage, vectorsOf } from "./codes.js";
import { kmeans } from "./kmeans.js";
import type { NormalisedProblem } from "./normalise.js";
import type { VptqScheme } from "./scheme.js";
import type { SegmentPlan } from "./segments.js";

/**
 * VPTQ as published (arXiv 2409.17066, section 3.2): the main codebook of each segment by weighted k-means on W, each residual
 * codebook on what the sweep with the stages before it leaves (compensated minus quantized), the residuals weighed by the
 * same column costs; then one sweep with all stages from the start. Codebooks are rounded to the stored type before
 * indices are chosen with them.
 */
export async function trainCodebooks(
  problem: NormalisedProblem,
  plan: SegmentPlan[],
  rows: number,
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
    for (const [s, segment] of plan.entries()) {
      const book = await trainStage(problem, problem.weights, segment, s, 0, rows, scheme, context);
      segments.push({ begin: segment.begin, end: segment.end, stages: [book] });
    }
    let sweep = sweepWith(segments);
    const stages = Math.max(...plan.map(({ codebooks }) => codebooks.length));
    for (let stage = 1; stage < stages; stage++) {
      const residual = engine.subtract(sweep.compensated, sweep.quantized);
      for (const [s, segment] of plan.entries()) {
        if (stage >= segment.codebooks.length) continue;
        const book = await trainStage(problem, residual, segment, s, stage, rows, scheme, context);
        segments[s].stages.push(book);
      }
      residual.dispose();
      disposeSweep(sweep);
      sweep = sweepWith(segments);
    }
    return { segments, sweep };
  });
}

/** One codebook [C, v] of one segment, from the vectors of its columns of [I, P]. */
function trainStage(
  problem: NormalisedProblem,
  columns: F32,
  segment: SegmentPlan,
  segmentIndex: number,
  stage: number,
  rows: number,
  scheme: VptqScheme,
  context: MethodContext,
): Promise<F32> {
  const { engine, seed, name, signal } = context;
  return engine.scope(async () => {
    const vectors = vectorsOf(engine, columns, segment.begin, segment.end, segment.vectorLength);
    const weights = await vectorWeights(engine, problem, segment, rows);
    const { centroids } = await kmeans(engine, vectors, weights, segment.codebooks[stage], {
      iterations: scheme.iterations,
      random: createRandom(seed, name, segmentIndex, stage),
      signal,
    });
    return roundToStorage(engine, centroids);
  });
}

/**
 * What an error in each vector costs, [n]: the column's cost times the mean squared row scale. Vectors that are partly padding say
 * nothing about whole ones and weigh nothing, unless there are no others.
 */
async function vectorWeights(
  engine: Engine,
  problem: NormalisedProblem,
  { begin, end, vectorLength }: SegmentPlan,
  rows: number,
): Promise<F32> {
  const vectors = problem.weights.shape[1] / vectorLength;
  const ofRows = problem.rowWeights && (await engine.read(problem.rowWeights));
  const whole = Math.floor(rows / vectorLength);
  const ofVector = new Float64Array(vectors);
  for (let j = 0; j < Math.max(whole, 1); j++) {
    for (let d = 0; d < vectorLength; d++) ofVector[j] += (ofRows?.[j * vectorLength + d] ?? 1) / vectorLength;
  }
  let mean = 0;
  for (let place = begin; place < end; place++) mean += problem.columnCosts[place] / (end - begin);
  const weights = new Float32Array((end - begin) * vectors);
  for (let place = begin; place < end; place++)
    for (let j = 0; j < vectors; j++)
      weights[(place - begin) * vectors + j] = (problem.columnCosts[place] / mean) * ofVector[j];
  return engine.upload(weights, [weights.length], "f32");
}

function disposeSweep(sweep: VectorSweepResult): void {
  for (const stages of sweep.indices) for (const indices of stages) indices.dispose();
  sweep.quantized.dispose();
  sweep.compensated.dispose();
}
