import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { affineRecords, codebookRecords } from "../../test/records.js";
import { absorbOrder, dequantize } from "./dequantize.js";
import type { CodebookRecord } from "./record.js";

/** One weight by the formula of record.ts, each operation rounded to f32. */
function weightByFormula(record: CodebookRecord, o: number, c: number): number {
  const stored = record.columnOrder ? record.columnOrder.indexOf(c) : c;
  const segment = record.segments.find(({ begin, end }) => begin <= stored && stored < end);
  if (!segment) throw new Error("no segment");
  const { begin, end, vectorLength, stages } = segment;
  const vector = Math.floor(o / vectorLength) * (end - begin) + stored - begin;
  let value = 0;
  for (const { indices, centroids } of stages) {
    value = Math.fround(value + centroids[indices[vector] * vectorLength + (o % vectorLength)]);
  }
  if (record.columnScale) value = Math.fround(value * record.columnScale[c]);
  if (record.rowScale) value = Math.fround(value * record.rowScale[o]);
  if (record.columnBias) value = Math.fround(value + record.columnBias[c]);
  return value;
}

describe("dequantize", () => {
  it("is the formula for codebooks: stages, segments, padding, order, scales", () => {
    fc.assert(
      fc.property(codebookRecords, (record) => {
        const { rows, columns } = record;
        const expected = Array.from({ length: rows * columns }, (_, i) =>
          weightByFormula(record, Math.floor(i / columns), i % columns),
        );
        expect(Array.from(dequantize(record), (value) => value + 0)).toEqual(expected.map((value) => value + 0));
      }),
      { numRuns: 80 },
    );
  });

  it("is (code - zero) * scale for affine codes, exactly", () => {
    fc.assert(
      fc.property(affineRecords, (record) => {
        const { rows, columns, group, codes, zero, scale } = record;
        const groups = Math.ceil(columns / group);
        const expected = Array.from({ length: rows * columns }, (_, i) => {
          const column = i % columns;
          const g = Math.floor(i / columns) * groups + (record.groupOfColumn?.[column] ?? Math.floor(column / group));
          return (codes[i] - zero[g]) * scale[g]; // 9 bits times 11: exact in f32
        });
        expect(Array.from(dequantize(record))).toEqual(expected);
      }),
      { numRuns: 80 },
    );
  });

  it("keeps the sign of a zero, as a gather does", () => {
    const record: CodebookRecord = {
      kind: "codebook",
      storage: "f16",
      rows: 1,
      columns: 1,
      hasOutliers: false,
      segments: [
        {
          begin: 0,
          end: 1,
          vectorLength: 1,
          stages: [{ indices: Uint16Array.of(1), centroids: Float32Array.of(1, -0), codewords: 2 }],
        },
      ],
    };
    expect(dequantize(record)[0]).toBe(-0);
  });
});

describe("absorbOrder", () => {
  it("keeps the weights, and drops the order where there is one segment", () => {
    fc.assert(
      fc.property(codebookRecords, (record) => {
        const absorbed = absorbOrder(record);
        expect(absorbed.columnOrder === undefined).toBe(!record.columnOrder || record.segments.length === 1);
        expect(dequantize(absorbed)).toEqual(dequantize(record));
      }),
      { numRuns: 100 },
    );
  });
});
