import type { F32, Tensor } from "../../../tensor/index.js";
import {
  checkAddInto,
  checkElementwise,
  checkSameShapes,
  checkScale,
  checkSiluMultiply,
  checkUnary,
  checkWithRows,
} from "../../check.js";
import type { Engine } from "../../engine.js";
import { declareKernel, type KernelDeclaration } from "../device.js";
import type { DeviceMemory } from "../memory.js";
import { runWindows } from "../windows.js";

type Operations = Pick<
  Engine,
  | "add"
  | "subtract"
  | "multiply"
  | "divide"
  | "scale"
  | "addInto"
  | "scaleRows"
  | "divideRows"
  | "siluMultiply"
  | "exp"
  | "relu"
  | "gelu"
  | "siluMultiplyGrad"
  | "reluGrad"
  | "geluGrad"
>;

const binaryKernel = (name: string) =>
  declareKernel("elementwise", name, {
    reads: { a: "f32", b: "f32" },
    writes: { y: "f32" },
    numbers: { size: "u32", repeat: "u32" },
  });
const unaryKernel = (name: string) =>
  declareKernel("elementwise", name, { reads: { a: "f32" }, writes: { y: "f32" }, numbers: { size: "u32" } });
const gradKernel = (name: string) =>
  declareKernel("elementwise", name, {
    reads: { a: "f32", grad: "f32" },
    writes: { y: "f32" },
    numbers: { size: "u32" },
  });

const ADD = binaryKernel("add");
const SUBTRACT = binaryKernel("subtract");
const MULTIPLY = binaryKernel("multiply");
const DIVIDE = binaryKernel("divide");
const EXP = unaryKernel("expOf");
const RELU = unaryKernel("relu");
const GELU = unaryKernel("gelu");
const RELU_GRAD = gradKernel("reluGrad");
const GELU_GRAD = gradKernel("geluGrad");
const SCALE = declareKernel("elementwise", "scale", {
  reads: { a: "f32" },
  writes: { y: "f32" },
  numbers: { size: "u32", factor: "f32" },
});
const ADD_INTO = declareKernel("elementwise", "addInto", {
  reads: { a: "f32" },
  writes: { y: "f32" },
  numbers: { size: "u32", factor: "f32" },
});
const SCALE_ROWS = declareKernel("elementwise", "scaleRows", {
  reads: { a: "f32", factors: "f32" },
  writes: { y: "f32" },
  numbers: { size: "u32", width: "u32" },
});
const DIVIDE_ROWS = declareKernel("elementwise", "divideRows", {
  reads: { a: "f32", divisors: "f32" },
  writes: { y: "f32" },
  numbers: { size: "u32", width: "u32" },
});
const SILU_MULTIPLY = declareKernel("elementwise", "siluMultiply", {
  reads: { gate: "f32", up: "f32" },
  writes: { y: "f32" },
  numbers: { size: "u32" },
});
const SILU_MULTIPLY_GRAD = declareKernel("elementwise", "siluMultiplyGrad", {
  reads: { gate: "f32", up: "f32", grad: "f32" },
  writes: { gateGrad: "f32", upGrad: "f32" },
  numbers: { size: "u32" },
});

/** Elements of a group: 256 threads, 4 elements each, 256 apart. */
const GROUP = 1024;
export const elementGroups = (size: number): number => Math.ceil(size / GROUP);

/** Elements of each tensor, the result's too: casts write whole words, so windows begin at one of the smallest type's. */
const STEP = 4;
const EACH = [STEP, STEP, STEP, STEP, STEP];

/** Runs a kernel on tensors of one size, element by element; its first number is their size. */
export function runElements(
  memory: DeviceMemory,
  kernel: KernelDeclaration,
  tensors: readonly Tensor[],
  numbers: readonly number[] = [],
  constants: readonly number[] = [],
): void {
  runWindows(memory, kernel, tensors, { extent: tensors[0].size, step: STEP, each: EACH }, (count) => {
    return { groups: elementGroups(count), numbers: [count, ...numbers], constants };
  });
}

/** Elementwise operations and their gradients. */
export function elementwiseOperations(memory: DeviceMemory): Operations {
  const binary = (name: string, kernel: KernelDeclaration) => (a: F32, b: F32) => {
    checkElementwise(name, a, b);
    const y = memory.empty(a.shape);
    // rows of the size of b, or single elements
    const rows = a.size > b.size;
    const [width, repeated] = rows ? [b.size, 0] : [1, 1];
    runWindows(memory, kernel, [a, b, y], { extent: a.size / width, each: [width, repeated, width] }, (count) => {
      return { groups: elementGroups(count * width), numbers: [count * width, rows ? width : count] };
    });
    return y;
  };
  const withRows = (name: string, kernel: KernelDeclaration) => (a: F32, ofRows: F32) => {
    const { rows, width } = checkWithRows(name, a, ofRows);
    const y = memory.empty(a.shape);
    runWindows(memory, kernel, [a, ofRows, y], { extent: rows, each: [width, 1, width] }, (count) => {
      return { groups: elementGroups(count * width), numbers: [count * width, width] };
    });
    return y;
  };
  const unary = (name: string, kernel: KernelDeclaration) => (a: F32) => {
    checkUnary(name, a);
    const y = memory.empty(a.shape);
    runElements(memory, kernel, [a, y]);
    return y;
  };
  const unaryGrad = (name: string, kernel: KernelDeclaration) => (a: F32, grad: F32) => {
    checkSameShapes(name, a, grad);
    const y = memory.empty(a.shape);
    runElements(memory, kernel, [a, grad, y]);
    return y;
  };

  return {
    add: binary("add", ADD),
    subtract: binary("subtract", SUBTRACT),
    multiply: binary("multiply", MULTIPLY),
    divide: binary("divide", DIVIDE),
    exp: unary("exp", EXP),
    relu: unary("relu", RELU),
    gelu: unary("gelu", GELU),
    reluGrad: unaryGrad("reluGrad", RELU_GRAD),
    geluGrad: unaryGrad("geluGrad", GELU_GRAD),

    scale(a, factor) {
      checkScale(a);
      const y = memory.empty(a.shape);
      runElements(memory, SCALE, [a, y], [factor]);
      return y;
    },

    addInto(target, a, factor = 1) {
      checkAddInto(target, a);
      runElements(memory, ADD_INTO, [a, target], [factor]);
    },

    scaleRows: withRows("scaleRows", SCALE_ROWS),
    divideRows: withRows("divideRows", DIVIDE_ROWS),

    siluMultiply(gate, up) {
      checkSiluMultiply(gate, up);
      const y = memory.empty(gate.shape);
      runElements(memory, SILU_MULTIPLY, [gate, up, y]);
      return y;
    },

    siluMultiplyGrad(gate, up, grad) {
      checkSameShapes("siluMultiplyGrad", gate, up, grad);
      const gateGrad = memory.empty(gate.shape);
      const upGrad = memory.empty(up.shape);
      runElements(memory, SILU_MULTIPLY_GRAD, [gate, up, grad, gateGrad, upGrad]);
      return { gate: gateGrad, up: upGrad };
    },
  };
}
