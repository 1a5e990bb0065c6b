import type { Engine } from "../../engine/engine.js";
import type { F32 } from "../../tensor/index.js";
import type { NormalisedProblem } from "./normalise.js";
import type { SegmentPlan } from "./segments.js";

/**
 * What an error in each vector of a segment costs, [n], mean about 1: its column's cost times the mean squared row
 * scale. A vector that is partly padding says nothing about whole ones and weighs nothing, unless there are no others.
 */
export async function vectorWeights(
  engine: Engine,
  problem: NormalisedProblem,
  { begin, end, vectorLength }: SegmentPlan,
  ofColumns: ArrayLike<number>,
): Promise<F32> {
  const { rows, rowWeights, weights } = problem;
  const vectors = weights.shape[1] / vectorLength;
  const squares = rowWeights && (await engine.read(rowWeights));
  const whole = Math.floor(rows / vectorLength);
  const ofVectors = new Float64Array(vectors);
  for (let j = 0; j < Math.max(whole, 1); j++)
    for (let d = 0; d < vectorLength; d++) ofVectors[j] += (squares?.[j * vectorLength + d] ?? 1) / vectorLength;
  let mean = 0;
  for (let place = begin; place < end; place++) mean += ofColumns[place] / (end - begin);
  const products = new Float32Array((end - begin) * vectors);
  for (let place = begin, at = 0; place < end; place++) {
    const ofColumn = ofColumns[place] / mean;
    for (let j = 0; j < vectors; j++, at++) products[at] = ofColumn * ofVectors[j];
  }
  return engine.upload(products, [products.length], "f32");
}
