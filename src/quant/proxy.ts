import type { Engine } from "../engine/engine.js";
import type { F32 } from "../tensor/index.js";

/**
 * tr(E H E^T), E = W - Q, with W and Q transposed [I, P] and H [I, I], default the identity: how much the linear's
 * outputs change, summed over its rows. `rowWeights` [P] weigh the rows of W.
 */
export function proxyLoss(
  engine: Engine,
  weights: F32,
  quantized: F32 | undefined,
  hessian?: F32,
  rowWeights?: F32,
): Promise<number> {
  return engine.scope(() => {
    const error = quantized ? engine.subtract(weights, quantized) : weights;
    const weighted = rowWeights ? engine.multiply(error, rowWeights) : error;
    return engine.dot(weighted, hessian ? engine.matmul(hessian, error, { exact: true }) : error);
  });
}

/** tr(E H E^T) / tr(W H W^T); 0 when nothing comes out of the linear anyway. */
export async function relativeProxy(
  engine: Engine,
  weights: F32,
  quantized: F32,
  hessian?: F32,
  rowWeights?: F32,
): Promise<number> {
  const loss = await proxyLoss(engine, weights, quantized, hessian, rowWeights);
  const signal = await proxyLoss(engine, weights, undefined, hessian, rowWeights);
  return signal > 0 ? Math.max(0, loss / signal) : 0;
}
