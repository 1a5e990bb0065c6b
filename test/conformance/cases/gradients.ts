import type { Engine } from "../../../src/engine/engine.js";
import type { F32, Tensor } from "../../../src/tensor/index.js";
import {
  ACTIVATION,
  ADAMW,
  ATTENTION,
  ATTENTION_GRAD,
  EXP,
  LAYER_NORM,
  NORM_GRAD,
  SEGMENT_SUM,
} from "../../tolerances.js";
import { type Case, f32, type Input, normal } from "../case.js";

// Operations that training needs, and their gradients.

const SHAPES = [[0], [1], [3], [33], [], [5, 0], [3, 5], [7, 33], [2, 3, 65], [13, 4099]];
/** Where the functions bend, and far out. */
const BENDS = f32(
  [31],
  [-90, -60, -20, -13.5, -9, -6, -5, -4, -3, -2, -1.5, -1, -0.5, -1e-3, -1e-20, 0].flatMap((x) =>
    x === 0 ? [0] : [x, -x],
  ),
);

const divide: Case[] = SHAPES.flatMap((shape) => {
  const run: Case["run"] = (engine, [a, b]) => engine.divide(a as F32, b as F32);
  const one = {
    operation: "divide",
    label: `[${shape}]`,
    inputs: [normal(shape, "a"), normal(shape, "b")],
    run,
  } as const;
  if (shape.length < 2) return [one];
  const last = [normal(shape, "a"), normal(shape.slice(-1), "b")];
  return [one, { ...one, label: `[${shape}] by its last axis`, inputs: last }];
});

function unary(operation: "exp" | "relu" | "gelu", tolerance: Case["tolerance"]): Case[] {
  const inputs = [...SHAPES.map((shape) => normal(shape, "a", 3)), BENDS];
  return inputs.map((input) => ({
    operation,
    label: input === BENDS ? "bends" : `[${input.shape}]`,
    inputs: [input],
    run: (engine, [a]) => engine[operation](a as F32),
    tolerance,
  }));
}

function unaryGrad(operation: "reluGrad" | "geluGrad", tolerance: Case["tolerance"]): Case[] {
  const inputs = [...SHAPES.map((shape) => normal(shape, "a", 3)), BENDS];
  return inputs.map((input) => ({
    operation,
    label: input === BENDS ? "bends" : `[${input.shape}]`,
    inputs: [input, normal(input.shape, "grad")],
    run: (engine, [a, grad]) => engine[operation](a as F32, grad as F32),
    tolerance,
  }));
}

const siluMultiplyGrad: Case[] = [...SHAPES.map((shape) => normal(shape, "gate", 3)), BENDS].map((gate) => ({
  operation: "siluMultiplyGrad",
  label: gate === BENDS ? "bends" : `[${gate.shape}]`,
  inputs: [gate, normal(gate.shape, "up"), normal(gate.shape, "grad")],
  run: (engine, [g, up, grad]) => engine.siluMultiplyGrad(g as F32, up as F32, grad as F32),
  tolerance: ACTIVATION,
}));

const MATRICES = [
  [1],
  [5],
  [0],
  [0, 5],
  [5, 0],
  [1, 1],
  [3, 5],
  [64, 33],
  [65, 127],
  [2, 150, 7],
  [3, 2050],
  [1000, 3],
];

function columns(operation: "sumRows" | "columnAbsMax", tolerance?: Case["tolerance"]): Case[] {
  return MATRICES.map((shape) => ({
    operation,
    label: `[${shape}]`,
    inputs: [normal(shape)],
    run: (engine, [a]) => engine[operation](a as F32),
    tolerance,
  }));
}
const withNaN = normal([9, 6]);
withNaN.data[13] = Number.NaN;
withNaN.data[23] = Number.NaN;
const columnAbsMax: Case[] = [
  ...columns("columnAbsMax"),
  { ...columns("columnAbsMax")[0], label: "NaN stays", inputs: [withNaN] },
];

const rowDots: Case[] = [[1], [5], [0], [0, 5], [5, 0], [3, 5], [65, 127], [7, 2, 150], [2, 5000]].map((shape) => ({
  operation: "rowDots",
  label: `[${shape}]`,
  inputs: [normal(shape, "a"), normal(shape, "b")],
  run: (engine, [a, b]) => engine.rowDots(a as F32, b as F32),
  tolerance: SEGMENT_SUM,
}));

const NORMS = [[1, 1], [5], [3, 5], [2, 3, 65], [70, 127], [1, 20, 4, 33], [31, 257], [1025, 6], [0, 5], [3, 0]];

/** A first row of equal elements, where only epsilon is under the root, and one far from 0. */
function rows(shape: number[]): Input<"f32"> {
  const x = normal(shape, "x", 0.7);
  const width = shape[shape.length - 1];
  if (shape.length > 1) x.data.fill(0, 0, width);
  if (shape[0] > 1) for (let i = width; i < 2 * width; i++) x.data[i] += 10;
  return x;
}

const layerNorm: Case[] = NORMS.map((shape) => ({
  operation: "layerNorm",
  label: `[${shape}]`,
  inputs: [rows(shape), normal(shape.slice(-1), "weight"), normal(shape.slice(-1), "bias")],
  run: (engine, [x, weight, bias]) => engine.layerNorm(x as F32, weight as F32, bias as F32, 1e-2),
  tolerance: LAYER_NORM,
}));

function normGrad(operation: "rmsNormGrad" | "layerNormGrad"): Case[] {
  return NORMS.flatMap((shape) =>
    [undefined, { weight: true }, { weight: false }].map((wanted) => ({
      operation,
      label: `[${shape}]${wanted ? `, the weight ${wanted.weight ? "too" : "not"}` : ""}`,
      inputs: [rows(shape), normal(shape.slice(-1), "weight"), normal(shape, "grad")],
      run: (engine, [x, weight, grad]) => engine[operation](x as F32, weight as F32, 1e-2, grad as F32, wanted),
      tolerance: NORM_GRAD,
    })),
  );
}

interface Attending {
  batch?: number;
  tokens: number;
  heads?: number;
  keyValueHeads?: number;
  size?: number;
  window?: number;
  slopes?: boolean;
  /** Of the queries; large ones make the softmax sharp. */
  factor?: number;
}

const ATTENDING: Attending[] = [
  { tokens: 1 },
  { tokens: 2, size: 1, heads: 1 },
  { tokens: 3, size: 5, heads: 3, slopes: true },
  { tokens: 5, batch: 2, size: 7, heads: 1 },
  { tokens: 7, heads: 4, keyValueHeads: 2, size: 16 },
  { tokens: 31, heads: 6, keyValueHeads: 2, size: 33, slopes: true },
  { tokens: 33, heads: 5, keyValueHeads: 1, size: 12, batch: 2 },
  { tokens: 65, heads: 2, size: 64, slopes: true },
  { tokens: 127, heads: 4, keyValueHeads: 2, size: 32, batch: 2 },
  { tokens: 130, heads: 1, size: 70 },
  { tokens: 300, heads: 3, keyValueHeads: 1, size: 8 },
  { tokens: 7, window: 1 },
  { tokens: 31, window: 3, heads: 4, keyValueHeads: 2, slopes: true },
  { tokens: 65, window: 33, size: 16 },
  { tokens: 33, window: 1000 },
  { tokens: 130, window: 37, batch: 2, slopes: true },
  { tokens: 141, window: 100, size: 20 },
  { tokens: 33, factor: 100 },
  { tokens: 0 },
  { tokens: 3, batch: 0 },
  { tokens: 3, heads: 0 },
  { tokens: 3, heads: 0, keyValueHeads: 2 },
  { tokens: 3, size: 0 },
];

const labelOf = (wanted: object): string =>
  Object.entries(wanted)
    .map(([name, value]) => `${name} ${value}`)
    .join(", ");

/** Slopes as ALiBi has them, 2^(-8 (h + 1) / H). */
const slopesOf = (heads: number): Input<"f32"> =>
  f32(
    [heads],
    Array.from({ length: heads }, (_, h) => 2 ** ((-8 * (h + 1)) / heads)),
  );

const attentionGrad: Case[] = ATTENDING.map((wanted) => {
  const { batch = 1, tokens, heads = 2, keyValueHeads = heads, size = 8, window, factor = 1 } = wanted;
  const shape = [batch, tokens, heads, size];
  const ofKeys = [batch, tokens, keyValueHeads, size];
  return {
    operation: "attentionGrad",
    label: labelOf(wanted),
    inputs: [
      ...[normal(shape, "q", factor), normal(ofKeys, "k"), normal(ofKeys, "v"), normal(shape, "grad")],
      ...(wanted.slopes ? [slopesOf(heads)] : []),
    ],
    run: (engine, tensors) => {
      const [q, k, v, grad, slopes] = tensors as F32[];
      const options = { scale: 1 / Math.sqrt(Math.max(1, size)), window, slopes };
      return engine.attentionGrad(q, k, v, engine.attention(q, k, v, options), grad, options);
    },
    tolerance: ATTENTION_GRAD,
  };
});

/** `attention` with slopes: of whole sequences, continued from a cache, few queries and many. */
const slopes: Case[] = [
  { tokens: 1, length: 1 },
  { tokens: 5, length: 5 },
  { tokens: 33, length: 33, heads: 3 },
  { tokens: 130, length: 130, heads: 4, keyValueHeads: 2, window: 50 },
  { tokens: 1, length: 300, heads: 6, keyValueHeads: 2 },
  { tokens: 3, length: 40, window: 9 },
  { tokens: 40, length: 127, heads: 4 },
  { tokens: 0, length: 0 },
].map(({ tokens, length, heads = 2, keyValueHeads = heads, window }) => ({
  operation: "attention",
  label: labelOf({ tokens, length, heads, keyValueHeads, window, slopes: true }),
  inputs: [
    normal([2, tokens, heads, 8], "q"),
    normal([2, length + 3, keyValueHeads, 8], "k"),
    normal([2, length + 3, keyValueHeads, 8], "v"),
    slopesOf(heads),
  ],
  run: (engine, tensors) => {
    const [q, k, v, given] = tensors as F32[];
    return engine.attention(q, k, v, { scale: 0.35, keyLength: length, window, slopes: given });
  },
  tolerance: ATTENTION,
}));

const ADAM = { rate: 0.01, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, decay: 0.1 };

const adamwStep: Case[] = SHAPES.flatMap((shape) => [
  adamwCase(shape, 1, { ...ADAM, decay: 0 }),
  adamwCase(shape, 7, { ...ADAM, beta2: 0.999 }),
]);

function adamwCase(shape: number[], step: number, options: typeof ADAM): Case {
  const second = normal(shape, "second");
  for (let i = 0; i < second.data.length; i++) second.data[i] = step === 1 ? 0 : second.data[i] ** 2;
  const first = normal(shape, "first", step === 1 ? 0 : 1);
  return {
    operation: "adamwStep",
    label: `[${shape}], step ${step}`,
    inputs: [normal(shape, "parameter"), normal(shape, "gradient"), first, second],
    changes: [0, 2, 3],
    run: (engine: Engine, tensors: Tensor[]) => {
      const [parameter, gradient, m, v] = tensors as F32[];
      engine.adamwStep(parameter, gradient, m, v, { ...options, step });
      return { parameter, first: m, second: v };
    },
    tolerance: ADAMW,
  };
}

export const gradientCases: Case[] = [
  ...divide,
  ...unary("exp", EXP),
  ...unary("relu", undefined),
  ...unary("gelu", ACTIVATION),
  ...columns("sumRows", SEGMENT_SUM),
  ...columnAbsMax,
  ...rowDots,
  ...layerNorm,
  ...slopes,
  ...siluMultiplyGrad,
  ...unaryGrad("reluGrad", undefined),
  ...unaryGrad("geluGrad", ACTIVATION),
  ...normGrad("rmsNormGrad"),
  ...normGrad("layerNormGrad"),
  ...attentionGrad,
  ...adamwStep,
];
