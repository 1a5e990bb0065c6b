import { describe, expect, it } from "vitest";
import { bf16ToF32, f16ToF32, f32ToBF16, f32ToF16, fromBF16, fromF16, roundToF16, toBF16, toF16 } from "./float16.js";

const ALL = Uint16Array.from({ length: 65536 }, (_, bits) => bits);
const word = new Uint32Array(1);
const float = new Float32Array(word.buffer);

/** The f32 that follows a positive one. */
function next(value: number): number {
  float[0] = value;
  word[0]++;
  return float[0];
}
function previous(value: number): number {
  float[0] = value;
  word[0]--;
  return float[0];
}

const FORMATS = [
  { name: "f16", to: toF16, from: fromF16, infinity: 0x7c00, one: 0x3c00, digits: 10, least: 2 ** -24, largest: 65504 },
  {
    name: "bf16",
    to: toBF16,
    from: fromBF16,
    infinity: 0x7f80,
    one: 0x3f80,
    digits: 7,
    least: 2 ** -133,
    largest: (2 - 2 ** -7) * 2 ** 127,
  },
];

describe.each(FORMATS)("$name", ({ to, from, infinity, one, digits, least, largest }) => {
  it("decodes what the format says", () => {
    expect(from(one)).toBe(1);
    expect(from(1)).toBe(least);
    expect(from(infinity - 1)).toBe(largest);
    expect(from(infinity)).toBe(Number.POSITIVE_INFINITY);
    // positive numbers: subnormals and the first normal ones are multiples of the least, then the step doubles
    for (let bits = 0; bits < infinity; bits++) {
      const exponent = Math.max(1, bits >> digits);
      const step = least * 2 ** (exponent - 1);
      const significand = (bits & (2 ** digits - 1)) + (bits >> digits > 0 ? 2 ** digits : 0);
      if (from(bits) !== significand * step) expect.fail(`${bits} decodes to ${from(bits)}`);
    }
  });

  it("gives every pattern back", () => {
    for (const bits of ALL) {
      const magnitude = bits & 0x7fff;
      const value = from(bits);
      if (magnitude > infinity) {
        expect(value).toBeNaN();
        expect(to(value) & 0x7fff).toBeGreaterThan(infinity);
      } else {
        if (to(value) !== bits) expect.fail(`${bits} comes back as ${to(value)}`);
        if (from(bits ^ 0x8000) !== -value) expect.fail(`the sign of ${bits}`);
      }
    }
    expect(Object.is(from(0x8000), -0)).toBe(true);
  });

  it("rounds to the nearest and ties to even, between all neighbors", () => {
    for (let bits = 0; bits + 1 < infinity; bits++) {
      const middle = (from(bits) + from(bits + 1)) / 2; // exact in f32
      const even = bits % 2 === 0 ? bits : bits + 1;
      const rounded = [previous(middle), middle, next(middle), -middle].map(to);
      const expected = [bits, even, bits + 1, even | 0x8000];
      if (rounded.some((one, i) => one !== expected[i])) expect.fail(`about ${middle}: ${rounded}, not ${expected}`);
    }
  });

  it("overflows from half a step above the largest on", () => {
    const edge = largest + 2 ** (Math.floor(Math.log2(largest)) - digits - 1);
    expect(to(previous(edge))).toBe(infinity - 1);
    expect(to(edge)).toBe(infinity);
    expect(to(-edge)).toBe(infinity | 0x8000);
    expect(to(Number.NEGATIVE_INFINITY)).toBe(infinity | 0x8000);
    expect(to(Number.NaN) & 0x7fff).toBeGreaterThan(infinity);
  });
});

describe("conversions", () => {
  // f16 by numpy 2 (float32 to float16), bf16 by torch 2 (float32 to bfloat16)
  const CASES: [value: number, f16: number, bf16: number][] = [
    [1 + 2 ** -11, 0x3c00, 0x3f80],
    [1 + 3 * 2 ** -11, 0x3c02, 0x3f80],
    [1 - 2 ** -12, 0x3c00, 0x3f80],
    [65504, 0x7bff, 0x4780],
    [65519.99, 0x7bff, 0x4780],
    [65520, 0x7c00, 0x4780],
    [2 ** -25, 0x0000, 0x3300],
    [2.980530261993408e-8, 0x0001, 0x3300],
    [3 * 2 ** -25, 0x0002, 0x33c0],
    [2 ** -14 - 2 ** -25, 0x0400, 0x3880],
    [2 ** -14 - 2 ** -26, 0x0400, 0x3880],
    [0.1, 0x2e66, 0x3dcd],
    [-1 / 3, 0xb555, 0xbeab],
    [1e-8, 0x0000, 0x322c],
    [1e30, 0x7c00, 0x714a],
    [2049, 0x6800, 0x4500],
    [2051, 0x6802, 0x4500],
    [-2049, 0xe800, 0xc500],
    [6.1e-5, 0x03ff, 0x3880],
    [1 + 2 ** -8, 0x3c04, 0x3f80],
    [1 + 3 * 2 ** -8, 0x3c0c, 0x3f82],
    [3.3895313892515355e38, 0x7c00, 0x7f7f],
    [3.3999999521443642e38, 0x7c00, 0x7f80],
    [4.591774807899561e-41, 0x0000, 0x0000],
    [4.600042468839077e-41, 0x0000, 0x0001],
  ];

  it("agree with numpy and torch", () => {
    for (const [value, f16, bf16] of CASES) expect([value, toF16(value), toBF16(value)]).toEqual([value, f16, bf16]);
  });

  it("of arrays are those of numbers, also within larger buffers and into given targets", () => {
    const values = Float32Array.from([Number.NaN, ...CASES.map(([value]) => value)]).subarray(1);
    const numbers = CASES.map(([value]) => value);
    expect([...f32ToF16(values)]).toEqual(numbers.map(toF16));
    expect([...f32ToBF16(values)]).toEqual(numbers.map(toBF16));
    expect([...f16ToF32(ALL)].every((value, bits) => Object.is(value, fromF16(bits)))).toBe(true);
    expect([...bf16ToF32(ALL)].every((value, bits) => Object.is(value, fromBF16(bits)))).toBe(true);
    const target = new Uint16Array(numbers.length + 2).fill(7);
    f32ToF16(values, target.subarray(1, -1));
    expect([...target]).toEqual([7, ...numbers.map(toF16), 7]);
    const wide = new Float32Array(4).fill(7);
    bf16ToF32(Uint16Array.of(0x3f80, 0xc000), wide.subarray(1, 3));
    expect([...wide]).toEqual([7, 1, -2, 7]);
  });

  it("round as numbers", () => {
    expect(roundToF16(0.1)).toBe(0.0999755859375);
    expect(roundToF16(1e9)).toBe(Number.POSITIVE_INFINITY);
  });
});
