import type { F32 } from "../../../src/tensor/index.js";
import { FACTOR, GRAM, MATMUL } from "../../tolerances.js";
import { type Case, f32, normal, positiveDefinite } from "../case.js";

const TRANSPOSES = [
  [false, false],
  [false, true],
  [true, false],
  [true, true],
];

function matmulCase(
  batch: number | undefined,
  m: number,
  k: number,
  n: number,
  a: boolean,
  b: boolean,
  more = {},
): Case {
  const stack = (shape: number[]) => (batch === undefined ? shape : [batch, ...shape]);
  const { alpha, accumulate } = more as { alpha?: number; accumulate?: boolean };
  const notes = [a && "a^T", b && "b^T", alpha !== undefined && `alpha ${alpha}`, accumulate && "accumulated"];
  const inputs = [normal(stack(a ? [k, m] : [m, k]), "a"), normal(stack(b ? [n, k] : [k, n]), "b")];
  if (accumulate) inputs.push(normal(stack([m, n]), "sum"));
  return {
    operation: "matmul",
    label: [`${batch === undefined ? "" : `${batch} x `}${m} x ${k} x ${n}`, ...notes.filter(Boolean)].join(", "),
    inputs,
    changes: accumulate ? [2] : [],
    run: (engine, [left, right, sum]) =>
      engine.matmul(left as F32, right as F32, {
        transposeA: a,
        transposeB: b,
        alpha,
        accumulate: sum as F32 | undefined,
      }),
    tolerance: MATMUL,
  };
}

const EXTENTS = [
  [1, 1, 1],
  [1, 7, 5],
  [5, 7, 1],
  [3, 1, 5],
  [1, 65, 127],
  [4, 8, 8],
  [7, 31, 33],
  [33, 65, 31],
  [65, 127, 33],
  [17, 300, 40],
  [0, 3, 5],
  [3, 5, 0],
  [3, 0, 5],
];

const matmul: Case[] = TRANSPOSES.flatMap(([a, b]) => [
  ...EXTENTS.flatMap(([m, k, n]) => [
    matmulCase(undefined, m, k, n, a, b),
    matmulCase(undefined, m, k, n, a, b, { alpha: -0.5, accumulate: true }),
  ]),
  matmulCase(undefined, 31, 7, 33, a, b, { alpha: 3 }),
  matmulCase(undefined, 31, 7, 33, a, b, { accumulate: true }),
  matmulCase(undefined, 130, 257, 129, a, b),
  ...[
    [3, 5, 7, 9],
    [2, 33, 31, 65],
    [1, 3, 5, 7],
    [0, 3, 5, 7],
    [3, 2, 0, 4],
  ].flatMap(([batch, m, k, n]) => [
    matmulCase(batch, m, k, n, a, b),
    matmulCase(batch, m, k, n, a, b, { alpha: 2, accumulate: true }),
  ]),
]);

const gram: Case[] = [
  [0, 3],
  [3, 0],
  [1, 1],
  [1, 5],
  [3, 7],
  [33, 31],
  [65, 33],
  [127, 65],
  [300, 127],
].flatMap(([tokens, width]) =>
  [false, true].map((weighted): Case => {
    const weights = normal([tokens], "weights");
    for (let t = 0; t < tokens; t++) weights.data[t] = t % 7 === 3 ? 0 : Math.abs(weights.data[t]);
    const inputs = [positiveDefinite(width, 1, "start"), normal([tokens, width])];
    return {
      operation: "gram",
      label: `${tokens} rows of ${width}${weighted ? ", weighted" : ""}`,
      inputs: weighted ? [...inputs, weights] : inputs,
      changes: [0],
      run: (engine, [accumulator, x, weight]) => {
        engine.gram(accumulator as F32, x as F32, weight as F32 | undefined);
        const turned = engine.transpose(accumulator as F32);
        return { accumulator, asymmetry: engine.subtract(accumulator as F32, turned) };
      },
      tolerance: { accumulator: GRAM }, // the asymmetry must be 0 everywhere
    };
  }),
);

const SIDES = [0, 1, 2, 3, 5, 7, 31, 33, 65, 127, 200];

const diagonal: Case[] = SIDES.map((n) => ({
  operation: "diagonal",
  label: `${n}`,
  inputs: [normal([n, n])],
  run: (engine, [a]) => engine.diagonal(a as F32),
}));

const addDiagonal: Case[] = SIDES.map((n) => ({
  operation: "addDiagonal",
  label: `${n}`,
  inputs: [normal([n, n])],
  changes: [0],
  run: (engine, [a]) => {
    engine.addDiagonal(a as F32, 0.1);
    return a;
  },
}));

const cholesky: Case[] = SIDES.map((n) => {
  const a = positiveDefinite(n, 0.01);
  for (let i = 0; i < n; i++) a.data.fill(Number.NaN, i * n + i + 1, (i + 1) * n); // the upper triangle is not read
  return {
    operation: "cholesky",
    label: `${n}`,
    inputs: [a],
    run: (engine, [matrix]) => engine.cholesky(matrix as F32),
    tolerance: FACTOR,
  };
});

const triangularInverse: Case[] = SIDES.map((n) => {
  const lower = normal([n, n], 0, 1 / Math.sqrt(Math.max(1, n)));
  for (let i = 0; i < n; i++)
    for (let j = i; j < n; j++) lower.data[i * n + j] = i === j ? 1 + Math.abs(lower.data[i * n + i]) : 0;
  return {
    operation: "triangularInverse",
    label: `${n}`,
    inputs: [lower],
    run: (engine, [matrix]) => engine.triangularInverse(matrix as F32),
    tolerance: FACTOR,
  };
});
triangularInverse.push({
  operation: "triangularInverse",
  label: "a negative diagonal",
  inputs: [f32([2, 2], [-2, 0, 3, 0.5])],
  run: (engine, [matrix]) => engine.triangularInverse(matrix as F32),
  tolerance: FACTOR,
});

export const matrixCases: Case[] = [...matmul, ...gram, ...diagonal, ...addDiagonal, ...cholesky, ...triangularInverse];
