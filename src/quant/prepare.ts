import type { Engine } from "../engine/engine.js";
import { numericError, usageError } from "../errors.js";
import type { F32 } from "../tensor/index.js";
import { dampedFactor, readDiagonal } from "./factor.js";
import type { LinearStatistics, MethodContext } from "./method.js";
import { identityOrder, transposedPermutation } from "./permute.js";

/** W as the methods hold it: [I, P], one column of W a row, padded to P rows of W by zeros. Weight [O, I]. */
export function transposePadded(engine: Engine, weight: F32, paddedRows: number): F32 {
  const [rows, columns] = weight.shape;
  if (paddedRows === rows) return engine.transpose(weight);
  return engine.scope(() => {
    const padded = engine.create([paddedRows, columns]);
    engine.copyInto(padded, weight);
    return engine.transpose(padded);
  });
}

/** Throws "usage" unless weight is [O, I] and "numeric" unless it is finite. */
export async function checkWeight(engine: Engine, weight: F32, name: string): Promise<void> {
  if (weight.shape.length !== 2 || weight.size === 0)
    throw usageError(`${name}: expected a weight [rows, columns], got [${weight.shape}]`);
  if (!(await engine.allFinite(weight)))
    throw numericError(`${name}: the weights contain NaN or infinity`, "the checkpoint is damaged: download it again");
}

export interface PrepareOptions {
  /** P, at least O. */
  paddedRows: number;
  /** Added to the Hessian's diagonal, as a share of its mean. */
  damping: number;
  /** Strength of the correction when the statistics hold one. */
  asymmetric: number;
  /** The order in which the columns are visited, from the Hessian's diagonal [I]; default as they stand. */
  order?: (diagonal: Float32Array) => Int32Array;
}

/** A linear ready for a column sweep: everything in sweep order, W transposed. */
export interface PreparedLinear {
  /** Target weights [I, P]: dead columns zero, corrected. */
  weights: F32;
  /** Damped, [I, I]. */
  hessian: F32;
  /** U with hessian^-1 = U^T U, [I, I]. */
  factor: F32;
  /** Column of W at each place of the sweep. */
  order: Int32Array;
  damping: number;
  deadColumns: number;
  notes: string[];
}

/**
 * Checks, dead columns, order, damping, factor and correction: what GPTQ and VPTQ have in common. weight [O, I].
 * Columns whose inputs were never active (diagonal 0) get zero weights, as GPTQ does: nothing says what they are for.
 */
export async function prepareLinear(
  weight: F32,
  statistics: LinearStatistics | undefined,
  options: PrepareOptions,
  context: MethodContext,
): Promise<PreparedLinear> {
  const { engine, name } = context;
  await checkWeight(engine, weight, name);
  if (!statistics) throw usageError(`${name}: this method needs the statistics of its inputs`, "calibrate first");
  await checkStatistics(engine, statistics, weight.shape[1], name);
  return engine.scope(async () => {
    const diagonal = await readDiagonal(engine, statistics.hessian);
    const order = options.order?.(diagonal) ?? identityOrder(diagonal.length);
    const damped = await dampedFactor(engine, statistics.hessian, order, options.damping, name);
    const notes: string[] = [];
    if (damped.damping > options.damping)
      notes.push(`damping was raised from ${options.damping} to ${damped.damping}: the Hessian is near singular`);
    const deadColumns = diagonal.reduce((count, value) => (value > 0 ? count : count + 1), 0);
    if (deadColumns > 0)
      notes.push(`${deadColumns} input columns were never active; their weights are quantized as zero`);
    const weights = engine.scope(() => {
      const natural = transposePadded(engine, weight, options.paddedRows);
      const columns = engine.gatherRows(natural, engine.upload(order, [order.length], "i32"));
      if (statistics.correction && options.asymmetric > 0)
        correct(engine, columns, statistics.correction, damped.factor, order, options.asymmetric);
      if (deadColumns === 0) return columns;
      const alive = Float32Array.from(order, (column) => (diagonal[column] > 0 ? 1 : 0));
      return engine.scaleRows(columns, engine.upload(alive, [alive.length], "f32"));
    });
    return { weights, ...damped, order, deadColumns, notes };
  });
}

/**
 * W <- W (I + strength D H^-1), D = E[(x_full - x) x^T], in place on W^T [I, P]: the W' that answers the quantized
 * stream's inputs x as W answers x_full, by least squares, for strength 1. As GPTAQ (arXiv 2504.02692) in closed form.
 */
function correct(engine: Engine, columns: F32, correction: F32, factor: F32, order: Int32Array, strength: number) {
  engine.scope(() => {
    // in sweep order: (D^T W^T), then H^-1 = U^T U of it
    const turned = transposedPermutation(engine, correction, engine.upload(order, [order.length], "i32"));
    const missing = engine.matmul(turned, columns, { exact: true });
    turned.dispose();
    const half = engine.matmul(factor, missing, { exact: true });
    engine.matmul(factor, half, { transposeA: true, alpha: strength, accumulate: columns, exact: true });
  });
}

async function checkStatistics(engine: Engine, statistics: LinearStatistics, columns: number, name: string) {
  for (const [what, matrix] of [
    ["Hessian", statistics.hessian],
    ["correction", statistics.correction],
  ] as const) {
    if (!matrix) continue;
    if (matrix.shape.length !== 2 || matrix.shape[0] !== columns || matrix.shape[1] !== columns)
      throw usageError(`${name}: expected a ${what} [${columns}, ${columns}], got [${matrix.shape}]`);
    if (!(await engine.allFinite(matrix)))
      throw numericError(`${name}: the ${what} of its inputs contains NaN or infinity`, "calibrate again");
  }
}
