import type { F32, I32 } from "../../../src/tensor/index.js";
import { ADD_INTO, DOT, SILU } from "../../tolerances.js";
import { type Case, f32, type Input, normal, whole } from "../case.js";

const SHAPES = [
  [0],
  [1],
  [3],
  [31],
  [33],
  [],
  [0, 5],
  [5, 0],
  [1, 7],
  [3, 5],
  [7, 33],
  [5, 127],
  [2, 3, 65],
  [2, 0, 3],
  [2, 3, 1, 5],
  [13, 4099],
];

function binary(operation: "add" | "subtract" | "multiply"): Case[] {
  const run: Case["run"] = (engine, [a, b]) => engine[operation](a as F32, b as F32);
  return SHAPES.flatMap((shape) => {
    const a = normal(shape, "a");
    const one = { operation, label: `[${shape}]`, inputs: [a, normal(shape, "b")], run };
    if (shape.length < 2) return [one];
    return [one, { ...one, label: `[${shape}] with its last axis`, inputs: [a, normal(shape.slice(-1), "b")] }];
  });
}

const scale: Case[] = SHAPES.map((shape) => ({
  operation: "scale",
  label: `[${shape}]`,
  inputs: [normal(shape)],
  run: (engine, [a]) => engine.scale(a as F32, 0.3),
}));

const addInto: Case[] = SHAPES.flatMap((shape) =>
  [undefined, -0.7].map(
    (factor): Case => ({
      operation: "addInto",
      label: `[${shape}] ${factor === undefined ? "without a factor" : `times ${factor}`}`,
      inputs: [normal(shape, "target"), normal(shape, "a")],
      changes: [0],
      run: (engine, [target, a]) => {
        engine.addInto(target as F32, a as F32, factor);
        return target;
      },
      tolerance: ADD_INTO,
    }),
  ),
);
addInto.push({
  operation: "addInto",
  label: "a tensor to itself",
  inputs: [normal([33])],
  changes: [0],
  run: (engine, [target]) => {
    engine.addInto(target as F32, target as F32, 2);
    return target;
  },
  tolerance: ADD_INTO,
});

const scaleRows: Case[] = SHAPES.filter((shape) => shape.length > 0).map((shape) => ({
  operation: "scaleRows",
  label: `[${shape}]`,
  inputs: [normal(shape), normal([shape[0]], "factors")],
  run: (engine, [a, factors]) => engine.scaleRows(a as F32, factors as F32),
}));

const divideRows: Case[] = SHAPES.filter((shape) => shape.length > 0).map((shape) => ({
  operation: "divideRows",
  label: `[${shape}]`,
  inputs: [normal(shape), normal([shape[0]], "divisors")],
  run: (engine, [a, divisors]) => engine.divideRows(a as F32, divisors as F32),
}));

const GATES = [0, -0, 1e-8, -1e-8, 0.5, -0.5, 10, -10, 40, -40, 87, -87, 89, -89, 104, -104, 1e4, -1e4, 3e38, -3e38];
const siluMultiply: Case[] = [
  ...SHAPES.map((shape): [string, Input, Input] => [`[${shape}]`, normal(shape, "gate", 3), normal(shape, "up")]),
  [
    "gates at the ends",
    f32([GATES.length], GATES),
    f32(
      [GATES.length],
      GATES.map(() => 0.5),
    ),
  ] as const,
].map(([label, gate, up]) => ({
  operation: "siluMultiply",
  label,
  inputs: [gate, up],
  run: (engine, [g, u]) => engine.siluMultiply(g as F32, u as F32),
  tolerance: SILU,
}));

const transpose: Case[] = [
  [0, 3],
  [3, 0],
  [1, 1],
  [1, 7],
  [7, 1],
  [3, 5],
  [4, 4],
  [31, 33],
  [33, 31],
  [65, 127],
  [130, 257],
].map((shape) => ({
  operation: "transpose",
  label: `[${shape}]`,
  inputs: [normal(shape)],
  run: (engine, [a]) => engine.transpose(a as F32),
}));

const gatherRows: Case[] = (
  [
    [[5], [7]],
    [[5, 3], [7]],
    [[5, 3], []],
    [[1, 1], [1]],
    [
      [127, 33],
      [2, 65],
    ],
    [
      [9, 2, 5],
      [3, 1, 2],
    ],
    [[5, 3], [0]],
    [[0, 3], [0]],
    [[5, 0], [4]],
    [[300, 257], [301]],
  ] as const
).map(([table, indices]) => ({
  operation: "gatherRows",
  label: `[${table}] by [${indices}]`,
  inputs: [normal([...table]), whole([...indices], table[0])],
  run: (engine, [t, i]) => engine.gatherRows(t as F32, i as I32),
}));

const SIZES = [0, 1, 3, 5, 7, 31, 33, 65, 127, 4097, 50021];

const dot: Case[] = SIZES.map((size) => ({
  operation: "dot",
  label: `${size} elements`,
  inputs: [normal([size], "a"), normal([size], "b")],
  run: (engine, [a, b]) => engine.dot(a as F32, b as F32),
  tolerance: DOT,
}));

const SPOILERS = [undefined, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
const allFinite: Case[] = SIZES.flatMap((size) =>
  SPOILERS.flatMap((spoiler) =>
    [0, size - 1]
      .filter((at, index, all) => (size > 0 || spoiler === undefined) && all.indexOf(at) === index)
      .map((at): Case => {
        const input = normal([size], "finite", 1e30);
        if (spoiler !== undefined) input.data[at] = spoiler;
        return {
          operation: "allFinite",
          label: spoiler === undefined ? `${size} elements` : `${size} elements, ${spoiler} at ${at}`,
          inputs: [input],
          run: (engine, [a]) => engine.allFinite(a as F32),
        };
      }),
  ),
);
allFinite.push({
  operation: "allFinite",
  label: "the largest f32",
  inputs: [f32([2], [3.4028234663852886e38, -3.4028234663852886e38])],
  run: (engine, [a]) => engine.allFinite(a as F32),
});

const argmax: Case[] = [
  ...[
    [0, 5],
    [0, 0],
    [1, 1],
    [3, 5],
    [7, 33],
    [31, 127],
    [5, 1031],
  ].map((shape) => [`[${shape}]`, normal(shape)] as const),
  ["equal elements", f32([2, 37], new Float32Array(74).fill(1))] as const,
  ["many ties", f32([33, 65], whole([33, 65], 3).data)] as const,
  ["minus infinity", f32([3, 5], new Float32Array(15).fill(Number.NEGATIVE_INFINITY))] as const,
].map(([label, input]) => ({
  operation: "argmax",
  label,
  inputs: [input],
  run: (engine, [a]) => engine.argmax(a as F32),
}));

export const elementwiseCases: Case[] = [
  ...binary("add"),
  ...binary("subtract"),
  ...binary("multiply"),
  ...scale,
  ...addInto,
  ...scaleRows,
  ...divideRows,
  ...siluMultiply,
  ...transpose,
  ...gatherRows,
  ...dot,
  ...allFinite,
  ...argmax,
];
