import { checkGatherRows, checkIndexValues, checkTranspose } from "../check.js";
import type { Engine } from "../engine.js";
import type { EngineMemory } from "../memory.js";

export const layoutOperations = (memory: EngineMemory): Pick<Engine, "transpose" | "gatherRows"> => ({
  transpose(a) {
    const { rows, columns } = checkTranspose(a);
    const source = memory.host(a);
    const result = memory.empty([columns, rows]);
    const out = memory.host(result);
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++) out[column * rows + row] = source[row * columns + column];
    return result;
  },

  gatherRows(table, indices) {
    const { rows, width, shape } = checkGatherRows(table, indices);
    const [source, index] = [memory.host(table), memory.host(indices)];
    checkIndexValues("gatherRows", index, rows);
    const result = memory.empty(shape);
    const out = memory.host(result);
    for (let m = 0; m < index.length; m++)
      for (let i = 0; i < width; i++) out[m * width + i] = source[index[m] * width + i];
    return result;
  },
});
