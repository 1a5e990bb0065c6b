import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BitReader, BitWriter, packBits, packedWords, unpackBits } from "./packing.js";

const widths = Array.from({ length: 32 }, (_, index) => index + 1);

/** The definition, bit by bit over big integers. */
function packByDefinition(values: number[], width: number): number[] {
  let stream = 0n;
  values.forEach((value, index) => {
    stream |= BigInt(value) << BigInt(index * width);
  });
  return Array.from({ length: packedWords(values.length, width) }, (_, word) =>
    Number((stream >> BigInt(32 * word)) & 0xffffffffn),
  );
}

describe("bit packing", () => {
  it.each(widths)("is the definition and has an inverse at width %i, ragged sizes", (width) => {
    const value = fc.integer({ min: 0, max: 2 ** width - 1 });
    fc.assert(
      fc.property(fc.array(value, { maxLength: 70 }), (values) => {
        const words = packBits(Uint32Array.from(values), width);
        expect(Array.from(words)).toEqual(packByDefinition(values, width));
        expect(Array.from(unpackBits(words, width, values.length))).toEqual(values);
      }),
      { numRuns: 60 },
    );
  });

  it("drops bits above the width", () => {
    expect(Array.from(unpackBits(packBits(Uint32Array.of(0xff, 2), 3), 3, 2))).toEqual([7, 2]);
  });

  it("gives negative 32-bit patterns back as unsigned", () => {
    expect(Array.from(unpackBits(packBits(Int32Array.of(-1, 5), 32), 32, 2))).toEqual([0xffffffff, 5]);
  });

  it("writes streams in turn", () => {
    const stream = fc.record({
      width: fc.integer({ min: 0, max: 20 }),
      values: fc.array(fc.nat(2 ** 20 - 1), { minLength: 40, maxLength: 40 }),
    });
    fc.assert(
      fc.property(fc.array(stream, { minLength: 1, maxLength: 3 }), fc.nat(20), fc.nat(20), (streams, begin, count) => {
        const [one, each] = [new Uint32Array(80), new Uint32Array(80)];
        const writer = new BitWriter(one);
        const parts = streams.map(({ width, values }) => ({ width, values: Uint32Array.from(values) }));
        writer.writeInTurn(parts, begin, count);
        writer.writeInTurn(parts, 0, 1); // goes on where it was
        const back = parts.map(({ width }) => ({ width, values: new Uint32Array(40) }));
        const reader = new BitReader(one);
        reader.readInTurn(back, begin, count);
        for (const [s, { values, width }] of parts.entries()) {
          const cut = values.map((value) => value & (2 ** width - 1)).subarray(begin, begin + count);
          expect(back[s].values.subarray(begin, begin + count)).toEqual(cut);
        }
        const again = new BitReader(one);
        again.skip(count * parts.reduce((sum, { width }) => sum + width, 0)); // to where the other is
        for (const { width, values } of parts) {
          expect(again.read(width)).toBe(values[0] & (2 ** width - 1));
          expect(reader.read(width)).toBe(values[0] & (2 ** width - 1));
        }
        const single = new BitWriter(each);
        for (const i of [...Array.from({ length: count }, (_, i) => begin + i), 0]) {
          for (const { width, values } of streams) single.write(values[i], width);
        }
        expect(one).toEqual(each);
      }),
    );
  });

  it("mixes widths and aligns to words", () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.integer({ min: 1, max: 32 }).chain((width) =>
            fc.record({
              width: fc.constant(width),
              value: fc.integer({ min: 0, max: 2 ** width - 1 }),
              align: fc.boolean(),
            }),
          ),
          { maxLength: 50 },
        ),
        (fields) => {
          const words = new Uint32Array(fields.length * 2);
          const writer = new BitWriter(words);
          for (const { width, value, align } of fields) {
            writer.write(value, width);
            if (align) writer.align();
          }
          const reader = new BitReader(words);
          for (const { width, value, align } of fields) {
            expect(reader.read(width)).toBe(value);
            if (align) reader.align();
          }
        },
      ),
    );
  });

  it("refuses widths and sizes that make no sense", () => {
    expect(() => packBits(Uint32Array.of(1), 0)).toThrow(/width 0/);
    expect(() => packBits(Uint32Array.of(1), 33)).toThrow(/width 33/);
    expect(() => unpackBits(new Uint32Array(1), 8, 5)).toThrow(/need 2 words, got 1/);
  });
});
