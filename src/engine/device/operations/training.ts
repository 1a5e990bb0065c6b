import { checkAdamwStep } from "../../check.js";
import type { Engine } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";
import { runElements } from "./elementwise.js";

const ADAMW_STEP = declareKernel("training", "adamwStep", {
  reads: { gradient: "f32" },
  writes: { parameter: "f32", first: "f32", second: "f32" },
  numbers: {
    size: "u32",
    beta1: "f32",
    rest1: "f32",
    beta2: "f32",
    rest2: "f32",
    kept: "f32",
    rate: "f32",
    inverse2: "f32",
    epsilon: "f32",
  },
});

export const trainingOperations = (memory: DeviceMemory): Pick<Engine, "adamwStep"> => ({
  adamwStep(parameter, gradient, first, second, options) {
    checkAdamwStep(parameter, gradient, first, second, options);
    const { rate, beta1, beta2, epsilon, decay, step } = options;
    const corrected = rate / (1 - beta1 ** step);
    const inverse2 = 1 / (1 - beta2 ** step);
    const numbers = [beta1, 1 - beta1, beta2, 1 - beta2, 1 - rate * decay, corrected, inverse2, epsilon];
    runElements(memory, ADAMW_STEP, [gradient, parameter, first, second], numbers);
  },
});
