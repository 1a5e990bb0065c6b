import { describe, expect, it } from "vitest";
import { onHost, wasmEngines } from "../../../test/wasm-engines.js";
import { createRandom } from "../../random.js";
import type { F32 } from "../../tensor/index.js";
import type { CodebookSegment, Engine } from "../engine.js";

const { engines, reference } = wasmEngines();

function normal(size: number, factor: number, ...seed: (number | string)[]): Float32Array {
  const random = createRandom(2, ...seed);
  return Float32Array.from({ length: size }, () => factor * random.normal());
}

interface Plan {
  columns: number;
  rows: number;
  /** begin, end, v and C of each stage. */
  segments: [number, number, number, number[]][];
  beam?: number;
  feedback?: boolean;
}

const segmentsOf = (engine: Engine, { segments }: Plan): CodebookSegment[] =>
  segments.map(([begin, end, v, stages], number) => ({
    begin,
    end,
    stages: stages.map((codewords, stage) =>
      engine.upload(normal(codewords * v, 0.7 ** stage, "codebook", number, stage), [codewords, v], "f32"),
    ),
  }));

/** Unit upper triangular, as feedback comes from a Hessian with correlated columns. */
function feedbackOf(columns: number): Float32Array {
  const upper = normal(columns * columns, 1 / Math.sqrt(columns), "feedback");
  for (let i = 0; i < columns; i++) for (let j = 0; j <= i; j++) upper[i * columns + j] = i === j ? 1 : 0;
  return upper;
}

/** x^T x / n of correlated x, with one column that is never active. */
function hessianOf(columns: number): Float32Array {
  const tokens = 2 * columns;
  const x = normal(tokens * columns, 1, "x");
  for (let t = 0; t < tokens; t++) for (let i = 1; i < columns; i++) x[t * columns + i] += 0.6 * x[t * columns + i - 1];
  if (columns > 3) for (let t = 0; t < tokens; t++) x[t * columns + 3] = 0;
  const hessian = new Float32Array(columns * columns);
  for (let i = 0; i < columns; i++)
    for (let j = 0; j < columns; j++) {
      let sum = 0;
      for (let t = 0; t < tokens; t++) sum += x[t * columns + i] * x[t * columns + j];
      hessian[i * columns + j] = sum / tokens;
    }
  return hessian;
}

const sweep = (engine: Engine, plan: Plan) =>
  onHost(engine, () => {
    const { columns, rows, beam, feedback = true } = plan;
    const weights = engine.upload(normal(columns * rows, 1, "w"), [columns, rows], "f32");
    const factor = feedback ? engine.upload(feedbackOf(columns), [columns, columns], "f32") : undefined;
    const result = engine.vectorSweep(weights, factor, segmentsOf(engine, plan), { beam });
    const indices = Object.fromEntries(result.indices.flat().map((index, at) => [`indices ${at}`, index]));
    return { quantized: result.quantized, compensated: result.compensated, ...indices };
  });

const PLANS: Record<string, Plan> = {
  "one codebook": { columns: 70, rows: 24, segments: [[0, 70, 4, [32]]] },
  "one codebook, no feedback": { columns: 9, rows: 12, segments: [[0, 9, 4, [40]]], feedback: false },
  "many rows": { columns: 5, rows: 520, segments: [[0, 5, 4, [16]]] },
  "blocks of columns": { columns: 201, rows: 36, segments: [[0, 201, 2, [16]]] },
  "a single column of a single row": { columns: 1, rows: 1, segments: [[0, 1, 1, [5]]] },
  "segments of several lengths": {
    columns: 90,
    rows: 48,
    segments: [
      [0, 7, 2, [16]],
      [7, 7, 3, [4]],
      [7, 66, 6, [64]],
      [66, 90, 8, [50]],
    ],
  },
  "three stages": { columns: 67, rows: 20, segments: [[0, 67, 4, [24, 9, 17]]] },
  "a beam": { columns: 66, rows: 30, segments: [[0, 66, 5, [24, 16, 9]]], beam: 4 },
  "a beam wider than the codebook": {
    columns: 20,
    rows: 16,
    segments: [
      [0, 6, 2, [7]],
      [6, 20, 8, [5, 40]],
    ],
    beam: 9,
  },
  "vectors longer than a slab": { columns: 6, rows: 210, segments: [[0, 6, 105, [6]]] },
  "no rows": { columns: 4, rows: 0, segments: [[0, 4, 4, [3]]] },
  "no columns": { columns: 0, rows: 8, segments: [] },
};

describe("vectorSweep equals the reference to the last bit", () => {
  for (const [name, plan] of Object.entries(PLANS))
    it(name, async () => {
      const expected = await sweep(reference, plan);
      for (const engine of engines) expect(await sweep(engine, plan)).toEqual(expected);
    });
});

describe("vectorSweep", () => {
  it("shares one codebook between segments and frees what it took", async () => {
    const [engine] = engines;
    const quantized = (cut: number) =>
      onHost(engine, () => {
        const codebook = engine.upload(normal(64, 1, "shared"), [16, 4], "f32");
        const weights = engine.upload(normal(320, 1, "w"), [20, 16], "f32");
        const factor = engine.upload(feedbackOf(20), [20, 20], "f32");
        const cuts = [0, cut, 20];
        const segments = [0, 1].map((k) => ({ begin: cuts[k], end: cuts[k + 1], stages: [codebook] }));
        return { quantized: engine.vectorSweep(weights, factor, segments).quantized };
      });
    expect(await quantized(3)).toEqual(await quantized(20));
    expect(engine.liveBytes()).toBe(0);
  });
});

/** tr(E H E^T). */
function objective(
  weights: Float32Array,
  quantized: ArrayLike<number>,
  hessian: Float32Array,
  columns: number,
): number {
  const rows = weights.length / columns;
  let sum = 0;
  for (let row = 0; row < rows; row++)
    for (let i = 0; i < columns; i++)
      for (let j = 0; j < columns; j++) {
        const [a, b] = [i * rows + row, j * rows + row];
        sum += (weights[a] - quantized[a]) * hessian[i * columns + j] * (weights[b] - quantized[b]);
      }
  return sum;
}

async function descend(engine: Engine, plan: Plan, passes: number): Promise<Record<string, number[]>> {
  const { columns, rows, beam } = plan;
  return onHost(engine, () => {
    const weights = engine.upload(normal(columns * rows, 1, "w"), [columns, rows], "f32");
    const hessian = engine.upload(hessianOf(columns), [columns, columns], "f32");
    const segments = segmentsOf(engine, plan);
    const start = engine.vectorSweep(weights, undefined, segments, { beam });
    let now: { indices: typeof start.indices; quantized: F32 } = start;
    for (let pass = 0; pass < passes; pass++)
      now = engine.coordinateSweep(weights, hessian, now.quantized, segments, now.indices, { beam });
    const indices = Object.fromEntries(now.indices.flat().map((index, at) => [`indices ${at}`, index]));
    return { start: start.quantized, quantized: now.quantized, ...indices };
  });
}

describe("coordinateSweep", () => {
  // both have sums of f64 inside, so a choice differs only where rounding to f32 falls the other way
  for (const name of ["one codebook", "segments of several lengths", "three stages", "a beam", "many rows", "no rows"])
    it(`${name}: the reference's choices, and never a higher objective`, async () => {
      const plan = PLANS[name];
      const { columns } = plan;
      const expected = await descend(reference, plan, 2);
      for (const engine of engines) expect(await descend(engine, plan, 2)).toEqual(expected);
      const weights = normal(columns * plan.rows, 1, "w");
      const [before, after] = ["start", "quantized"].map((key) =>
        objective(weights, expected[key], hessianOf(columns), columns),
      );
      if (plan.rows > 0) expect(after).toBeLessThan(before);
    });

  it("spans blocks of columns", async () => {
    const plan: Plan = { columns: 150, rows: 72, segments: [[0, 150, 4, [32]]] };
    const expected = await descend(reference, plan, 1);
    for (const engine of engines) expect(await descend(engine, plan, 1)).toEqual(expected);
  });
});
