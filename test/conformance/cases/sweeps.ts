import { expect } from "vitest";
import type { CodebookSegment, Engine, VectorSweepResult } from "../../../src/engine/engine.js";
import type { F32, I32, Tensor } from "../../../src/tensor/index.js";
import { SWEEP_FEEDBACK, SWEEP_TIE } from "../../tolerances.js";
import {
  type Case,
  collect,
  f32,
  type Input,
  normal,
  type Output,
  positiveDefinite,
  unitUpper,
  whole,
} from "../case.js";
import { expectClose } from "../compare.js";

// Feedback sums up in another order on every engine, so a sweep may choose otherwise at a near tie and go its own way from
// there. Therefore each result is judged by itself: were its own choices right for its own compensated columns, and are these
// what its own earlier errors make of the weights?

/** Columns of a segment, v, and the codewords of each stage. */
type Layout = readonly [columns: number, v: number, ...codewords: number[]];

interface Sweep {
  rows: number;
  layout: readonly Layout[];
  beam?: number;
  feedback?: boolean;
  /** Small whole numbers everywhere: ties. */
  gridded?: boolean;
}

const codebooksOf = ({ layout, gridded }: Sweep): Input<"f32">[] =>
  layout.flatMap(([, v, ...codewords], segment) =>
    codewords.map((count, stage) =>
      gridded
        ? f32([count, v], whole([count, v], 3, `${segment}.${stage}`).data)
        : normal([count, v], `${segment}.${stage}`, 0.5 ** stage),
    ),
  );

/** Segments over codebooks that follow each other in `tensors`. */
function segmentsOf({ layout }: Sweep, tensors: readonly Tensor[]): CodebookSegment[] {
  let [at, begin] = [0, 0];
  return layout.map(([columns, , ...codewords]) => {
    const stages = tensors.slice(at, at + codewords.length) as F32[];
    at += codewords.length;
    begin += columns;
    return { begin: begin - columns, end: begin, stages };
  });
}

const columnsOf = ({ layout }: Sweep): number => layout.reduce((sum, [columns]) => sum + columns, 0);

const labelOf = ({ rows, layout, beam, feedback, gridded }: Sweep): string =>
  [
    `${rows} rows, ${layout.map(([columns, v, ...codewords]) => `${columns} of v${v} k${codewords.join("+")}`).join(", ")}`,
    ...(beam === undefined ? [] : [`beam ${beam}`]),
    ...(feedback ? ["feedback"] : []),
    ...(gridded ? ["ties"] : []),
  ].join("; ");

const named = (outputs: Output[], path: string): Output => {
  const found = outputs.find((output) => output.path === path);
  if (!found) throw new Error(`there is no output ${path}`);
  return found;
};

/** The choices for columns without feedback, by the reference. */
async function choices(reference: Engine, sweep: Sweep, columns: ArrayLike<number>, codebooks: readonly Input[]) {
  return reference.scope(async () => {
    const tensors = codebooks.map(({ data, shape, dtype }) => reference.upload(data, shape, dtype));
    const given = f32([columnsOf(sweep), sweep.rows], columns);
    const weights = reference.upload(given.data, given.shape, "f32");
    const options = { beam: sweep.beam };
    return collect(reference, reference.vectorSweep(weights, undefined, segmentsOf(sweep, tensors), options));
  });
}

/** weights - sum over earlier columns of their errors times feedback, in f64. */
function recompensate(weights: ArrayLike<number>, quantized: ArrayLike<number>, upper: ArrayLike<number>, n: number) {
  const rows = weights.length / n;
  const compensated = Float64Array.from(weights);
  for (let i = 0; i < n; i++)
    for (let j = i + 1; j < n; j++)
      for (let row = 0; row < rows; row++)
        compensated[j * rows + row] -= (compensated[i * rows + row] - quantized[i * rows + row]) * upper[i * n + j];
  return compensated;
}

function vectorCase(sweep: Sweep): Case {
  const columns = columnsOf(sweep);
  const shape = [columns, sweep.rows];
  const weights = sweep.gridded ? f32(shape, whole(shape, 6, "weights").data) : normal(shape, "weights");
  const fixed = sweep.feedback ? [weights, unitUpper(columns)] : [weights];
  return {
    operation: "vectorSweep",
    label: labelOf(sweep),
    inputs: [...fixed, ...codebooksOf(sweep)],
    run: (engine, tensors): VectorSweepResult =>
      engine.vectorSweep(
        tensors[0] as F32,
        sweep.feedback ? (tensors[1] as F32) : undefined,
        segmentsOf(sweep, tensors.slice(fixed.length)),
        sweep.beam === undefined ? undefined : { beam: sweep.beam },
      ),
    // without feedback everything is equal to the reference; with it:
    verify: sweep.feedback
      ? async (outputs, inputs, reference) => {
          const compensated = named(outputs, "compensated");
          const expected = await choices(reference, sweep, compensated.data, inputs.slice(2));
          expect(outputs.map(({ path }) => path)).toEqual(expected.map(({ path }) => path));
          for (const [index, output] of outputs.entries())
            if (output !== compensated) expectClose(output, expected[index], undefined, "choices for its own columns");
          const data = recompensate(inputs[0].data, named(outputs, "quantized").data, inputs[1].data, columns);
          expectClose(compensated, { ...compensated, data }, SWEEP_FEEDBACK, "feedback of its own errors");
          expect([...compensated.data].slice(0, sweep.rows)).toEqual([...inputs[0].data.slice(0, sweep.rows)]);
        }
      : undefined,
  };
}

const PLANS: Sweep[] = [
  { rows: 4, layout: [[1, 4, 1]] },
  { rows: 12, layout: [[5, 4, 7]] },
  { rows: 1, layout: [[7, 1, 3]] },
  { rows: 36, layout: [[33, 2, 16]] },
  {
    rows: 24,
    layout: [
      [3, 8, 33],
      [0, 2, 3],
      [31, 4, 65],
      [7, 6, 9],
    ],
  },
  {
    rows: 40,
    layout: [
      [9, 5, 17],
      [31, 4, 256],
    ],
  },
  { rows: 260, layout: [[65, 4, 257]] },
  { rows: 252, layout: [[127, 12, 5]] },
  { rows: 4, layout: [[0, 4, 3]] },
  { rows: 0, layout: [[5, 4, 3]] },
  { rows: 0, layout: [] },
  { rows: 24, layout: [[31, 4, 16, 8]] },
  {
    rows: 24,
    layout: [
      [31, 4, 16, 8, 5],
      [9, 3, 7],
    ],
  },
  { rows: 16, layout: [[7, 8, 1, 9]] },
];

const vectorSweep: Case[] = [false, true].flatMap((feedback) => [
  ...PLANS.map((plan) => vectorCase({ ...plan, feedback })),
  ...[1, 2, 3, 5, 1000].flatMap((beam) => [
    vectorCase({ rows: 24, layout: [[17, 4, 16, 9]], beam, feedback }),
    vectorCase({
      rows: 24,
      layout: [
        [5, 2, 7],
        [12, 6, 33, 7, 5],
      ],
      beam,
      feedback,
    }),
  ]),
  ...[1, 3, 8].map((beam) => vectorCase({ rows: 24, layout: [[9, 2, 12, 7]], beam, feedback, gridded: true })),
  // codebooks of several codewords a thread of a device; with ties, the candidates are of one thread, too
  ...[false, true].map((gridded) => vectorCase({ rows: 32, layout: [[6, 4, 1100, 20]], beam: 6, feedback, gridded })),
  // and of batches of them
  ...[false, true].map((gridded) => vectorCase({ rows: 32, layout: [[4, 8, 9001, 20]], beam: 8, feedback, gridded })),
  // a group of a device has several vectors, and the last one fewer
  ...[false, true].flatMap((gridded) => [
    vectorCase({ rows: 2078, layout: [[3, 2, 300, 20]], beam: 5, feedback, gridded }),
    vectorCase({ rows: 2072, layout: [[3, 8, 600, 20, 9]], beam: 3, feedback, gridded }),
  ]),
  vectorCase({
    rows: 60,
    layout: [
      [31, 4, 40],
      [9, 3, 12],
    ],
    feedback,
    gridded: true,
  }),
]);

// ---- coordinate descent

/** tr(E H E^T) with E = W - Q held as [I, P], in f64. */
function objective(
  weights: ArrayLike<number>,
  quantized: ArrayLike<number>,
  hessian: ArrayLike<number>,
  n: number,
): number {
  const rows = weights.length / Math.max(1, n);
  let sum = 0;
  for (let i = 0; i < n; i++)
    for (let j = 0; j < n; j++) {
      let product = 0;
      for (let row = 0; row < rows; row++)
        product +=
          (weights[i * rows + row] - quantized[i * rows + row]) * (weights[j * rows + row] - quantized[j * rows + row]);
      sum += hessian[i * n + j] * product;
    }
  return sum;
}

/** What each column was aimed at: x = q_i + (H E)_i / H_ii, where the columns before i are as they became. */
function targets(
  weights: ArrayLike<number>,
  hessian: ArrayLike<number>,
  before: ArrayLike<number>,
  after: ArrayLike<number>,
  n: number,
): Float64Array {
  const rows = weights.length / Math.max(1, n);
  const x = Float64Array.from(before);
  for (let i = 0; i < n; i++) {
    if (!(hessian[i * n + i] > 0)) continue;
    for (let j = 0; j < n; j++) {
      const factor = hessian[i * n + j] / hessian[i * n + i];
      const quantized = j < i ? after : before;
      for (let row = 0; row < rows; row++)
        x[i * rows + row] += factor * (weights[j * rows + row] - quantized[j * rows + row]);
    }
  }
  return x;
}

const distance = (x: ArrayLike<number>, q: ArrayLike<number>, at: number, v: number): number => {
  let sum = 0;
  for (let t = at; t < at + v; t++) sum += (x[t] - q[t]) ** 2;
  return sum;
};

const squares = (x: ArrayLike<number>, at: number, v: number): number => {
  let sum = 0;
  for (let t = at; t < at + v; t++) sum += x[t] ** 2;
  return sum;
};

function coordinateCase(sweep: Sweep, dead: number[] = []): Case {
  const columns = columnsOf(sweep);
  const { rows, layout } = sweep;
  const weights = normal([columns, rows], "weights");
  const hessian = positiveDefinite(columns, 0.05);
  for (const column of dead)
    for (let other = 0; other < columns; other++) {
      hessian.data[column * columns + other] = 0;
      hessian.data[other * columns + column] = 0;
    }
  const codebooks = codebooksOf(sweep);
  const start = beginning(sweep, codebooks);
  return {
    operation: "coordinateSweep",
    label: labelOf(sweep) + (dead.length > 0 ? `; dead columns ${dead}` : ""),
    inputs: [weights, hessian, start.quantized, ...codebooks, ...start.indices],
    run: (engine, tensors) => {
      const segments = segmentsOf(sweep, tensors.slice(3));
      let at = 3 + codebooks.length;
      const indices = layout.map(([, , ...codewords]) => codewords.map(() => tensors[at++] as I32));
      return engine.coordinateSweep(
        tensors[0] as F32,
        tensors[1] as F32,
        tensors[2] as F32,
        segments,
        indices,
        sweep.beam === undefined ? undefined : { beam: sweep.beam },
      );
    },
    verify: async (outputs, _inputs, reference) => {
      const before = start.quantized.data;
      const after = named(outputs, "quantized").data;
      const decoded = decode(
        sweep,
        codebooks,
        outputs.filter(({ path }) => path.startsWith("indices")),
      );
      expect([...after], "the indices decode to the quantized weights").toEqual([...decoded]);
      const [was, is] = [before, after].map((quantized) => objective(weights.data, quantized, hessian.data, columns));
      expect(is, "the objective").toBeLessThanOrEqual(was * (1 + 1e-6));
      const x = targets(weights.data, hessian.data, before, after, columns);
      const found = named(await choices(reference, sweep, x, codebooks), "quantized").data;
      let column = 0;
      for (const [count, v] of layout)
        for (const end = column + count; column < end; column++)
          for (let at = column * rows; at < (column + 1) * rows; at += v) {
            const [kept, searched, chosen] = [before, found, after].map((q) => distance(x, q, at, v));
            const best = dead.includes(column) ? kept : Math.min(kept, searched);
            const room = dead.includes(column) ? 0 : SWEEP_TIE * squares(x, at, v);
            if (!(Math.abs(chosen - best) <= room))
              expect.fail(
                `column ${column}, row ${at - column * rows}: chose at distance ${chosen} where ${best} was to be had`,
              );
          }
    },
  };
}

/** Any choice of codewords to start from, and what it decodes to. */
function beginning(sweep: Sweep, codebooks: readonly Input<"f32">[]) {
  let at = 0;
  const indices = sweep.layout.flatMap(([columns, v, ...codewords], segment) =>
    codewords.map(() => {
      const { shape } = codebooks[at++];
      return whole([columns, sweep.rows / v], shape[0], `start ${segment} ${at}`);
    }),
  );
  const outputs = indices.map(({ data }) => ({ data }));
  return {
    indices: indices as Input<"i32">[],
    quantized: f32([columnsOf(sweep), sweep.rows], decode(sweep, codebooks, outputs)),
  };
}

/** Sums of codewords in order of the stages, f32. */
function decode(sweep: Sweep, codebooks: readonly Input<"f32">[], indices: readonly { data: ArrayLike<number> }[]) {
  const out = new Float32Array(columnsOf(sweep) * sweep.rows);
  let [at, begin] = [0, 0];
  for (const [columns, v, ...codewords] of sweep.layout) {
    for (const _ of codewords) {
      const [codebook, index] = [codebooks[at].data, indices[at].data];
      for (let vector = 0; vector < index.length; vector++)
        for (let t = 0; t < v; t++) out[begin * sweep.rows + vector * v + t] += codebook[index[vector] * v + t];
      at++;
    }
    begin += columns;
  }
  return out;
}

const coordinateSweep: Case[] = [
  ...PLANS.map((plan) => coordinateCase(plan)),
  ...[1, 2, 4].map((beam) =>
    coordinateCase({
      rows: 24,
      layout: [
        [17, 4, 16, 9],
        [5, 2, 7],
      ],
      beam,
    }),
  ),
  coordinateCase({ rows: 32, layout: [[4, 8, 9001, 20]], beam: 8 }),
  coordinateCase({ rows: 2078, layout: [[3, 2, 300, 20]], beam: 5 }),
  coordinateCase({ rows: 1036, layout: [[3, 2, 300, 20, 9]], beam: 4 }),
  coordinateCase({ rows: 24, layout: [[17, 4, 16]] }, [0, 7, 16]),
];

export const sweepCases: Case[] = [...vectorSweep, ...coordinateSweep];
