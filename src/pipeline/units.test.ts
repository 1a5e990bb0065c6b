import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { joinBytes } from "../files/memory.js";
import type { CodebookRecord } from "../quant/record.js";
import { arrayParts, decodeUnit, encodeUnit, type Unit } from "./units.js";

const unit: Unit = {
  name: "model.layers.0.mlp.up_proj",
  record: {
    kind: "codebook",
    storage: "f16",
    rows: 4,
    columns: 3,
    hasOutliers: false,
    segments: [
      {
        begin: 0,
        end: 3,
        vectorLength: 2,
        stages: [
          {
            indices: Uint16Array.of(1, 0, 3, 2, 2, 1),
            centroids: Float32Array.of(1, 2, 3, 4, 5, 6, 7, -8),
            codewords: 4,
          },
        ],
      },
    ],
    columnOrder: Uint16Array.of(2, 0, 1),
  },
  metrics: { proxyError: 0.043, damping: 0.01, deadColumns: 0, notes: ["a note"] },
  seconds: 1.5,
};

describe("journal units", () => {
  it("come back as they went in", () => {
    expect(decodeUnit(encodeUnit(unit), unit.name)).toEqual(unit);
    // every array of the unit is a part as it is: nothing large is copied
    const values = Float32Array.of(1, 2, 3);
    const parts = arrayParts({ values });
    expect(parts.some(({ buffer }) => buffer === values.buffer)).toBe(true);
    expect(joinBytes(parts).length % 8).toBe(0);
  });

  it("come back from any place in a buffer, as views where they can be", () => {
    const bytes = encodeUnit(unit);
    for (const place of [0, 3, 8]) {
      const buffer = new Uint8Array(place + bytes.length);
      buffer.set(bytes, place);
      const back = decodeUnit(buffer.subarray(place), unit.name);
      expect(back).toEqual(unit);
      const order = (back?.record as CodebookRecord | undefined)?.columnOrder;
      expect(order?.buffer === buffer.buffer).toBe(place % 8 === 0);
    }
  });

  it("are refused under another name, cut short or changed in the header", () => {
    const bytes = encodeUnit(unit);
    expect(decodeUnit(bytes, "another")).toBeUndefined();
    for (let length = 0; length < bytes.length - 8; length++)
      expect(decodeUnit(bytes.subarray(0, length), unit.name)).toBeUndefined();
  });

  it("never throw on damaged bytes", () => {
    const bytes = encodeUnit(unit);
    fc.assert(
      fc.property(fc.integer({ min: 0, max: bytes.length - 1 }), fc.integer({ min: 0, max: 255 }), (at, value) => {
        const damaged = bytes.slice();
        damaged[at] = value;
        expect(() => decodeUnit(damaged, unit.name)).not.toThrow();
      }),
      { numRuns: 500 },
    );
  });
});
