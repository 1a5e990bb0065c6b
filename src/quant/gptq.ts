import type { F32 } from "../tensor/index.js";
import { affineRecord, gridOptions, groupSize } from "./affine.js";
import type { AffineScheme } from "./affine-scheme.js";
import { feedbackOf } from "./factor.js";
import type { LinearMethod, LinearStatistics, MethodContext, QuantizedLinear } from "./method.js";
import { descendingOrder } from "./permute.js";
import { prepareLinear } from "./prepare.js";
import { relativeProxy } from "./proxy.js";

/**
 * GPTQ (Frantar et al., arXiv 2210.17323): columns are rounded one after the other, and the error of each is fed back
 * into those to come.
 *
 * With `actOrder` the columns with the largest Hessian diagonal come first and the grids are those of the weights as
 * they were (static groups), so that a group is a run of columns on disk. Without it a group's grid is taken from the
 * updated weights when its turn comes. weight [O, I]; `asymmetric` aims at the full-precision stream's outputs when the
 * statistics hold a correction (see `prepareLinear`).
 */
export function quantizeGptq(
  weight: F32,
  statistics: LinearStatistics | undefined,
  scheme: AffineScheme,
  context: MethodContext,
): Promise<QuantizedLinear> {
  const { engine } = context;
  return engine.scope(async () => {
    const [rows, columns] = weight.shape;
    const group = groupSize(scheme, columns);
    const prepared = await prepareLinear(
      weight,
      statistics,
      {
        paddedRows: rows,
        damping: scheme.damping,
        asymmetric: scheme.asymmetric,
        order: scheme.actOrder ? descendingOrder : undefined,
      },
      context,
    );
    const { weights, hessian, order, damping, deadColumns, notes } = prepared;
    const feedback = await feedbackOf(engine, prepared.factor);
    prepared.factor.dispose();
    const options = gridOptions(scheme, group, order);
    const grid = scheme.actOrder ? engine.affineGrid(weights, options) : undefined;
    const sweep = engine.affineSweep(weights, feedback, { ...options, grid });
    const record = await affineRecord(engine, sweep, scheme, group, order);
    const proxyError = await relativeProxy(engine, weights, sweep.quantized, hessian);
    return { record, metrics: { proxyError, damping, deadColumns, notes } };
  });
}

export const gptq: LinearMethod<AffineScheme> = { name: "gptq", needs: "hessian", quantizeLinear: quantizeGptq };
