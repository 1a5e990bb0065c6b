import { describe, expect, it } from "vitest";
import type { Tolerance } from "../tolerances.js";
import type { Output } from "./case.js";
import { expectClose } from "./compare.js";

// What the conformance tests stand on: the comparison itself refuses what it must.

const output = (...data: number[]): Output => ({ path: "result", shape: [data.length], dtype: "f32", data });
const compare = (actual: number[], expected: number[], tolerance?: Tolerance) => () =>
  expectClose(output(...actual), output(...expected), tolerance, "here");

const TOLERANCES: [string, Tolerance | undefined][] = [
  ["none", undefined],
  ["absolute", { absolute: 1 }],
  ["relative", { relative: 0.5 }],
  ["of the largest", { ofLargest: 0.5 }],
  ["all", { absolute: 1, relative: 0.5, ofLargest: 0.5 }],
];
const [NAN, INFINITE] = [Number.NaN, Number.POSITIVE_INFINITY];

describe.each(TOLERANCES)("with tolerance: %s", (_, tolerance) => {
  it("a NaN for a number, and a number for a NaN, is an error wherever it stands", () => {
    for (const [actual, expected] of [
      [
        [1, NAN, 1],
        [1, 1, 1],
      ],
      [
        [1, 1, NAN],
        [1, INFINITE, 1],
      ],
      [
        [NAN, 1],
        [INFINITE, 1],
      ],
      [
        [1, 1, 1],
        [1, NAN, 1],
      ],
      [
        [1, NAN],
        [1, 0],
      ],
    ])
      expect(compare(actual, expected, tolerance)).toThrow(/must be equal|times the tolerance/);
  });

  it("an infinity for a number, and a number for an infinity, is an error; equal ones are none", () => {
    for (const [actual, expected] of [
      [
        [1, INFINITE],
        [1, 3e38],
      ],
      [
        [1, 3e38],
        [1, INFINITE],
      ],
      [
        [1, INFINITE],
        [1, -INFINITE],
      ],
    ])
      expect(compare(actual, expected, tolerance)).toThrow(/must be equal|times the tolerance/);
    compare([INFINITE, -INFINITE, NAN], [INFINITE, -INFINITE, NAN], tolerance)();
  });

  it("an infinite element does not free the others", () => {
    expect(compare([INFINITE, 7], [INFINITE, 2], tolerance)).toThrow(/element 1 of \[2\] is 7, expected 2/);
  });
});

it("measures by the tolerance", () => {
  compare([1.5], [1], { absolute: 0.5 })();
  expect(compare([1.51], [1], { absolute: 0.5 })).toThrow(/1.02 times the tolerance/);
  compare([15], [10], { relative: 0.5 })();
  compare([1, 10], [0, 10], { ofLargest: 0.1 })();
  expect(compare([1.01, 10], [0, 10], { ofLargest: 0.1 })).toThrow(/element 0/);
  expect(compare([1], [1 + 2 ** -52])).toThrow(/must be equal/);
});
