import type { Engine } from "../../../src/engine/engine.js";
import type { F32, I32 } from "../../../src/tensor/index.js";
import * as tolerances from "../../tolerances.js";
import { type Case, f32, type Input, i32, normal, whole } from "../case.js";

// Numbers so large or small that a kernel's own steps may overflow, vanish or divide 0 by 0 where the result does neither.

/** Powers of ten, a row each, of a given width: normal numbers times each of them. */
function rowsOf(powers: readonly number[], width: number, seed: string): Input<"f32"> {
  const input = normal([powers.length, width], seed);
  for (let at = 0; at < input.data.length; at++) input.data[at] *= powers[Math.floor(at / width)];
  return input;
}

const WIDTHS = [5, 65, 1031, 4099];

// ---- norms: a case for each magnitude, so that a tolerance of the largest means it

const norms: Case[] = WIDTHS.flatMap((width) =>
  [1e18, 1e-20].flatMap((magnitude) =>
    [1e-5, 1e-12].flatMap((epsilon): Case[] => {
      const x = rowsOf([magnitude, magnitude, magnitude], width, "x");
      const weight = normal([width], "weight");
      const bias = normal([width], "bias", 1e-6);
      const grad = normal([3, width], "grad");
      const label = `[3, ${width}] of ${magnitude}, epsilon ${epsilon}`;
      const gradCase = (operation: "rmsNormGrad" | "layerNormGrad"): Case => ({
        operation,
        label,
        inputs: [x, weight, grad],
        run: (engine, [a, w, g]) => engine[operation](a as F32, w as F32, epsilon, g as F32),
        tolerance: tolerances.NORM_MAGNITUDE,
      });
      return [
        {
          operation: "rmsNorm",
          label,
          inputs: [x, weight],
          run: (engine, [a, w]) => engine.rmsNorm(a as F32, w as F32, epsilon),
          tolerance: tolerances.RMS_NORM,
        },
        {
          operation: "layerNorm",
          label,
          inputs: [x, weight, bias],
          run: (engine, [a, w, b]) => engine.layerNorm(a as F32, w as F32, b as F32, epsilon),
          tolerance: tolerances.LAYER_NORM,
        },
        gradCase("rmsNormGrad"),
        gradCase("layerNormGrad"),
      ];
    }),
  ),
);

// ---- logits

/** Rows of logits: all low, all high, one above, one below, half and half, far apart, and normal ones times 1e4. */
function logits(width: number): Input<"f32"> {
  const rows = [
    () => -1e4,
    () => 1e4,
    (i: number) => (i === width - 1 ? 1e4 : -1e4),
    (i: number) => (i === 0 ? -1e4 : 1e4),
    (i: number) => (i % 2 === 0 ? 1e4 : -1e4),
    (i: number) => (i === 1 ? 1e30 : -1e30),
    () => -3e38,
  ];
  return f32(
    [rows.length, width],
    rows.flatMap((row) => Array.from({ length: width }, (_, i) => row(i))),
  );
}

const losses: Case[] = [2, 37, 1031].flatMap((width): Case[] => {
  const given = logits(width);
  const [rows] = given.shape;
  return [
    ...[0, width - 1].map(
      (target): Case => ({
        operation: "crossEntropy",
        label: `[${given.shape}] at the ends, target ${target}`,
        inputs: [given, i32([rows], new Int32Array(rows).fill(target))],
        run: (engine, [l, t]) => engine.crossEntropy(l as F32, t as I32),
        tolerance: tolerances.CROSS_ENTROPY,
      }),
    ),
    {
      operation: "klDivergence",
      label: `[${given.shape}] at the ends`,
      inputs: [given, f32([rows, width], [...given.data.subarray(width), ...given.data.subarray(0, width)])],
      run: (engine, [p, q]) => engine.klDivergence(p as F32, q as F32),
      tolerance: tolerances.KL_DIVERGENCE,
    },
  ];
});

// ---- attention: whole numbers, so that scores of some 1e4 are exact and it is clear which are equal

const attention: Case[] = [
  ["of both signs", 1],
  ["all negative", -1],
].flatMap(([name, sign]): Case[] => {
  const [tokens, heads, size] = [70, 2, 8];
  const shape = [1, tokens, heads, size];
  const numbers = (seed: string, factor: number, positive: boolean) => {
    const input = normal(shape, seed, 2);
    for (let i = 0; i < input.data.length; i++) {
      const rounded = Math.round(input.data[i]);
      input.data[i] = factor * (positive ? Math.abs(rounded) + 1 : rounded);
    }
    return input;
  };
  const inputs = [
    numbers("q", 1024 * Number(sign), sign === -1),
    numbers("k", 1, sign === -1),
    normal(shape, "v"),
    normal(shape, "grad"),
  ];
  const label = `scores of 1e4, ${name}`;
  return [
    {
      operation: "attention",
      label,
      inputs: inputs.slice(0, 3),
      run: (engine, [q, k, v]) => engine.attention(q as F32, k as F32, v as F32, { scale: 0.5 }),
      tolerance: tolerances.ATTENTION,
    },
    {
      operation: "attentionGrad",
      label,
      inputs,
      run: (engine, tensors) => {
        const [q, k, v, grad] = tensors as F32[];
        const output = engine.attention(q, k, v, { scale: 0.5 });
        return engine.attentionGrad(q, k, v, output, grad, { scale: 0.5 });
      },
      tolerance: tolerances.ATTENTION_GRAD,
    },
  ];
});

// ---- activations

const ENDS = [100, 1e4, 1e18, 1e30].flatMap((x) => [x, -x]);
const ends = f32([ENDS.length], ENDS);
const ones = f32(
  [ENDS.length],
  ENDS.map((_, i) => (i % 3 === 0 ? -1 : 1)),
);

const unary = (operation: "exp" | "relu" | "gelu"): Case => ({
  operation,
  label: "far out",
  inputs: [ends],
  run: (engine, [a]) => engine[operation](a as F32),
  tolerance: tolerances.ACTIVATION,
});
const activations: Case[] = [
  unary("exp"),
  unary("relu"),
  unary("gelu"),
  {
    operation: "geluGrad",
    label: "far out",
    inputs: [ends, ones],
    run: (engine, [a, grad]) => engine.geluGrad(a as F32, grad as F32),
    tolerance: tolerances.ACTIVATION,
  },
  {
    operation: "siluMultiply",
    label: "far out",
    inputs: [ends, ones],
    run: (engine, [gate, up]) => engine.siluMultiply(gate as F32, up as F32),
    tolerance: tolerances.SILU,
  },
  {
    operation: "siluMultiplyGrad",
    label: "far out",
    inputs: [ends, ones, ones],
    run: (engine, [gate, up, grad]) => engine.siluMultiplyGrad(gate as F32, up as F32, grad as F32),
    tolerance: tolerances.ACTIVATION,
  },
];

// ---- quantization of rows, sums and the rest

const POWERS = [0, 1e-30, 1e-9, 1e9, 1e30, 0];

const rowGrids: Case[] = [1, 33, 1031].flatMap((width) =>
  [false, true].flatMap((symmetric): Case[] => {
    const label = `rows of ${POWERS}, ${width} wide${symmetric ? ", symmetric" : ""}`;
    const x = rowsOf(POWERS, width, "x");
    return [
      {
        operation: "fakeQuantizeRows",
        label,
        inputs: [x],
        run: (engine, [a]) => engine.fakeQuantizeRows(a as F32, 4, symmetric),
        tolerance: { relative: 2 ** -22 },
      },
      {
        operation: "fakeQuantizeRowsGrad",
        label,
        inputs: [x, normal([POWERS.length, width], "grad")],
        run: (engine, [a, grad]) => engine.fakeQuantizeRowsGrad(a as F32, 4, grad as F32, symmetric),
        tolerance: tolerances.GRID_GRADIENT,
      },
    ];
  }),
);

const sums: Case[] = [1e17, 1e-17].flatMap((magnitude): Case[] => {
  const [a, b] = [normal([5, 1031], "a", magnitude), normal([5, 1031], "b", magnitude)];
  const label = `of ${magnitude}`;
  // by a scan of all indices, and sorted, in pieces
  const segmentSums = [4, 17].map((length): Case => {
    const vectors = normal([1031, length], "vectors", magnitude);
    const weights = normal([1031], "weights", magnitude);
    return {
      operation: "segmentSum",
      label: `${label}, ${length} long`,
      inputs: [vectors, weights, whole([1031], 3, "indices")],
      run: (engine, [x, w, i]) => engine.segmentSum(x as F32, w as F32, i as I32, 3),
      tolerance: tolerances.SEGMENT_SUM,
    };
  });
  return [
    ...segmentSums,
    {
      operation: "sumRows",
      label,
      inputs: [a],
      run: (engine, [x]) => engine.sumRows(x as F32),
      tolerance: tolerances.SEGMENT_SUM,
    },
    {
      operation: "rowDots",
      label,
      inputs: [a, b],
      run: (engine, [x, y]) => engine.rowDots(x as F32, y as F32),
      tolerance: tolerances.SEGMENT_SUM,
    },
    {
      operation: "dot",
      label,
      inputs: [a, b],
      run: (engine, [x, y]) => engine.dot(x as F32, y as F32),
      tolerance: tolerances.DOT,
    },
    {
      operation: "hadamard",
      label: `[3, 1024] ${label} squared`,
      inputs: [normal([3, 1024], "x", magnitude ** 2)],
      run: (engine, [x]) => engine.hadamard(x as F32),
      tolerance: tolerances.HADAMARD,
    },
  ];
});

const adamwStep: Case[] = [1e18, 1e-20].map((magnitude) => ({
  operation: "adamwStep",
  label: `gradients of ${magnitude}`,
  inputs: [
    normal([33], "parameter"),
    normal([33], "gradient", magnitude),
    f32([33], Array(33).fill(0)),
    f32([33], Array(33).fill(0)),
  ],
  changes: [0, 2, 3],
  run: (engine: Engine, tensors) => {
    const [parameter, gradient, first, second] = tensors as F32[];
    const options = { rate: 0.01, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, decay: 0, step: 1 };
    engine.adamwStep(parameter, gradient, first, second, options);
    return { parameter, first, second };
  },
  tolerance: tolerances.ADAMW,
}));

export const magnitudeCases: Case[] = [
  ...norms,
  ...losses,
  ...attention,
  ...activations,
  ...rowGrids,
  ...sums,
  ...adamwStep,
];
