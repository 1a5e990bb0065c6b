import type { F32 } from "../../../tensor/index.js";
import { checkSquare } from "../../check.js";
import type { Engine } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";
import { copyRows, exceeds, type Rows } from "../windows.js";
import { elementwiseOperations } from "./elementwise.js";

const DIAGONAL = declareKernel("matrices", "diagonal", {
  reads: { a: "f32" },
  writes: { y: "f32" },
  numbers: { side: "u32" },
});
const ADD_DIAGONAL = declareKernel("matrices", "addDiagonal", {
  writes: { a: "f32" },
  numbers: { side: "u32", value: "f32" },
});

const elementsOf = (tensor: F32): Rows => ({ tensor, at: 0, stride: 1 });
const diagonalOf = (tensor: F32): Rows => ({ tensor, at: 0, stride: tensor.shape[0] + 1 });

const groupsOf = (side: number): number => Math.ceil(side / 256);

export const matrixOperations = (memory: DeviceMemory): Pick<Engine, "diagonal" | "addDiagonal"> => ({
  diagonal(a) {
    const n = checkSquare("diagonal", a);
    const y = memory.empty([n]);
    if (exceeds(memory, [a])) copyRows(memory, diagonalOf(a), elementsOf(y), n, 1);
    else memory.run(DIAGONAL, { groups: groupsOf(n), tensors: [a, y], numbers: [n] });
    return y;
  },

  addDiagonal(a, value) {
    const n = checkSquare("addDiagonal", a);
    if (!exceeds(memory, [a])) {
      memory.run(ADD_DIAGONAL, { groups: groupsOf(n), tensors: [a], numbers: [n, value] });
      return;
    }
    memory.scope(() => {
      const elements = memory.empty([n]);
      copyRows(memory, diagonalOf(a), elementsOf(elements), n, 1);
      const { add } = elementwiseOperations(memory);
      const added = add(memory.view(elements, [n, 1]), memory.upload(Float32Array.of(value), [1], "f32"));
      copyRows(memory, elementsOf(added), diagonalOf(a), n, 1);
    });
  },
});
