import { expect } from "vitest";
import type { Tolerance } from "../tolerances.js";
import type { Case, Output } from "./case.js";

const isNaN16 = (dtype: string, bits: number): boolean =>
  (dtype === "f16" && (bits & 0x7fff) > 0x7c00) || (dtype === "bf16" && (bits & 0x7fff) > 0x7f80);

/** Equal up to the sign and payload of NaN; +0 and -0 are equal. */
const same = (dtype: string, a: number, b: number): boolean =>
  a === b || (Number.isNaN(a) && Number.isNaN(b)) || (isNaN16(dtype, a) && isNaN16(dtype, b));

/** Of the finite ones: an infinite element must not make all others free. */
function largest(data: ArrayLike<number>): number {
  let value = 0;
  for (let i = 0; i < data.length; i++)
    if (Number.isFinite(data[i]) && Math.abs(data[i]) > value) value = Math.abs(data[i]);
  return value;
}

/** Throws with the worst element when `actual` is farther from `expected` than the tolerance allows. */
export function expectClose(actual: Output, expected: Output, tolerance: Tolerance | undefined, where: string): void {
  expect({ path: actual.path, shape: [...actual.shape], dtype: actual.dtype }, where).toEqual({
    path: expected.path,
    shape: [...expected.shape],
    dtype: expected.dtype,
  });
  expect(actual.data.length, where).toBe(expected.data.length);
  const real = expected.dtype === "f32" || expected.dtype === "number";
  const { absolute = 0, relative = 0, ofLargest = 0 } = (real && tolerance) || {};
  const base = absolute + (ofLargest > 0 ? ofLargest * largest(expected.data) : 0);
  let worst = 1;
  let at = -1;
  for (let i = 0; i < expected.data.length; i++) {
    const [a, b] = [actual.data[i], expected.data[i]];
    if (same(expected.dtype, a, b)) continue;
    const excess = Math.abs(a - b) / (base + relative * Math.abs(b));
    if (excess <= worst) continue;
    worst = excess; // NaN, where only one of them is a number, comes here too
    at = i;
    if (Number.isNaN(excess)) break;
  }
  if (at >= 0)
    expect.fail(
      `${where}, ${actual.path}: element ${at} of [${expected.shape}] is ${actual.data[at]}, expected ${expected.data[at]}` +
        `: ${worst === Number.POSITIVE_INFINITY ? "must be equal" : `${worst.toFixed(2)} times the tolerance`}`,
    );
}

/** Compares all outputs of a case by its tolerances. */
export function expectOutputs({ tolerance }: Case, actual: Output[], expected: Output[], where: string): void {
  expect(
    actual.map(({ path }) => path),
    where,
  ).toEqual(expected.map(({ path }) => path));
  for (const [index, output] of actual.entries()) {
    const byName = tolerance as Readonly<Record<string, Tolerance>> | undefined;
    const one = isTolerance(tolerance) ? tolerance : byName?.[output.path.split(".")[0]];
    expectClose(output, expected[index], one, where);
  }
}

const isTolerance = (value: Case["tolerance"]): value is Tolerance =>
  value !== undefined && ["absolute", "relative", "ofLargest"].some((key) => key in value);
