import { checkSquare } from "../check.js";
import type { Engine } from "../engine.js";
import { notPositive, zeroOnDiagonal } from "../factor-errors.js";
import type { EngineMemory } from "../memory.js";

export const factorOperations = (memory: EngineMemory): Pick<Engine, "cholesky" | "triangularInverse"> => ({
  async cholesky(a) {
    const n = checkSquare("cholesky", a);
    const source = memory.host(a);
    const lower = new Float64Array(n * n);
    for (let i = 0; i < n; i++)
      for (let j = 0; j <= i; j++) {
        let rest = source[i * n + j];
        for (let p = 0; p < j; p++) rest -= lower[i * n + p] * lower[j * n + p];
        if (j < i) lower[i * n + j] = rest / lower[j * n + j];
        else if (rest > 0 && rest < Number.POSITIVE_INFINITY) lower[i * n + i] = Math.sqrt(rest);
        else throw notPositive(rest, i, n);
      }
    const result = memory.empty([n, n]);
    memory.host(result).set(lower);
    return result;
  },

  triangularInverse(lower) {
    const n = checkSquare("triangularInverse", lower);
    const source = memory.host(lower);
    const inverse = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      const pivot = source[i * n + i];
      if (pivot === 0) throw zeroOnDiagonal(i, n);
      // row i of L X = I: L_ii X_ij = I_ij - sum over p in j .. i - 1 of L_ip X_pj
      inverse[i * n + i] = 1 / pivot;
      for (let j = 0; j < i; j++) {
        let sum = 0;
        for (let p = j; p < i; p++) sum += source[i * n + p] * inverse[p * n + j];
        inverse[i * n + j] = -sum / pivot;
      }
    }
    const result = memory.empty([n, n]);
    memory.host(result).set(inverse);
    return result;
  },
});
