import type { DType } from "../../../src/tensor/index.js";
import { type Case, f32, type Input, normal } from "../case.js";

const ALL_16 = Uint16Array.from({ length: 65536 }, (_, bits) => bits);

/** f32 patterns around everything that conversions treat specially. */
const PATTERNS = Uint32Array.from(
  [
    0x00000000,
    0x00000001,
    0x007fffff,
    0x00800000, // 0, subnormals, the least normal number
    0x32ffffff,
    0x33000000,
    0x33000001,
    0x337fffff,
    0x33800000,
    0x33c00000, // about the least subnormal f16
    0x387fc000,
    0x387fe000,
    0x387fefff,
    0x387ff000,
    0x38800000, // about the least normal f16
    0x3f801000,
    0x3f803000,
    0x3f800fff,
    0x3f801001,
    0x3f808000,
    0x3f818000,
    0x3f807fff,
    0x3f808001, // ties at 1
    0x477fefff,
    0x477ff000,
    0x477fffff,
    0x47800000, // about the largest f16
    0x7f7f7fff,
    0x7f7f8000,
    0x7f7fffff,
    0x7f800000,
    0x7f800001,
    0x7fc00000,
    0x7fffffff, // overflow, infinity, NaN
  ].flatMap((bits) => [bits, (bits | 0x80000000) >>> 0]),
);
const REALS = [
  0.5, 0.99, 1.5, 3.99, 254.9, 255, 255.5, 256, 65534.9, 65535, 65535.9, 65536, 2147483520, 2147483648, 1e10, 1e38,
]
  .flatMap((value) => [value, -value])
  .concat(0, -0, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY);

/** Bit patterns spread over all f32 (a multiplicative sequence). */
const spread = (count: number): Float32Array =>
  new Float32Array(Uint32Array.from({ length: count }, (_, i) => Math.imul(i + 1, 0x9e3779b1) >>> 0).buffer);

const casting = (label: string, input: Input, dtype: DType): Case => ({
  operation: "cast",
  label: `${label}: ${input.dtype} to ${dtype}`,
  inputs: [input],
  run: (engine, [tensor]) => engine.cast(tensor, dtype),
});

const RAGGED = [[0], [1], [3], [2, 3], [5, 0], [7], [31], [33], [3, 5, 7]];

export const castCases: Case[] = [
  ...(["f16", "bf16"] as const).flatMap((dtype) => [
    casting("all patterns", { dtype, shape: [65536], data: ALL_16 }, "f32"),
    casting("ties and ends", f32([PATTERNS.length], new Float32Array(PATTERNS.buffer)), dtype),
    casting("patterns of all f32", f32([20011], spread(20011)), dtype),
    ...RAGGED.map((shape) => casting(`[${shape}]`, normal(shape), dtype)),
  ]),
  ...(["i32", "u16", "u8"] as const).flatMap((dtype) => [
    casting("ends", f32([REALS.length], REALS), dtype),
    casting("patterns of all f32", f32([5003], spread(5003)), dtype),
    ...RAGGED.map((shape) => casting(`[${shape}]`, normal(shape, 0, 1000), dtype)),
  ]),
  casting("whole numbers", { dtype: "u8", shape: [256], data: Uint8Array.from(ALL_16.subarray(0, 256)) }, "f32"),
  casting("whole numbers", { dtype: "u16", shape: [65536], data: ALL_16 }, "f32"),
  casting(
    "whole numbers",
    {
      dtype: "i32",
      shape: [9],
      data: Int32Array.of(0, 1, -1, 2 ** 24 + 1, -(2 ** 24) - 3, 2 ** 31 - 1, -(2 ** 31), 77, 2 ** 25 + 2),
    },
    "f32",
  ),
];
