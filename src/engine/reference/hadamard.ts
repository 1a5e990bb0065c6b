import { checkHadamard } from "../check.js";
import type { Engine } from "../engine.js";
import type { EngineMemory } from "../memory.js";

export const hadamardOperations = (memory: EngineMemory): Pick<Engine, "hadamard"> => ({
  hadamard(x) {
    const { rows, width } = checkHadamard(x);
    const source = memory.host(x);
    const result = memory.empty(x.shape);
    const out = memory.host(result);
    for (let row = 0; row < rows; row++) {
      const values = Float64Array.from(source.subarray(row * width, (row + 1) * width));
      // a Kronecker product of as many H_2 as an index has bits: one bit after the other
      for (let bit = 1; bit < width; bit *= 2)
        for (let i = 0; i < width; i++) {
          if (Math.floor(i / bit) % 2 === 1) continue;
          const [a, b] = [values[i], values[i + bit]];
          values[i] = a + b;
          values[i + bit] = a - b;
        }
      for (let i = 0; i < width; i++) out[row * width + i] = values[i] / Math.sqrt(width);
    }
    return result;
  },
});
