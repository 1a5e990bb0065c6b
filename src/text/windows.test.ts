import { describe, expect, it } from "vitest";
import { consecutiveWindows, drawWindows } from "./windows.js";

const tokens = Int32Array.from({ length: 1003 }, (_, i) => i);

describe("drawWindows", () => {
  it("draws whole windows that do not overlap", () => {
    const windows = drawWindows(tokens, { count: 100, length: 10, seed: 0 });
    const starts = windows.map((window) => window[0]).sort((a, b) => a - b);
    expect(starts).toEqual(Array.from({ length: 100 }, (_, i) => 10 * i));
    for (const window of windows) expect([...window]).toEqual(Array.from({ length: 10 }, (_, i) => window[0] + i));
  });

  it("depends on the seed and on nothing else", () => {
    const starts = (seed: number, count: number) =>
      drawWindows(tokens, { count, length: 10, seed }).map((window) => window[0]);
    expect(starts(7, 20)).toEqual(starts(7, 20));
    expect(starts(7, 20)).not.toEqual(starts(8, 20));
    expect(starts(7, 20)).not.toEqual(Array.from({ length: 20 }, (_, i) => 10 * i));
    expect(starts(7, 100).slice(0, 20)).toEqual(starts(7, 20)); // fewer samples are the first of more
  });

  it("says how many windows the text gives, and what would fit", () => {
    expect(() => drawWindows(tokens, { count: 128, length: 100, seed: 0 })).toThrow(
      expect.objectContaining({
        kind: "usage",
        message: expect.stringMatching(/1003 tokens and gives 10 windows of 100: 128/),
        remedy: expect.stringMatching(/--samples 10, or --window 7/),
      }),
    );
    expect(() => drawWindows(new Int32Array(3), { count: 128, length: 100, seed: 0 })).toThrow(/gives 0 windows/);
    expect(() => drawWindows(tokens, { count: 0, length: 100, seed: 0 })).toThrow(/--samples/);
    expect(() => drawWindows(tokens, { count: 1, length: 1.5, seed: 0 })).toThrow(/--window/);
  });
});

describe("consecutiveWindows", () => {
  it("cuts from the start and drops the partial window", () => {
    const windows = consecutiveWindows(tokens, 100);
    expect(windows.map((window) => [window[0], window.length])).toEqual(
      Array.from({ length: 10 }, (_, i) => [100 * i, 100]),
    );
    expect(consecutiveWindows(tokens, 100, 3)).toEqual(windows.slice(0, 3));
    expect(consecutiveWindows(tokens, 1003)).toHaveLength(1);
  });

  it("refuses a text shorter than a window, and a window that predicts nothing", () => {
    expect(() => consecutiveWindows(tokens, 1004)).toThrow(/not one window of 1004/);
    expect(() => consecutiveWindows(tokens, 1)).toThrow(/--window/);
    expect(() => consecutiveWindows(tokens, 10, 0)).toThrow(/--limit/);
  });
});
