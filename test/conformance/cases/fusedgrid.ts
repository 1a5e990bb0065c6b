import type { ClippingLogits, WeightFactors } from "../../../src/engine/engine.js";
import type { F32, Tensor } from "../../../src/tensor/index.js";
import { GRID_GRADIENT } from "../../tolerances.js";
import { type Case, type Input, normal } from "../case.js";
import { labelOf, logitsOf, optionsOf, PLANS, type Plan, weightsOf } from "./grid.js";

// clippedFakeQuantize and its gradient.

interface Given {
  rows: boolean;
  columns: boolean;
  clipping: boolean;
}

const ALL: Given = { rows: true, columns: true, clipping: true };
/** Each plan has all, and one of these. */
const SOME: Given[] = [
  { rows: false, columns: false, clipping: true },
  { rows: true, columns: false, clipping: true },
  { rows: false, columns: true, clipping: true },
  { rows: true, columns: true, clipping: false },
  { rows: false, columns: true, clipping: false },
  { rows: true, columns: false, clipping: false },
  { rows: false, columns: false, clipping: false },
];

const MORE: Plan[] = [
  // several tiles of columns and slabs of rows
  { rows: 300, columns: 2100, bits: 4, symmetric: false, group: 2100 },
  { rows: 150, columns: 1100, bits: 3, symmetric: false, group: 128 },
  { rows: 1030, columns: 3, bits: 2, symmetric: true, group: 2 },
];

function inputsOf(plan: Plan, { rows, columns, clipping }: Given): Input[] {
  return [
    weightsOf(plan),
    normal([plan.rows, plan.columns], "grad"),
    ...(rows ? [normal([plan.rows], "rows")] : []),
    ...(columns ? [normal([plan.columns], "columns")] : []),
    ...(clipping ? logitsOf(plan) : []),
  ];
}

/** What the tensors of `inputsOf` are. */
function partsOf(
  tensors: readonly Tensor[],
  { rows, columns, clipping }: Given,
): { weights: F32; grad: F32; factors: WeightFactors; logits: ClippingLogits | undefined } {
  const [weights, grad, ...others] = tensors as F32[];
  const factors: WeightFactors = {};
  if (rows) factors.rows = others.shift();
  if (columns) factors.columns = others.shift();
  return { weights, grad, factors, logits: clipping ? { upper: others[0], lower: others[1] } : undefined };
}

export const fusedGridCases: readonly Case[] = [...PLANS, ...MORE].flatMap((plan, place) =>
  [ALL, SOME[place % SOME.length]].flatMap((given): Case[] => {
    const options = optionsOf(plan);
    const named = Object.entries(given).filter(([, is]) => is);
    const label = `${labelOf(plan)}; ${named.map(([name]) => name).join(", ") || "weights alone"}`;
    const inputs = inputsOf(plan, given);
    return [
      {
        operation: "clippedFakeQuantize",
        label,
        inputs,
        run: (engine, tensors) => {
          const { weights, factors, logits } = partsOf(tensors, given);
          return engine.clippedFakeQuantize(weights, factors, logits, options);
        },
      },
      {
        operation: "clippedFakeQuantizeGrad",
        label,
        inputs,
        tolerance: GRID_GRADIENT,
        run: (engine, tensors) => {
          const { weights, grad, factors, logits } = partsOf(tensors, given);
          return engine.clippedFakeQuantizeGrad(weights, factors, logits, grad, options);
        },
      },
    ];
  }),
);
