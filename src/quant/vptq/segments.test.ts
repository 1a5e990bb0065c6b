import { describe, expect, it } from "vitest";
import type { VptqScheme } from "./scheme.js";
import { checkCodebooksFit, paddedRows, planSegments } from "./segments.js";

const scheme: VptqScheme = {
  vectorLength: 6,
  codebook: 64,
  residuals: [16],
  groups: 1,
  norm: "none",
  refine: 0,
  beam: 1,
  asymmetric: 0,
  iterations: 10,
  damping: 0.01,
};

describe("planSegments", () => {
  it("adds the remainder of the groups to the outliers, as the published layout does", () => {
    const outliers = { percent: 2, vectorLength: 4, codebook: 16 };
    // ceil(2 % of 1000) = 20; 980 columns in 3 groups leave 2
    const plan = planSegments(1000, { ...scheme, groups: 3, outliers });
    expect(plan.map(({ begin, end }) => [begin, end])).toEqual([
      [0, 22],
      [22, 348],
      [348, 674],
      [674, 1000],
    ]);
    expect(plan.map(({ vectorLength }) => vectorLength)).toEqual([4, 6, 6, 6]);
    expect(plan.map(({ codebooks }) => codebooks)).toEqual([[16], [64, 16], [64, 16], [64, 16]]);
  });

  it("covers all columns without outliers too", () => {
    const plan = planSegments(100, { ...scheme, groups: 7 });
    expect(plan[0].begin).toBe(0);
    expect(plan.at(-1)?.end).toBe(100);
    for (let s = 1; s < 7; s++) expect(plan[s].begin).toBe(plan[s - 1].end);
    for (const { begin, end } of plan) expect([14, 15]).toContain(end - begin);
  });

  it.each([
    [{ codebook: 100 }, /power of two/],
    [{ codebook: 1 }, /power of two/],
    [{ residuals: [131072] }, /power of two/],
    [{ vectorLength: 0 }, /vector length/],
    [{ groups: 0 }, /column groups/],
    [{ groups: 101 }, /do not fit into 100 columns/],
  ])("refuses %o", (change, message) => {
    expect(() => planSegments(100, { ...scheme, ...change })).toThrow(message);
  });
});

describe("checkCodebooksFit", () => {
  it("says what fits when there are fewer vectors than codewords", () => {
    // 512 x 512 with vectors of 8: 32768 of them, and upstream reads past its arrays (k 65536)
    const plan = planSegments(512, { ...scheme, vectorLength: 8, codebook: 65536, residuals: [] });
    expect(() => checkCodebooksFit(plan, 512, "model.layers.0.q_proj")).toThrow(
      /model\.layers\.0\.q_proj.*65536 codewords.*32768 vectors of 8/,
    );
    try {
      checkCodebooksFit(plan, 512, "q");
    } catch (error) {
      expect(error).toMatchObject({ kind: "usage", remedy: expect.stringContaining("32768 codewords or fewer") });
    }
    // outliers: 11 columns of 128 vectors
    const outliers = { percent: 2, vectorLength: 4, codebook: 4096 };
    expect(() => checkCodebooksFit(planSegments(512, { ...scheme, outliers }), 512, "q")).toThrow(/outlier codebook/);
    expect(() => checkCodebooksFit(planSegments(512, scheme), 512, "q")).not.toThrow();
  });
});

describe("paddedRows", () => {
  it("is a whole number of vectors of every length", () => {
    const outliers = { percent: 2, vectorLength: 4, codebook: 16 };
    expect(paddedRows(50, planSegments(100, { ...scheme, outliers }))).toBe(60);
    expect(paddedRows(48, planSegments(100, { ...scheme, outliers }))).toBe(48);
    expect(paddedRows(1, planSegments(100, scheme))).toBe(6);
  });
});
