import { describe, expect, it } from "vitest";
import { onHost, wasmEngines } from "../../../test/wasm-engines.js";
import { createRandom, shuffled } from "../../random.js";
import type { AffineGridOptions, Engine } from "../engine.js";

const { engines, reference } = wasmEngines();

function normal(size: number, factor: number, ...seed: (number | string)[]): Float32Array {
  const random = createRandom(2, ...seed);
  return Float32Array.from({ length: size }, () => factor * random.normal());
}

function feedbackOf(columns: number): Float32Array {
  const upper = normal(columns * columns, 1 / Math.sqrt(columns), "feedback");
  for (let i = 0; i < columns; i++) for (let j = 0; j <= i; j++) upper[i * columns + j] = i === j ? 1 : 0;
  return upper;
}

/** Groups of `size` columns, in order or scattered as an activation order leaves them. */
function groupsOf(
  columns: number,
  size: number,
  scattered: boolean,
): Pick<AffineGridOptions, "groupOfColumn" | "groups"> {
  const order = shuffled(columns, createRandom(9));
  return {
    groupOfColumn: Int32Array.from({ length: columns }, (_, i) => Math.floor((scattered ? order[i] : i) / size)),
    groups: Math.ceil(columns / size),
  };
}

const weightsOf = (columns: number, rows: number, factor = 1): Float32Array => {
  const w = normal(columns * rows, factor, "w");
  // rows that are zero, positive, negative
  for (let i = 0; i < columns; i++)
    for (const [row, sign] of [
      [0, 0],
      [1, 1],
      [2, -1],
    ])
      if (row < rows) w[i * rows + row] = sign * Math.abs(w[i * rows + row]);
  return w;
};

describe("affineGrid equals the reference to the last bit", () => {
  for (const bits of [2, 3, 4, 8])
    for (const symmetric of [false, true])
      for (const [columns, rows, size] of [
        [40, 7, 8],
        [33, 130, 33],
        [5, 64, 1],
        [0, 3, 1],
      ])
        it(`${bits} bits, ${symmetric ? "symmetric" : "min-max"}, [${columns}, ${rows}] in groups of ${size}`, async () => {
          for (const factor of [1, 1e-6, 1e-9, 1e5]) {
            const run = (engine: Engine) =>
              onHost(engine, () => {
                const weights = engine.upload(weightsOf(columns, rows, factor), [columns, rows], "f32");
                return { ...engine.affineGrid(weights, { bits, symmetric, ...groupsOf(columns, size, true) }) };
              });
            const expected = await run(reference);
            for (const engine of engines) expect(await run(engine)).toEqual(expected);
          }
        });
});

interface Plan {
  columns: number;
  rows: number;
  size: number;
  scattered?: boolean;
  bits?: number;
  symmetric?: boolean;
  given?: boolean;
  feedback?: boolean;
}

const PLANS: Record<string, Plan> = {
  "a grid from the weights": { columns: 50, rows: 20, size: 10, given: true, feedback: true },
  "no feedback": { columns: 70, rows: 9, size: 70 },
  "a grid at each group's turn": { columns: 150, rows: 24, size: 16, feedback: true },
  "groups across blocks of columns": { columns: 200, rows: 24, size: 48, feedback: true, symmetric: true, bits: 3 },
  "scattered groups": { columns: 333, rows: 17, size: 40, scattered: true, feedback: true },
  "scattered groups of a given grid": {
    columns: 130,
    rows: 17,
    size: 13,
    scattered: true,
    given: true,
    feedback: true,
  },
  "one group a row": { columns: 129, rows: 70, size: 129, feedback: true, bits: 8 },
  "groups of one column": { columns: 12, rows: 6, size: 1, feedback: true },
  "many rows": { columns: 6, rows: 777, size: 3, feedback: true, bits: 4 },
  "no rows": { columns: 6, rows: 0, size: 3, feedback: true },
  "no columns": { columns: 0, rows: 5, size: 3, feedback: true },
};

describe("affineSweep equals the reference to the last bit", () => {
  for (const [name, plan] of Object.entries(PLANS))
    it(name, async () => {
      const { columns, rows, bits = 2, symmetric = false, given, feedback } = plan;
      const run = (engine: Engine) =>
        onHost(engine, () => {
          const weights = engine.upload(weightsOf(columns, rows), [columns, rows], "f32");
          const factor = feedback ? engine.upload(feedbackOf(columns), [columns, columns], "f32") : undefined;
          const options = { bits, symmetric, ...groupsOf(columns, plan.size, plan.scattered ?? false) };
          options.groups++; // a group without columns
          const grid = given ? engine.affineGrid(weights, options) : undefined;
          return { ...engine.affineSweep(weights, factor, { ...options, grid }) };
        });
      const expected = await run(reference);
      for (const engine of engines) expect(await run(engine)).toEqual(expected);
    });
});
