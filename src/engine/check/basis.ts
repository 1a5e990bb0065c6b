import { type BitwrightError, usageError } from "../../errors.js";
import type { Tensor } from "../../tensor/index.js";

export const describe = ({ dtype, shape }: Tensor): string => `${dtype} [${shape.join(", ")}]`;

/** "operation: expected .., got f32 [2, 3], i32 [4]". */
export function misfit(operation: string, expected: string, ...came: (Tensor | undefined)[]): BitwrightError {
  const given = came.filter((tensor) => tensor !== undefined).map(describe);
  return usageError(`${operation}: expected ${expected}, got ${given.join(", ")}`);
}

export const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 0;
export const isF32 = (...tensors: (Tensor | undefined)[]): boolean =>
  tensors.every((t) => t === undefined || t.dtype === "f32");

/** Do the elements of two tensors share memory? */
function overlap(a: Tensor, b: Tensor): boolean {
  if (a.buffer !== b.buffer || a.size === 0 || b.size === 0) return false;
  return a.byteOffset < b.byteOffset + b.bytes && b.byteOffset < a.byteOffset + a.bytes;
}

export function checkApart(operation: string, target: Tensor, ...inputs: (Tensor | undefined)[]): void {
  if (inputs.some((input) => input !== undefined && overlap(target, input)))
    throw usageError(
      `${operation}: expected a target that shares no memory with the inputs, got one that does`,
      "copy the input first",
    );
}

/** Every element within 0 .. bound - 1. */
export function checkIndexValues(operation: string, values: Int32Array, bound: number): void {
  for (let at = 0; at < values.length; at++)
    if (values[at] < 0 || values[at] >= bound)
      throw usageError(`${operation}: expected indices within 0 .. ${bound - 1}, got ${values[at]} at ${at}`);
}
