import { checkCrossEntropy, checkIndexValues, checkKlDivergence } from "../check.js";
import type { Engine } from "../engine.js";
import type { EngineMemory } from "../memory.js";

export const lossOperations = (memory: EngineMemory): Pick<Engine, "crossEntropy" | "klDivergence"> => ({
  crossEntropy(logits, targets) {
    const { rows, columns } = checkCrossEntropy(logits, targets);
    const [source, target] = [memory.host(logits), memory.host(targets)];
    checkIndexValues("crossEntropy", target, columns);
    const result = memory.empty([rows]);
    const out = memory.host(result);
    for (let row = 0; row < rows; row++) {
      const at = row * columns;
      const { largest, log } = logSumExp(source, at, columns);
      out[row] = largest - source[at + target[row]] + log;
    }
    return result;
  },

  klDivergence(reference, logits) {
    const { rows, columns } = checkKlDivergence(reference, logits);
    const [p, q] = [memory.host(reference), memory.host(logits)];
    const result = memory.empty([rows]);
    const out = memory.host(result);
    for (let row = 0; row < rows; row++) {
      const at = row * columns;
      const sumP = logSumExp(p, at, columns);
      const sumQ = logSumExp(q, at, columns);
      let divergence = 0;
      for (let i = at; i < at + columns; i++) {
        const logP = p[i] - sumP.largest - sumP.log;
        const logQ = q[i] - sumQ.largest - sumQ.log;
        divergence += Math.exp(logP) * (logP - logQ);
      }
      out[row] = Math.max(0, divergence);
    }
    return result;
  },
});

/** log sum exp(x_i) over `length` elements from `at` on, in two parts: the log would drown in a large x. */
function logSumExp(x: Float32Array, at: number, length: number): { largest: number; log: number } {
  let largest = Number.NEGATIVE_INFINITY;
  for (let i = at; i < at + length; i++) largest = Math.max(largest, x[i]);
  let sum = 0;
  for (let i = at; i < at + length; i++) sum += Math.exp(x[i] - largest);
  return { largest, log: Math.log(sum) };
}
