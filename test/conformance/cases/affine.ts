import { expect } from "vitest";
import type { AffineGridOptions, Engine } from "../../../src/engine/engine.js";
import type { F32 } from "../../../src/tensor/index.js";
import { CODE_TIE } from "../../tolerances.js";
import { type Case, collect, f32, type Input, type Numbers, normal, type Output, unitUpper } from "../case.js";
import { expectClose } from "../compare.js";

interface Plan {
  columns: number;
  rows: number;
  bits: number;
  symmetric: boolean;
  /** Columns in a group, or the group of each column. */
  group: number | number[];
  groups?: number;
}

function optionsOf({ columns, bits, symmetric, group, groups }: Plan): AffineGridOptions {
  const groupOfColumn = Int32Array.from({ length: columns }, (_, i) =>
    typeof group === "number" ? Math.floor(i / group) : group[i],
  );
  const least = groupOfColumn.reduce((most, one) => Math.max(most, one + 1), 0);
  return { bits, symmetric, groupOfColumn, groups: groups ?? least };
}

const labelOf = ({ columns, rows, bits, symmetric, group, groups }: Plan): string =>
  `[${columns}, ${rows}], ${bits} bits${symmetric ? " symmetric" : ""}, ` +
  (typeof group === "number" ? `groups of ${group}` : `columns in groups ${group.slice(0, 12)}`) +
  (groups === undefined ? "" : ` of ${groups}`);

/** Rows of unlike kinds: usual, all 0, positive only, negative only, tiny, huge, mixed with zeros. */
function weightsOf({ columns, rows }: Plan): Input<"f32"> {
  const weights = normal([columns, rows], "weights", 0.05);
  const { data } = weights;
  for (let at = 0; at < data.length; at++) {
    const kind = (at % rows) % 9;
    if (kind === 2) data[at] = 0;
    else if (kind === 3) data[at] = Math.abs(data[at]);
    else if (kind === 4) data[at] = -Math.abs(data[at]);
    else if (kind === 5) data[at] *= 1e-7;
    else if (kind === 6) data[at] *= 1e7;
    else if (kind === 7 && at % 5 > 1) data[at] = 0;
    else if (kind === 8) data[at] = Math.round(data[at] * 40) / 2; // often half-way between two codes
  }
  return weights;
}

const PLANS: Plan[] = [2, 3, 4, 8].flatMap((bits) =>
  [false, true].flatMap((symmetric) => [
    { columns: 1, rows: 1, bits, symmetric, group: 1 },
    { columns: 5, rows: 3, bits, symmetric, group: 5 },
    { columns: 31, rows: 33, bits, symmetric, group: 8 },
    { columns: 65, rows: 127, bits, symmetric, group: 32 },
    { columns: 9, rows: 7, bits, symmetric, group: [0, 2, 2, 0, 4, 0, 2, 4, 4], groups: 6 },
  ]),
);
PLANS.push(
  { columns: 0, rows: 3, bits: 4, symmetric: false, group: 1 },
  { columns: 0, rows: 3, bits: 4, symmetric: true, group: 1, groups: 2 },
  { columns: 3, rows: 0, bits: 4, symmetric: false, group: 2 },
  { columns: 127, rows: 65, bits: 3, symmetric: false, group: 64 },
  // groups that cross the blocks of columns in which devices sweep
  { columns: 200, rows: 37, bits: 4, symmetric: false, group: 96 },
  { columns: 200, rows: 37, bits: 3, symmetric: true, group: 200 },
  { columns: 150, rows: 9, bits: 2, symmetric: false, group: Array.from({ length: 150 }, (_, i) => (7 * i) % 10) },
);

const affineGrid: Case[] = PLANS.map((plan) => ({
  operation: "affineGrid",
  label: labelOf(plan),
  inputs: [weightsOf(plan)],
  run: (engine, [weights]) => engine.affineGrid(weights as F32, optionsOf(plan)),
}));

/** A grid that leaves some weights outside. */
function givenGrid({ rows, bits, groups = 0 }: { rows: number; bits: number; groups?: number }): [Input, Input] {
  const scale = normal([groups, rows], "scale", 0.05);
  for (let i = 0; i < scale.data.length; i++) scale.data[i] = Math.abs(scale.data[i]) + 2 ** -10;
  const zero = f32(
    [groups, rows],
    Array.from(scale.data, (_, i) => (i * 7) % 2 ** bits),
  );
  return [scale, zero];
}

function sweepCase(plan: Plan, feedback: boolean, given: boolean): Case {
  const options = optionsOf(plan);
  const weights = feedback ? normal([plan.columns, plan.rows], "weights") : weightsOf(plan);
  const grid = givenGrid({ ...plan, groups: options.groups });
  return {
    operation: "affineSweep",
    label: labelOf(plan) + (feedback ? ", feedback" : "") + (given ? ", on a grid" : ""),
    inputs: [weights, ...(feedback ? [unitUpper(plan.columns)] : []), ...(given ? grid : [])],
    run: (engine, tensors) => {
      const [scale, zero] = tensors.slice(feedback ? 2 : 1) as F32[];
      return engine.affineSweep(tensors[0] as F32, feedback ? (tensors[1] as F32) : undefined, {
        ...options,
        grid: given ? { scale, zero } : undefined,
      });
    },
    verify: feedback
      ? (outputs, inputs, reference) => verifySweep(plan, options, given ? grid : undefined, outputs, inputs, reference)
      : undefined,
  };
}

/** As for the sweeps over codebooks: the result must be right for its own errors, up to ties. */
async function verifySweep(
  { columns, rows, bits }: Plan,
  options: AffineGridOptions,
  given: [Input, Input] | undefined,
  outputs: Output[],
  [weights, feedback]: readonly Input[],
  reference: Engine,
): Promise<void> {
  const [codes, quantized, scale, zero] = ["codes", "quantized", "scale", "zero"].map((name) => {
    const found = outputs.find(({ path }) => path === name);
    if (!found) throw new Error(`there is no output ${name}`);
    return found.data;
  });
  const running = Float64Array.from(weights.data);
  const fitted = new Set<number>();
  for (let i = 0; i < columns; i++) {
    const group = options.groupOfColumn[i];
    if (!given && !fitted.has(group)) await expectGrid(group);
    fitted.add(group);
    for (let row = 0; row < rows; row++) {
      const [at, on] = [i * rows + row, group * rows + row];
      const exact = running[at] / scale[on] + zero[on];
      const clamped = Math.min(2 ** bits - 1, Math.max(0, exact));
      if (!(Math.abs(codes[at] - clamped) <= 0.5 + CODE_TIE * (1 + Math.abs(exact))))
        expect.fail(`column ${i}, row ${row}: the code is ${codes[at]} where ${exact} was to be rounded`);
      if (quantized[at] !== Math.fround((codes[at] - zero[on]) * scale[on]))
        expect.fail(`column ${i}, row ${row}: code ${codes[at]} was decoded to ${quantized[at]}`);
    }
    for (let j = i + 1; j < columns; j++)
      for (let row = 0; row < rows; row++)
        running[j * rows + row] -=
          (running[i * rows + row] - quantized[i * rows + row]) * feedback.data[i * columns + j];
  }
  if (given) {
    expect([...scale]).toEqual([...given[0].data]);
    expect([...zero]).toEqual([...given[1].data]);
  }

  /** The grid of the columns as they are now; scales may round to the neighboring f16, and zeros follow the scale. */
  async function expectGrid(group: number): Promise<void> {
    const [expected, zeros] = await reference.scope(async () => {
      const now = reference.upload(Float32Array.from(running), [columns, rows], "f32");
      return collect(reference, reference.affineGrid(now, options));
    });
    const part = ({ path, dtype, data }: Output): Output => ({
      path,
      dtype,
      shape: [rows],
      data: Array.from({ length: rows }, (_, row) => data[group * rows + row]),
    });
    const mine = (path: string, data: Numbers) => part({ path, dtype: "f32", shape: [], data });
    expectClose(mine("scale", scale), part(expected), { relative: 2 ** -10 }, `group ${group}`);
    expectClose(mine("zero", zero), part(zeros), { absolute: options.symmetric ? 0 : 1 }, `group ${group}`);
  }
}

const affineSweep: Case[] = [false, true].flatMap((feedback) =>
  [false, true].flatMap((given) => PLANS.map((plan) => sweepCase(plan, feedback, given))),
);

export const affineCases: Case[] = [...affineGrid, ...affineSweep];
