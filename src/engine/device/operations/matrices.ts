import { checkSquare } from "../../check.js";
import type { Engine } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";
import { runWindows } from "../windows.js";

const DIAGONAL = declareKernel("matrices", "diagonal", {
  reads: { a: "f32" },
  writes: { y: "f32" },
  numbers: { count: "u32", step: "u32" },
});
const ADD_DIAGONAL = declareKernel("matrices", "addDiagonal", {
  writes: { a: "f32" },
  numbers: { count: "u32", step: "u32", value: "f32" },
});

const groupsOf = (count: number): number => Math.ceil(count / 256);

export const matrixOperations = (memory: DeviceMemory): Pick<Engine, "diagonal" | "addDiagonal"> => ({
  diagonal(a) {
    const n = checkSquare("diagonal", a);
    const y = memory.empty([n]);
    runWindows(memory, DIAGONAL, [a, y], { extent: n, each: [n + 1, 1] }, (count) => {
      return { groups: groupsOf(count), numbers: [count, n + 1] };
    });
    return y;
  },

  addDiagonal(a, value) {
    const n = checkSquare("addDiagonal", a);
    runWindows(memory, ADD_DIAGONAL, [a], { extent: n, each: [n + 1] }, (count) => {
      return { groups: groupsOf(count), numbers: [count, n + 1, value] };
    });
  },
});
