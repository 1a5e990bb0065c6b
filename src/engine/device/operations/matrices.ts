import { checkSquare } from "../../check.js";
import type { Engine } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";

const DIAGONAL = declareKernel("matrices", "diagonal", {
  reads: { a: "f32" },
  writes: { y: "f32" },
  numbers: { side: "u32" },
});
const ADD_DIAGONAL = declareKernel("matrices", "addDiagonal", {
  writes: { a: "f32" },
  numbers: { side: "u32", value: "f32" },
});

const groupsOf = (side: number): number => Math.ceil(side / 256);

export const matrixOperations = (memory: DeviceMemory): Pick<Engine, "diagonal" | "addDiagonal"> => ({
  diagonal(a) {
    const n = checkSquare("diagonal", a);
    const y = memory.empty([n]);
    memory.run(DIAGONAL, { groups: groupsOf(n), tensors: [a, y], numbers: [n] });
    return y;
  },

  addDiagonal(a, value) {
    const n = checkSquare("addDiagonal", a);
    memory.run(ADD_DIAGONAL, { groups: groupsOf(n), tensors: [a], numbers: [n, value] });
  },
});
