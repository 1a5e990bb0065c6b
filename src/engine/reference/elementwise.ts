import type { F32 } from "../../tensor/index.js";
import { checkAddInto, checkElementwise, checkScale, checkSiluMultiply, checkUnary, checkWithRows } from "../check.js";
import type { Engine } from "../engine.js";
import type { EngineMemory } from "../memory.js";
import { normalDistribution } from "./normal.js";

export function elementwiseOperations(
  memory: EngineMemory,
): Pick<
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
> {
  /** result[i] = operation(a[i], b[i modulo the size of b]). */
  const elementwise = (name: string, operation: (a: number, b: number) => number) => (a: F32, b: F32) => {
    checkElementwise(name, a, b);
    const [left, right] = [memory.host(a), memory.host(b)];
    const result = memory.empty(a.shape);
    const out = memory.host(result);
    for (let i = 0; i < out.length; i++) out[i] = operation(left[i], right[i % right.length]);
    return result;
  };

  /** result[r, ..] = operation(a[r, ..], ofRows[r]). */
  const withRows = (name: string, operation: (a: number, ofRow: number) => number) => (a: F32, ofRows: F32) => {
    const { rows, width } = checkWithRows(name, a, ofRows);
    const [source, values] = [memory.host(a), memory.host(ofRows)];
    const result = memory.empty(a.shape);
    const out = memory.host(result);
    for (let row = 0; row < rows; row++)
      for (let i = row * width; i < (row + 1) * width; i++) out[i] = operation(source[i], values[row]);
    return result;
  };

  const unary = (name: string, operation: (a: number) => number) => (a: F32) => {
    checkUnary(name, a);
    const source = memory.host(a);
    const result = memory.empty(a.shape);
    const out = memory.host(result);
    for (let i = 0; i < out.length; i++) out[i] = operation(source[i]);
    return result;
  };

  return {
    add: elementwise("add", (a, b) => a + b),
    subtract: elementwise("subtract", (a, b) => a - b),
    multiply: elementwise("multiply", (a, b) => a * b),
    divide: elementwise("divide", (a, b) => a / b),
    exp: unary("exp", Math.exp),
    relu: unary("relu", (a) => Math.max(a, 0)),
    gelu: unary("gelu", (a) => a * normalDistribution(a)),

    scale(a, factor) {
      checkScale(a);
      const source = memory.host(a);
      const result = memory.empty(a.shape);
      const out = memory.host(result);
      const rounded = Math.fround(factor);
      for (let i = 0; i < out.length; i++) out[i] = source[i] * rounded;
      return result;
    },

    addInto(target, a, factor = 1) {
      checkAddInto(target, a);
      const [out, source] = [memory.host(target), memory.host(a)];
      const rounded = Math.fround(factor);
      for (let i = 0; i < out.length; i++) out[i] += source[i] * rounded;
    },

    scaleRows: withRows("scaleRows", (a, factor) => a * factor),
    divideRows: withRows("divideRows", (a, divisor) => a / divisor),

    siluMultiply(gate, up) {
      checkSiluMultiply(gate, up);
      const [g, u] = [memory.host(gate), memory.host(up)];
      const result = memory.empty(gate.shape);
      const out = memory.host(result);
      for (let i = 0; i < out.length; i++) out[i] = (g[i] / (1 + Math.exp(-g[i]))) * u[i];
      return result;
    },
  };
}
