import { checkAllFinite, checkArgmax, checkDot } from "../check.js";
import type { Engine } from "../engine.js";
import type { EngineMemory } from "../memory.js";

export const reductionOperations = (memory: EngineMemory): Pick<Engine, "dot" | "allFinite" | "argmax"> => ({
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
});
