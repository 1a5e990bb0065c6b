import type { F32 } from "../../tensor/index.js";
import { checkAdamwStep, checkSameShapes, checkUnary } from "../check.js";
import type { AdamwOptions, Engine } from "../engine.js";
import type { WasmContext } from "./context.js";
import { BLOCK } from "./memory.js";

type Operations = Pick<Engine, "exp" | "relu" | "gelu" | "reluGrad" | "geluGrad" | "siluMultiplyGrad" | "adamwStep">;

/** Blocks worth a thread. */
const GRAIN = 4;
const blocksOf = (size: number): number => Math.ceil(size / BLOCK);

/** Nonlinear functions, their gradients and the optimizer's step (assembly/activation.ts, training.ts). */
export function activationOperations({ runtime, empty, address }: WasmContext): Operations {
  function unary(kernel: "exp" | "relu" | "gelu", a: F32): F32 {
    checkUnary(kernel, a);
    const source = address(a);
    const target = empty(a.shape);
    runtime.run(kernel, blocksOf(a.size), GRAIN, [address(target), source, a.size, 0]);
    return target;
  }

  function unaryGrad(kernel: "reluGrad" | "geluGrad", a: F32, grad: F32): F32 {
    checkSameShapes(kernel, a, grad);
    const args = [address(a), a.size, address(grad)];
    const target = empty(a.shape);
    runtime.run(kernel, blocksOf(a.size), GRAIN, [address(target), ...args]);
    return target;
  }

  function siluMultiplyGrad(gate: F32, up: F32, grad: F32): { gate: F32; up: F32 } {
    checkSameShapes("siluMultiplyGrad", gate, up, grad);
    const inputs = [gate, up, grad].map(address);
    const result = { gate: empty(gate.shape), up: empty(up.shape) };
    const args = [address(result.gate), address(result.up), ...inputs, gate.size];
    runtime.run("siluMultiplyGrad", blocksOf(gate.size), GRAIN, args);
    return result;
  }

  function adamwStep(parameter: F32, gradient: F32, first: F32, second: F32, options: AdamwOptions): void {
    checkAdamwStep(parameter, gradient, first, second, options);
    const { rate, beta1, beta2, epsilon, decay, step } = options;
    const tensors = [parameter, gradient, first, second].map(address);
    const corrected = rate / (1 - beta1 ** step);
    const root = 1 / Math.sqrt(1 - beta2 ** step);
    const numbers = [beta1, 1 - beta1, beta2, 1 - beta2, 1 - rate * decay, corrected, root, epsilon];
    const args = [...tensors, parameter.size, ...numbers.map((f32) => ({ f32 }))];
    runtime.run("adamwStep", blocksOf(parameter.size), GRAIN, args);
  }

  return {
    exp: (a) => unary("exp", a),
    relu: (a) => unary("relu", a),
    gelu: (a) => unary("gelu", a),
    reluGrad: (a, grad) => unaryGrad("reluGrad", a, grad),
    geluGrad: (a, grad) => unaryGrad("geluGrad", a, grad),
    siluMultiplyGrad,
    adamwStep,
  };
}
