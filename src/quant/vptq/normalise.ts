import type { Engine } from "../../engine/engine.js";
import { type F32, roundToF16 } from "../../tensor/index.js";
import { descendingOrder } from "../permute.js";
import type { PreparedLinear } from "../prepare.js";
import type { VptqScheme } from "./scheme.js";

/** Scales of W's columns or rows; every value is exactly a f16 value, > 0. */
export interface Scales {
  /** [I], original column order. */
  column?: Float32Array;
  /** [O]. */
  row?: Float32Array;
}

/** The least normal f16 and the largest. */
const LEAST_SCALE = 2 ** -14;
const LARGEST_SCALE = 65504;

/** Root mean squares of the rows and columns of weight [O, I], the columns' after the rows' were divided out. */
export async function measureScales(engine: Engine, weight: F32, norm: VptqScheme["norm"]): Promise<Scales> {
  if (norm === "none") return {};
  const [rows, columns] = weight.shape;
  const values = await engine.read(weight);
  const scales: Scales = {};
  if (norm !== "column") {
    const squares = new Float64Array(rows);
    for (let at = 0; at < values.length; at++) squares[Math.floor(at / columns)] += values[at] ** 2;
    scales.row = scalesOf(squares, columns);
  }
  if (norm !== "row") {
    const squares = new Float64Array(columns);
    for (let at = 0; at < values.length; at++)
      squares[at % columns] += (values[at] / (scales.row?.[Math.floor(at / columns)] ?? 1)) ** 2;
    scales.column = scalesOf(squares, rows);
  }
  return scales;
}

/** Square roots of means over `terms`, in f16; 1 where there is nothing to scale. */
const scalesOf = (squares: Float64Array, terms: number): Float32Array =>
  Float32Array.from(squares, (square) =>
    square > 0 ? Math.min(LARGEST_SCALE, Math.max(LEAST_SCALE, roundToF16(Math.sqrt(square / terms)))) : 1,
  );

/** The order of a sweep: the largest diagonal of the rescaled Hessian first (act-order). */
export const visitingOrder =
  ({ column }: Scales) =>
  (diagonal: Float32Array): Int32Array =>
    descendingOrder(diagonal.map((value, c) => value * (column?.[c] ?? 1) ** 2));

/** The problem that the codebooks are chosen for, all in sweep order. */
export interface NormalisedProblem {
  /** W^T / column scale / row scale, [I, P]. */
  weights: F32;
  /** H' = diag(s) H diag(s) with the column scales s, [I, I]. */
  hessian: F32;
  /** Unit upper factor of H'^-1 for the sweeps, [I, I]. */
  feedback: F32;
  /** Squared row scales, 0 for padding, [P]; absent when all are 1. */
  rowWeights?: F32;
  /** O, without the padding. */
  rows: number;
  /** What an error in each column costs by itself: the diagonal of H'. */
  columnWeights: Float32Array;
  /** What it costs once the later columns have answered it: 1 / U'_ii^2, U' the factor of H'^-1. */
  columnCosts: Float64Array;
}

/**
 * Divides the scales out of W, consistently: an error e in a normalised column is s e in W, so the Hessian, its factor
 * and every weight take s along (leaving the Hessian as it was, as the released VPTQ does, more than doubles the
 * error). Row scales commute with the column sweep and only weigh the rows. Frees those tensors of `prepared` that are
 * not needed any more.
 */
export async function normalise(
  engine: Engine,
  prepared: PreparedLinear,
  scales: Scales,
  rows: number,
): Promise<NormalisedProblem> {
  const paddedRows = prepared.weights.shape[1];
  const diagonal = await engine.scope(() => engine.read(engine.diagonal(prepared.factor)));
  const { column, row } = scales;
  const columnCosts = Float64Array.from(prepared.order, (c, place) => ((column?.[c] ?? 1) / diagonal[place]) ** 2);
  return engine.scope(async () => {
    const vector = (values: Float32Array) => engine.upload(values, [values.length], "f32");
    let { weights, hessian } = prepared;
    let feedback = engine.scaleRows(prepared.factor, vector(diagonal.map((value) => 1 / value)));
    if (column) {
      const scale = vector(Float32Array.from(prepared.order, (c) => column[c]));
      const inverse = vector(Float32Array.from(prepared.order, (c) => 1 / column[c]));
      weights = engine.scaleRows(weights, inverse);
      hessian = engine.multiply(engine.scaleRows(hessian, scale), scale);
      feedback = engine.multiply(engine.scaleRows(feedback, scale), inverse);
    }
    let rowWeights: F32 | undefined;
    if (row) {
      const inverse = new Float32Array(paddedRows).fill(1);
      for (let r = 0; r < rows; r++) inverse[r] = 1 / row[r];
      weights = engine.multiply(weights, vector(inverse));
    }
    if (row || paddedRows > rows) {
      const squared = new Float32Array(paddedRows);
      for (let r = 0; r < rows; r++) squared[r] = row ? row[r] ** 2 : 1;
      rowWeights = vector(squared);
    }
    prepared.factor.dispose();
    if (weights !== prepared.weights) prepared.weights.dispose();
    if (hessian !== prepared.hessian) prepared.hessian.dispose();
    const columnWeights = await engine.read(engine.diagonal(hessian));
    return { weights, hessian, feedback, rowWeights, rows, columnWeights, columnCosts };
  });
}
