import type { GroupGridOptions } from "../../../src/engine/engine.js";
import type { F32 } from "../../../src/tensor/index.js";
import { GRID_GRADIENT } from "../../tolerances.js";
import { type Case, f32, type Input, normal } from "../case.js";

// Grids of weights and of rows of activations; clippedFakeQuantize is in fusedgrid.ts.

export interface Plan extends GroupGridOptions {
  rows: number;
  columns: number;
}

export const PLANS: Plan[] = [2, 3, 4, 8].flatMap((bits) =>
  [false, true].flatMap((symmetric) => [
    { rows: 1, columns: 1, bits, symmetric, group: 1 },
    { rows: 33, columns: 31, bits, symmetric, group: 8 },
    { rows: 19, columns: 37, bits, symmetric, group: 7 },
    { rows: 12, columns: 130, bits, symmetric, group: 64 },
    { rows: 11, columns: 40, bits, symmetric, group: 40 },
  ]),
);
PLANS.push(
  { rows: 3, columns: 0, bits: 4, symmetric: false, group: 8 },
  { rows: 0, columns: 5, bits: 4, symmetric: true, group: 2 },
  { rows: 9, columns: 5, bits: 4, symmetric: false, group: 100 },
  { rows: 9, columns: 13, bits: 3, symmetric: false, group: 1 },
  // for several threads
  { rows: 131, columns: 1001, bits: 4, symmetric: false, group: 64 },
  { rows: 67, columns: 1030, bits: 3, symmetric: true, group: 1030 },
);

export const labelOf = ({ rows, columns, bits, symmetric, group }: Plan): string =>
  `[${rows}, ${columns}], ${bits} bits${symmetric ? " symmetric" : ""}, groups of ${group}`;
export const optionsOf = ({ bits, symmetric, group }: Plan): GroupGridOptions => ({ bits, symmetric, group });
const gridShape = ({ rows, columns, group }: Plan): number[] => [rows, Math.ceil(columns / group)];

/** Rows of unlike kinds: usual, all 0, one-sided, below the least and beyond the largest scale, with zeros, often half-way. */
function rowsOf(shape: number[], seed: string, factor = 0.05): Input<"f32"> {
  const values = normal(shape, seed, factor);
  const { data } = values;
  const width = shape[shape.length - 1];
  for (let at = 0; at < data.length; at++) {
    const kind = Math.floor(at / width) % 9;
    if (kind === 2) data[at] = 0;
    else if (kind === 3) data[at] = Math.abs(data[at]);
    else if (kind === 4) data[at] = -Math.abs(data[at]);
    else if (kind === 5) data[at] *= 1e-8;
    else if (kind === 6) data[at] *= 1e8;
    else if (kind === 7 && at % 5 > 1) data[at] = 0;
    else if (kind === 8) data[at] = Math.round(data[at] * 40) / 2;
  }
  return values;
}

export const weightsOf = ({ rows, columns }: Plan): Input<"f32"> => rowsOf([rows, columns], "weights");

/** Logits from almost nothing left to almost nothing clipped. */
export const logitsOf = (plan: Plan): [Input<"f32">, Input<"f32">] => [
  normal(gridShape(plan), "upper", 6),
  normal(gridShape(plan), "lower", 6),
];

/** A grid that leaves some weights outside, with zeros that are not whole, some of them outside 0 .. K. */
function givenGrid(plan: Plan): [Input<"f32">, Input<"f32">] {
  const levels = 2 ** plan.bits - 1;
  const scale = normal(gridShape(plan), "scale", 0.15 / levels);
  for (let i = 0; i < scale.data.length; i++) scale.data[i] = Math.abs(scale.data[i]) + 2 ** -14;
  const zero = f32(
    gridShape(plan),
    Array.from(scale.data, (_, i) => ((i * 0.75 * levels) % (levels + 3)) - 1),
  );
  return [scale, zero];
}

const clippedGrid: Case[] = PLANS.flatMap((plan) =>
  [false, true].map((clipped) => ({
    operation: "clippedGrid" as const,
    label: `${labelOf(plan)}${clipped ? ", clipped" : ""}`,
    inputs: [weightsOf(plan), ...(clipped ? logitsOf(plan) : [])],
    run: (engine, [weights, upper, lower]) =>
      engine.clippedGrid(
        weights as F32,
        clipped ? { upper: upper as F32, lower: lower as F32 } : undefined,
        optionsOf(plan),
      ),
  })),
);

const clippedGridGrad: Case[] = PLANS.flatMap((plan) =>
  [false, true].map((clipped) => ({
    operation: "clippedGridGrad" as const,
    label: `${labelOf(plan)}${clipped ? ", clipped" : ""}`,
    inputs: [weightsOf(plan), normal(gridShape(plan), "scaleGrad"), ...(clipped ? logitsOf(plan) : [])],
    tolerance: GRID_GRADIENT,
    run: (engine, [weights, scaleGrad, upper, lower]) =>
      engine.clippedGridGrad(
        weights as F32,
        clipped ? { upper: upper as F32, lower: lower as F32 } : undefined,
        scaleGrad as F32,
        optionsOf(plan),
      ),
  })),
);

const onGrid: Case[] = PLANS.flatMap((plan): Case[] => {
  const options = optionsOf(plan);
  const label = labelOf(plan);
  const inputs = [weightsOf(plan), ...givenGrid(plan)];
  return [
    {
      operation: "fakeQuantize",
      label,
      inputs,
      run: (engine, [weights, scale, zero]) =>
        engine.fakeQuantize(weights as F32, { scale: scale as F32, zero: zero as F32 }, options),
    },
    {
      operation: "fakeQuantizeGrad",
      label,
      inputs: [...inputs, normal([plan.rows, plan.columns], "grad")],
      tolerance: { scale: GRID_GRADIENT, zero: GRID_GRADIENT },
      run: (engine, [weights, scale, zero, grad]) =>
        engine.fakeQuantizeGrad(weights as F32, { scale: scale as F32, zero: zero as F32 }, grad as F32, options),
    },
    {
      operation: "affineCodes",
      label,
      inputs,
      run: (engine, [weights, scale, zero]) =>
        engine.affineCodes(weights as F32, { scale: scale as F32, zero: zero as F32 }, options),
    },
  ];
});

const rowCases: Case[] = [[1], [7], [1, 1], [9, 31], [2, 9, 64], [18, 130], [0, 4], [4, 0], [90, 1000]].flatMap(
  (shape): Case[] =>
    [2, 4, 6, 8].flatMap((bits) =>
      [false, true].flatMap((symmetric): Case[] => {
        const label = `[${shape}], ${bits} bits${symmetric ? " symmetric" : ""}`;
        const x = rowsOf(shape, "x", 3);
        return [
          {
            operation: "fakeQuantizeRows",
            label,
            inputs: [x],
            run: (engine, [one]) => engine.fakeQuantizeRows(one as F32, bits, symmetric),
          },
          {
            operation: "fakeQuantizeRowsGrad",
            label,
            inputs: [x, normal(shape, "grad")],
            tolerance: GRID_GRADIENT,
            run: (engine, [one, grad]) => engine.fakeQuantizeRowsGrad(one as F32, bits, grad as F32, symmetric),
          },
        ];
      }),
    ),
);

/** Without the gradient of the weights. */
const unwanted: Case[] = PLANS.filter(({ bits }) => bits === 3).flatMap((plan): Case[] => {
  const label = `${labelOf(plan)}, without the weights`;
  const [options, wanted] = [optionsOf(plan), { weights: false }];
  return [
    {
      operation: "clippedGridGrad",
      label,
      inputs: [weightsOf(plan), normal(gridShape(plan), "scaleGrad"), ...logitsOf(plan)],
      tolerance: GRID_GRADIENT,
      run: (engine, inputs) => {
        const [weights, scaleGrad, upper, lower] = inputs as F32[];
        return engine.clippedGridGrad(weights, { upper, lower }, scaleGrad, options, wanted);
      },
    },
    {
      operation: "fakeQuantizeGrad",
      label,
      inputs: [weightsOf(plan), ...givenGrid(plan), normal([plan.rows, plan.columns], "grad")],
      tolerance: GRID_GRADIENT,
      run: (engine, inputs) => {
        const [weights, scale, zero, grad] = inputs as F32[];
        return engine.fakeQuantizeGrad(weights, { scale, zero }, grad, options, wanted);
      },
    },
  ];
});

export const gridCases: readonly Case[] = [...clippedGrid, ...clippedGridGrad, ...onGrid, ...unwanted, ...rowCases];
