import { describe, expect, it } from "vitest";
import { type CodebookShape, shapeBits } from "./bits.js";

/** The linears of a LLaMA block: four of attention, three of the MLP. */
const block = (width: number, mlp: number): [rows: number, columns: number][] => [
  [width, width],
  [width, width],
  [width, width],
  [width, width],
  [mlp, width],
  [mlp, width],
  [width, mlp],
];
const LLAMA_2_7B = block(4096, 11008);
const LLAMA_2_13B = block(5120, 13824);

interface Setting {
  vectorLength: number;
  codewords: number[];
  groups?: number;
  outliers?: { percent: number; vectorLength: number; codewords: number };
}

/** VPTQ as the paper stores it: scale and bias of each column, and the permutation. */
function vptqShape(rows: number, columns: number, setting: Setting): CodebookShape {
  const groups = setting.groups ?? 1;
  const { outliers } = setting;
  let outlierColumns = Math.ceil((columns * (outliers?.percent ?? 0)) / 100);
  outlierColumns += (columns - outlierColumns) % groups;
  const { vectorLength, codewords } = setting;
  const segments = Array.from({ length: groups }, () => ({
    columns: (columns - outlierColumns) / groups,
    vectorLength,
    codewords,
  }));
  if (outliers) {
    segments.unshift({
      columns: outlierColumns,
      vectorLength: outliers.vectorLength,
      codewords: [outliers.codewords],
    });
  }
  return {
    kind: "codebook",
    rows,
    columns,
    hasOutliers: outliers !== undefined,
    segments,
    columnOrder: true,
    columnScale: true,
    columnBias: true,
    rowScale: false,
    bias: false,
  };
}

function paperBits(linears: [number, number][], setting: Setting): number {
  let bits = 0;
  let weights = 0;
  for (const [rows, columns] of linears) {
    bits += shapeBits(vptqShape(rows, columns, setting)).total;
    weights += rows * columns;
  }
  return bits / weights;
}

describe("bits per weight", () => {
  // arXiv 2409.17066, tables 8 and 10
  const outliers = { percent: 1, vectorLength: 4, codewords: 4096 };
  it.each<[string, [number, number][], Setting, number]>([
    ["7B v6 k4096", LLAMA_2_7B, { vectorLength: 6, codewords: [4096] }, 2.02],
    ["13B v6 k4096", LLAMA_2_13B, { vectorLength: 6, codewords: [4096] }, 2.02],
    ["13B v8 k65536", LLAMA_2_13B, { vectorLength: 8, codewords: [65536] }, 2.19],
    ["13B v12 k4096+4096", LLAMA_2_13B, { vectorLength: 12, codewords: [4096, 4096] }, 2.04],
    ["13B the same, 1 % outliers", LLAMA_2_13B, { vectorLength: 12, codewords: [4096, 4096], outliers }, 2.06],
    ["13B and 4 groups", LLAMA_2_13B, { vectorLength: 12, codewords: [4096, 4096], groups: 4, outliers }, 2.17],
    ["13B v4 k4096", LLAMA_2_13B, { vectorLength: 4, codewords: [4096] }, 3.01],
    ["13B v6 k4096+4096", LLAMA_2_13B, { vectorLength: 6, codewords: [4096, 4096] }, 4.02],
  ])("equals the paper's: %s", (_name, linears, setting, expected) => {
    expect(Math.abs(paperBits(linears, setting) - expected)).toBeLessThan(0.011); // printed with two digits
  });

  it("counts every part once", () => {
    const shape = vptqShape(10, 7, {
      vectorLength: 4,
      codewords: [16, 8],
      groups: 2,
      outliers: { percent: 14, vectorLength: 2, codewords: 4 },
    });
    // outlier columns: ceil(0.98) = 1, then two groups of 3
    expect(shape.segments.map(({ columns }) => columns)).toEqual([1, 3, 3]);
    const order = 16 * 7;
    const scales = 32 * 7;
    const codebooks = 16 * (2 * 4 + 2 * 4 * (16 + 8));
    expect(shapeBits(shape)).toEqual({
      indices: 32 + 2 * 64, // 5 vectors of 2 bits; 3 x 3 vectors of 7 bits: padded to whole words
      codebooks,
      scales,
      order,
      bias: 0,
      total: 32 + 128 + codebooks + scales + order,
    });
    // the published layout: outliers 16 bits each, every row of vectors padded
    expect(shapeBits(shape, "vptq").indices).toBe(5 * 16 + 2 * 3 * 32);
    const halfNorm = { ...shape, columnBias: false };
    expect(shapeBits(halfNorm).scales).toBe(16 * 7);
    expect(shapeBits(halfNorm, "vptq").scales).toBe(32 * 7);
    expect(shapeBits({ ...shape, rowScale: true, bias: true })).toMatchObject({ scales: scales + 160, bias: 160 });
    expect(shapeBits({ ...shape, columns: 70_000 }).order).toBe(32 * 70_000);
  });

  it("counts affine codes, scales and zeros", () => {
    const shape = { kind: "affine", rows: 3, columns: 10, bits: 3, group: 4, symmetric: false, bias: false } as const;
    expect(shapeBits(shape)).toEqual({ indices: 96, codebooks: 0, scales: 9 * 16 + 32, order: 0, bias: 0, total: 272 });
    expect(shapeBits({ ...shape, symmetric: true }).total).toBe(240);
    const w3g128 = { ...shape, rows: 4096, columns: 4096, group: 128 };
    expect(shapeBits(w3g128).total / 4096 ** 2).toBeCloseTo(3 + 19 / 128, 6);
  });
});
