import type { F32, I32 } from "../../../src/tensor/index.js";
import { ATTENTION, CROSS_ENTROPY, KL_DIVERGENCE, RMS_NORM, ROPE } from "../../tolerances.js";
import { type Case, f32, type Input, i32, normal, whole } from "../case.js";

const rmsNorm: Case[] = [[1, 1], [5], [3, 5], [2, 3, 65], [7, 127], [1, 2, 4, 33], [31, 257], [0, 5], [3, 0]].flatMap(
  (shape) =>
    [1e-5, 0.3].map((epsilon): Case => {
      const x = normal(shape, "x", 0.7);
      if (shape.length === 2) x.data.fill(0, 0, shape[1]); // the first row: only epsilon is under the root
      return {
        operation: "rmsNorm",
        label: `[${shape}], epsilon ${epsilon}`,
        inputs: [x, normal(shape.slice(-1), "weight")],
        run: (engine, [input, weight]) => engine.rmsNorm(input as F32, weight as F32, epsilon),
        tolerance: RMS_NORM,
      };
    }),
);

const rope: Case[] = [
  // B, T, H, d, r, positions, start
  [1, 1, 1, 2, 1, 1, 0],
  [2, 5, 3, 8, 4, 9, 2],
  [1, 7, 2, 64, 32, 33, 26],
  [2, 3, 5, 10, 5, 3, 0],
  [1, 3, 2, 10, 3, 8, 1], // a tail of 4 passes through
  [1, 3, 2, 7, 3, 8, 5],
  [3, 31, 4, 6, 1, 40, 9],
  [1, 2, 1, 5, 0, 3, 1],
  [0, 2, 1, 4, 2, 3, 1],
  [1, 0, 1, 4, 2, 3, 3],
].map(([batch, tokens, heads, size, pairs, positions, start]) => {
  const angles = normal([positions, pairs], "angles", 3);
  return {
    operation: "rope",
    label: `[${batch}, ${tokens}, ${heads}, ${size}], ${pairs} pairs from position ${start}`,
    inputs: [
      normal([batch, tokens, heads, size]),
      f32([positions, pairs], angles.data.map(Math.cos)),
      f32([positions, pairs], angles.data.map(Math.sin)),
    ],
    run: (engine, [x, cos, sin]) => engine.rope(x as F32, cos as F32, sin as F32, start),
    tolerance: ROPE,
  };
});

interface Attending {
  batch?: number;
  tokens: number;
  heads?: number;
  keyValueHeads?: number;
  size?: number;
  /** S of the tensors; positions from keyLength on hold NaN and must not be read. */
  capacity?: number;
  keyLength?: number;
  window?: number;
  /** Of the queries; large ones make the softmax sharp. */
  factor?: number;
}

function attentionCase(wanted: Attending): Case {
  const { batch = 1, tokens, heads = 2, keyValueHeads = heads, size = 8, factor = 1, window } = wanted;
  const { keyLength = wanted.capacity ?? tokens, capacity = keyLength } = wanted;
  const shape = [batch, capacity, keyValueHeads, size];
  const filled = (seed: string): Input => {
    const input = normal(shape, seed);
    const position = keyValueHeads * size;
    for (let b = 0; b < batch; b++)
      input.data.fill(Number.NaN, (b * capacity + keyLength) * position, (b + 1) * capacity * position);
    return input;
  };
  return {
    operation: "attention",
    label: Object.entries({ batch, tokens, heads, keyValueHeads, size, capacity, keyLength, window, factor })
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => `${name} ${value}`)
      .join(", "),
    inputs: [normal([batch, tokens, heads, size], "q", factor), filled("k"), filled("v")],
    run: (engine, [q, k, v]) =>
      engine.attention(q as F32, k as F32, v as F32, {
        scale: 1 / Math.sqrt(Math.max(1, size)),
        window,
        keyLength: wanted.keyLength,
      }),
    tolerance: ATTENTION,
  };
}

const attention: Case[] = (
  [
    { tokens: 1 },
    { tokens: 1, size: 1, heads: 1 },
    { tokens: 3, size: 5, heads: 3 },
    { tokens: 5, batch: 2, size: 7, heads: 1 },
    { tokens: 7, heads: 4, keyValueHeads: 2, size: 16 },
    { tokens: 31, heads: 6, keyValueHeads: 2, size: 33 },
    { tokens: 33, heads: 5, keyValueHeads: 1, size: 12, batch: 2 },
    { tokens: 65, heads: 2, size: 64 },
    { tokens: 127, heads: 4, keyValueHeads: 2, size: 32, batch: 2 },
    { tokens: 130, heads: 1, size: 128 },
    // continued from a cache
    { tokens: 1, capacity: 9 },
    { tokens: 1, capacity: 40, keyLength: 33, heads: 4, keyValueHeads: 2, size: 16, batch: 2 },
    { tokens: 3, capacity: 65, keyLength: 31, heads: 6, keyValueHeads: 3 },
    { tokens: 4, capacity: 7, keyLength: 4 },
    { tokens: 5, capacity: 7, keyLength: 6, batch: 3 },
    { tokens: 17, capacity: 300, keyLength: 261, size: 32 },
    // windows
    { tokens: 7, window: 1 },
    { tokens: 31, window: 3, heads: 4, keyValueHeads: 2 },
    { tokens: 65, window: 33, size: 16 },
    { tokens: 65, window: 65 },
    { tokens: 33, window: 1000 },
    { tokens: 130, window: 37, batch: 2 },
    { tokens: 1, capacity: 65, keyLength: 40, window: 7 },
    { tokens: 5, capacity: 65, keyLength: 40, window: 4 },
    { tokens: 40, capacity: 130, keyLength: 127, window: 70 },
    // sharp
    { tokens: 33, factor: 100 },
    { tokens: 3, factor: 1000, capacity: 40, keyLength: 31 },
    // empty
    { tokens: 0 },
    { tokens: 0, capacity: 5 },
    { tokens: 3, batch: 0 },
    { tokens: 3, heads: 0 },
    { tokens: 3, size: 0 },
  ] satisfies Attending[]
).map(attentionCase);

const ROWS = [
  [0, 5],
  [1, 1],
  [3, 5],
  [5, 7],
  [7, 33],
  [31, 127],
  [3, 1031],
];

const crossEntropy: Case[] = [
  ...ROWS.flatMap(([rows, columns]) =>
    [1, 20, 1e4].map((factor): [string, Input, Input] => [
      `[${rows}, ${columns}] times ${factor}`,
      normal([rows, columns], "logits", factor),
      whole([rows], columns),
    ]),
  ),
  ["equal logits", f32([2, 37], new Float32Array(74).fill(123)), i32([2], [0, 36])] as [string, Input, Input],
].map(([label, logits, targets]) => ({
  operation: "crossEntropy",
  label,
  inputs: [logits, targets],
  run: (engine, [l, t]) => engine.crossEntropy(l as F32, t as I32),
  tolerance: CROSS_ENTROPY,
}));

const klDivergence: Case[] = [...ROWS, [0, 0]].flatMap(([rows, columns]) =>
  [
    ["near", 1, 0.01],
    ["apart", 1, 1],
    ["sharp", 30, 3],
    ["equal", 2, 0],
    ["large", 3e3, 1],
  ].map(([name, factor, distance]): Case => {
    const reference = normal([rows, columns], "reference", Number(factor));
    const shift = normal([rows, columns], "shift", Number(distance)).data;
    return {
      operation: "klDivergence",
      label: `[${rows}, ${columns}], ${name}`,
      inputs: [
        reference,
        f32(
          [rows, columns],
          reference.data.map((value, i) => value + shift[i]),
        ),
      ],
      run: (engine, [p, q]) => engine.klDivergence(p as F32, q as F32),
      tolerance: KL_DIVERGENCE,
    };
  }),
);

export const decoderCases: Case[] = [...rmsNorm, ...rope, ...attention, ...crossEntropy, ...klDivergence];
