import type { F32 } from "../tensor/index.js";
import { affineRecord, gridOptions, groupSize } from "./affine.js";
import type { AffineScheme } from "./affine-scheme.js";
import { readDiagonal } from "./factor.js";
import type { LinearMethod, LinearStatistics, MethodContext, QuantizedLinear } from "./method.js";
import { identityOrder } from "./permute.js";
import { checkWeight, transposePadded } from "./prepare.js";
import { relativeProxy } from "./proxy.js";

/**
 * Rounding to nearest on the min-max grid of each row and group: weight [O, I]. Needs no statistics; with them, the
 * proxy error is measured on their Hessian instead of the identity.
 */
export function quantizeRtn(
  weight: F32,
  statistics: LinearStatistics | undefined,
  scheme: AffineScheme,
  context: MethodContext,
): Promise<QuantizedLinear> {
  const { engine, name } = context;
  return engine.scope(async () => {
    await checkWeight(engine, weight, name);
    const [rows, columns] = weight.shape;
    const group = groupSize(scheme, columns);
    const order = identityOrder(columns);
    const transposed = transposePadded(engine, weight, rows);
    const sweep = engine.affineSweep(transposed, undefined, gridOptions(scheme, group, order));
    const record = await affineRecord(engine, sweep, scheme, group, order);
    let hessian: F32 | undefined;
    if (statistics) {
      const diagonal = await readDiagonal(engine, statistics.hessian);
      hessian = engine.copy(statistics.hessian);
      engine.addDiagonal(hessian, (scheme.damping * diagonal.reduce((sum, value) => sum + value, 0)) / columns);
    }
    const proxyError = await relativeProxy(engine, transposed, sweep.quantized, hessian);
    return {
      record,
      metrics: { proxyError, damping: statistics ? scheme.damping : 0, deadColumns: 0, notes: [] },
    };
  });
}

export const rtn: LinearMethod<AffineScheme> = { name: "rtn", needs: "nothing", quantizeLinear: quantizeRtn };
