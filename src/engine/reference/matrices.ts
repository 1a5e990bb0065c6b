import { checkGram, checkMatmul, checkSquare } from "../check.js";
import type { Engine } from "../engine.js";
import type { EngineMemory } from "../memory.js";

export const matrixOperations = (
  memory: EngineMemory,
): Pick<Engine, "matmul" | "gram" | "diagonal" | "addDiagonal"> => ({
  matmul(a, b, options = {}) {
    const { batch, m, k, n, shape } = checkMatmul(a, b, options);
    const { transposeA, transposeB, alpha = 1, accumulate } = options;
    const [left, right] = [memory.host(a), memory.host(b)];
    const result = accumulate ?? memory.create(shape);
    const out = memory.host(result);
    // op(a)[i, p] = left[i * rowA + p * columnA], op(b)[p, j] = right[p * rowB + j * columnB]
    const [rowA, columnA] = transposeA ? [1, m] : [k, 1];
    const [rowB, columnB] = transposeB ? [1, k] : [n, 1];
    for (let index = 0; index < batch; index++) {
      const [atA, atB, at] = [index * m * k, index * k * n, index * m * n];
      for (let i = 0; i < m; i++)
        for (let j = 0; j < n; j++) {
          let sum = 0;
          for (let p = 0; p < k; p++) sum += left[atA + i * rowA + p * columnA] * right[atB + p * rowB + j * columnB];
          out[at + i * n + j] += alpha * sum;
        }
    }
    return result;
  },

  gram(accumulator, x, weights) {
    const { rows, columns } = checkGram(accumulator, x, weights);
    const [out, source] = [memory.host(accumulator), memory.host(x)];
    const weight = weights && memory.host(weights);
    const sums = new Float64Array(columns * columns);
    for (let t = 0; t < rows; t++)
      for (let i = 0; i < columns; i++) {
        const weighted = source[t * columns + i] * (weight ? weight[t] : 1);
        for (let j = 0; j <= i; j++) sums[i * columns + j] += weighted * source[t * columns + j];
      }
    for (let i = 0; i < columns; i++)
      for (let j = 0; j <= i; j++) {
        out[i * columns + j] += sums[i * columns + j];
        out[j * columns + i] = out[i * columns + j];
      }
  },

  diagonal(a) {
    const n = checkSquare("diagonal", a);
    const source = memory.host(a);
    const result = memory.empty([n]);
    const out = memory.host(result);
    for (let i = 0; i < n; i++) out[i] = source[i * n + i];
    return result;
  },

  addDiagonal(a, value) {
    const n = checkSquare("addDiagonal", a);
    const out = memory.host(a);
    const rounded = Math.fround(value);
    for (let i = 0; i < n; i++) out[i * n + i] += rounded;
  },
});
