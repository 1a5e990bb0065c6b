import { numericError } from "../../errors.js";
import type { F32 } from "../../tensor/index.js";
import type { LinearMethod, LinearStatistics, MethodContext, QuantizedLinear } from "../method.js";
import { prepareLinear } from "../prepare.js";
import { proxyLoss } from "../proxy.js";
import type { CodebookRecord, CodebookSegmentRecord } from "../record.js";
import type { Codes } from "./codes.js";
import { measureScales, normalise, type Scales, visitingOrder } from "./normalise.js";
import { refineCodes } from "./refine.js";
import type { VptqScheme } from "./scheme.js";
import { checkCodebooksFit, paddedRows, planSegments } from "./segments.js";
import { trainCodebooks } from "./train.js";

/**
 * VPTQ (Liu et al., arXiv 2409.17066): a vector is v consecutive output rows of one input column. Codebooks by weighted
 * k-means; columns are visited by descending diagonal of the Hessian, every vector takes its nearest codeword, and the
 * column's error is fed back into the columns to come. `scheme.refine` rounds of least-squares centroids and coordinate
 * descent follow.
 *
 * weight [O, I]. Rows are padded with zeros to whole vectors; the padding weighs nothing in codebooks and metrics.
 *
 * Where the released code departs from the paper or from algebra, this does not: normalised columns take the Hessian
 * and its factor along; the factor is computed in the order in which it is used; residual codebooks are trained with
 * every vector's own weight; errors are measured in one order of the columns; indices are chosen with the rounded
 * codebooks that are stored; k-means is seeded.
 */
export function quantizeVptq(
  weight: F32,
  statistics: LinearStatistics | undefined,
  scheme: VptqScheme,
  context: MethodContext,
): Promise<QuantizedLinear> {
  const { engine, name } = context;
  return engine.scope(async () => {
    const [rows, columns] = weight.shape;
    const plan = planSegments(columns, scheme);
    checkCodebooksFit(plan, rows, name);
    const scales = await measureScales(engine, weight, scheme.norm);
    const { damping, asymmetric } = scheme;
    const options = { paddedRows: paddedRows(rows, plan), damping, asymmetric, order: visitingOrder(scales) };
    const prepared = await prepareLinear(weight, statistics, options, context);
    const problem = await normalise(engine, prepared, scales, rows);
    const published = await trainCodebooks(problem, plan, scheme, context);
    const refined = await refineCodes(problem, plan, published, scheme, context);
    const signalPower = await proxyLoss(engine, problem.weights, undefined, problem.hessian, problem.rowWeights);
    return {
      record: await codebookRecord(refined, prepared.order, scales, rows, scheme, context),
      metrics: {
        proxyError: signalPower > 0 ? Math.max(0, refined.loss) / signalPower : 0,
        damping: prepared.damping,
        deadColumns: prepared.deadColumns,
        notes: prepared.notes,
      },
    };
  });
}

export const vptq: LinearMethod<VptqScheme> = { name: "vptq", needs: "hessian", quantizeLinear: quantizeVptq };

/** Rows of indices written side by side: a processor's cache holds them. */
const TOGETHER = 8;

/**
 * The record of codes in sweep order. With one segment the order is absorbed: columns are stored as they stand, so that
 * decoding needs no gather.
 */
async function codebookRecord(
  codes: Codes,
  order: Int32Array,
  scales: Scales,
  rows: number,
  scheme: VptqScheme,
  { engine, name }: MethodContext,
): Promise<CodebookRecord> {
  const absorbed = codes.segments.length === 1;
  const segments: CodebookSegmentRecord[] = [];
  for (const [s, { begin, end, stages }] of codes.segments.entries()) {
    const vectorLength = stages[0].shape[1];
    const vectors = Math.ceil(rows / vectorLength);
    const stored: CodebookSegmentRecord["stages"] = [];
    for (const [stage, book] of stages.entries()) {
      const swept = await engine.read(codes.indices[s][stage]); // [columns, P / v]
      const sweptVectors = codes.indices[s][stage].shape[1];
      const indices = new Uint16Array(vectors * (end - begin)); // [vectors, columns]
      for (let first = 0; first < vectors; first += TOGETHER)
        for (let place = begin; place < end; place++) {
          const column = absorbed ? order[place] : place - begin;
          for (let j = first; j < Math.min(vectors, first + TOGETHER); j++)
            indices[j * (end - begin) + column] = swept[(place - begin) * sweptVectors + j];
        }
      if (!(await engine.allFinite(book)))
        throw numericError(
          `${name}: its codewords do not fit into 16-bit floats, the weights are too large`,
          "normalise the columns or rows (norm)",
        );
      stored.push({ indices, centroids: await engine.read(book), codewords: book.shape[0] });
    }
    segments.push({ begin, end, vectorLength, stages: stored });
  }
  return {
    kind: "codebook",
    storage: "f16",
    rows,
    columns: order.length,
    hasOutliers: (scheme.outliers?.percent ?? 0) > 0,
    segments,
    columnOrder: absorbed ? undefined : order.length <= 65536 ? Uint16Array.from(order) : Uint32Array.from(order),
    columnScale: scales.column,
    rowScale: scales.row,
  };
}
