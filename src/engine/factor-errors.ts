import { numericError } from "../errors.js";

// What factorisations throw, the same on every engine.

/** `value`: what was left at the pivot, of which no root can be taken. */
export const notPositive = (value: number, pivot: number, n: number) =>
  numericError(
    `cholesky: expected a positive definite matrix, got ${value} at pivot ${pivot} of ${n}`,
    "add more to the diagonal",
  );

export const zeroOnDiagonal = (at: number, n: number) =>
  numericError(`triangularInverse: the diagonal element ${at} of ${n} is 0, so there is no inverse`);

/** The f32 that a kernel has noted among words of i32. */
export const floatOfBits = (bits: number): number => new Float32Array(Int32Array.of(bits).buffer)[0];
