import { checkAllFinite, checkArgmax, checkColumns, checkDot, checkRowDots } from "../check.js";
import type { Engine } from "../engine.js";
import type { EngineMemory } from "../memory.js";

export const reductionOperations = (
  memory: EngineMemory,
): Pick<Engine, "dot" | "allFinite" | "argmax" | "sumRows" | "rowDots" | "columnAbsMax"> => ({
  async dot(a, b) {
    checkDot(a, b);
    const [x, y] = [memory.host(a), memory.host(b)];
    let sum = 0;
    for (let i = 0; i < x.length; i++) sum += x[i] * y[i];
    return sum;
  },

  async allFinite(a) {
    checkAllFinite(a);
    return memory.host(a).every(Number.isFinite);
  },

  argmax(a) {
    const { rows, columns } = checkArgmax(a);
    const source = memory.host(a);
    const result = memory.empty([rows], "i32");
    const out = memory.host(result);
    for (let row = 0; row < rows; row++) {
      let best = 0;
      for (let column = 1; column < columns; column++)
        if (source[row * columns + column] > source[row * columns + best]) best = column;
      out[row] = best;
    }
    return result;
  },

  sumRows(a) {
    const { rows, width } = checkColumns("sumRows", a);
    const source = memory.host(a);
    const sums = new Float64Array(width);
    for (let row = 0; row < rows; row++) for (let i = 0; i < width; i++) sums[i] += source[row * width + i];
    const result = memory.empty([width]);
    memory.host(result).set(sums);
    return result;
  },

  rowDots(a, b) {
    const { rows, width } = checkRowDots(a, b);
    const [x, y] = [memory.host(a), memory.host(b)];
    const result = memory.empty([rows]);
    const out = memory.host(result);
    for (let row = 0; row < rows; row++) {
      let sum = 0;
      for (let i = row * width; i < (row + 1) * width; i++) sum += x[i] * y[i];
      out[row] = sum;
    }
    return result;
  },

  columnAbsMax(a) {
    const { rows, width } = checkColumns("columnAbsMax", a);
    const source = memory.host(a);
    const result = memory.create([width]);
    const out = memory.host(result);
    for (let row = 0; row < rows; row++)
      for (let i = 0; i < width; i++) out[i] = Math.max(out[i], Math.abs(source[row * width + i]));
    return result;
  },
});
