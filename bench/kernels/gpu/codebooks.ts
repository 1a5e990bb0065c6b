import { codebookColumns, vectorsOfGroup } from "../../../src/engine/device/operations/codebook.js";
import type { AffineGrid, AffineSweepResult, VectorSweepResult } from "../../../src/engine/engine.js";
import type { F32, I32 } from "../../../src/tensor/index.js";
import type { Work } from "./cards.js";
import {
  type Bench,
  cornerOf,
  expected,
  largestError,
  type MakeCase,
  normal,
  rowsOf,
  shareOff,
  type Version,
} from "./lab.js";
import { kernelNamed, SEGMENT_ATOMICS, SEGMENT_NARROW } from "./versions.js";

// What quantization by codebooks and grids is made of.

const THREADS = 256;
/** Columns and rows of a sweep that are checked: both begin at 0, and what comes behind does not reach them. */
const [SWEPT_COLUMNS, SWEPT_ROWS] = [72, 16];

/** [O, I] of the weight whose vectors are sorted: n = O I / v. */
const vectorsOf = (bench: Bench, hidden: number, length: number): F32 =>
  bench.draw([(hidden * hidden) / length, length]);

/** Scores on tensor cores, of f16 numbers and f32 ones split in two f16: two products each; elsewhere a multiply-add in f32. */
const searchOf = ({ kind }: Bench, products: number, f32 = 0): Work["operations"] =>
  kind === "cuda" ? { f16: 4 * products, f32 } : { f32: 2 * products + f32 };

const nearestCodeword: MakeCase = (bench, { hidden, vectorLength: length, codewords }) => {
  const { engine, draw } = bench;
  const vectors = vectorsOf(bench, hidden, length);
  const [count] = vectors.shape;
  const book = draw([codewords, length]);
  const call = (kernel: string, constants: number[], groups: number, source: F32) => {
    const [indices, distances] = [engine.empty([count], "i32"), engine.empty([count])];
    const tensors = [vectors, source, indices, distances];
    engine.run(kernelNamed(kernel), { groups, tensors, numbers: [count, codewords], constants });
    return { indices, distances };
  };
  const width = vectorsOfGroup(count, length);
  const versions: Version[] = [
    {
      name: "a group for some vectors, distances step by step",
      run: () =>
        call("nearestGroups", [width, length, 1, 0], Math.ceil(count / width), codebookColumns(engine, [book])),
    },
    {
      name: "tiles, fused scores with a bound",
      run: () => call("nearestTiled", [length, 4], Math.ceil(count / (4 * THREADS)), book),
    },
    { name: "product", run: () => engine.nearestCodeword(vectors, book) },
  ];
  const rows = Math.min(16, count);
  return {
    shape: `${count} x ${length} into ${codewords}`,
    work: {
      bytes: 4 * (vectors.size + book.size + 2 * count),
      operations: searchOf(bench, count * codewords * length),
    },
    versions,
    torch: { operation: "nearestCodeword", shape: [count, length, codewords] },
    tolerance: 0,
    /** The last vectors: indices and distances. */
    async check(run) {
      const { indices, distances } = (await run()) as { indices: I32; distances: F32 };
      const input = await rowsOf(bench, vectors, count - rows, rows);
      const all = await engine.read(book);
      const want = await bench.reference.scope(async () => {
        const [x, c] = [
          bench.reference.upload(input, [rows, length], "f32"),
          bench.reference.upload(all, [codewords, length], "f32"),
        ];
        const found = bench.reference.nearestCodeword(x, c);
        return [await bench.reference.read(found.indices), await bench.reference.read(found.distances)] as const;
      });
      const got = [
        await rowsOf(bench, indices, count - rows, rows),
        await rowsOf(bench, distances, count - rows, rows),
      ] as const;
      return Math.max(largestError(got[0], want[0]), largestError(got[1], want[1]));
    },
  };
};

const segmentSum: MakeCase = (bench, { hidden, vectorLength: length, codewords }) => {
  const { engine } = bench;
  const vectors = vectorsOf(bench, hidden, length);
  const [count] = vectors.shape;
  const weights = engine.upload(normal(count).map(Math.abs), [count], "f32");
  // neither in order nor equally often
  const chosen = Int32Array.from({ length: count }, (_, i) => Math.floor(codewords * ((i * 0.61803398875) % 1) ** 1.5));
  const indices = engine.upload(chosen, [count], "i32");
  const versions: Version[] = [{ name: "product", run: () => engine.segmentSum(vectors, weights, indices, codewords) }];
  if (bench.kind === "cuda")
    versions.unshift({
      name: "atomic additions, not the same in each run",
      run: () => {
        const sums = engine.create([codewords, 2 * (length + 1)]);
        const found = { sums: engine.empty([codewords, length]), totals: engine.empty([codewords]) };
        engine.run(SEGMENT_ATOMICS, {
          groups: Math.ceil((count * (length + 1)) / THREADS),
          tensors: [vectors, weights, indices, sums],
          numbers: [count, length],
        });
        engine.run(SEGMENT_NARROW, {
          groups: Math.ceil((codewords * (length + 1)) / THREADS),
          tensors: [sums, found.sums, found.totals],
          numbers: [codewords, length],
        });
        return found;
      },
    });
  return {
    shape: `${count} x ${length} into ${codewords}`,
    work: {
      bytes: 4 * (vectors.size + 2 * count + codewords * (length + 1)),
      operations: { f64: 2 * count * (length + 1) },
    },
    versions,
    torch: { operation: "segmentSum", shape: [count, length, codewords] },
    tolerance: 1e-6,
    /** All sums. */
    async check(run) {
      const { sums } = (await run()) as { sums: F32 };
      const [data, factors] = [await engine.read(vectors), await engine.read(weights)];
      const want = await expected(bench, (on, f32) => {
        const segments = on.upload(chosen, [count], "i32");
        return on.segmentSum(f32(data, [count, length]), f32(factors, [count]), segments, codewords).sums;
      });
      return largestError(await engine.read(sums), want);
    },
  };
};

/** Upper triangular with a unit diagonal, entries of the size of a trained layer's feedback. */
function feedbackOf(bench: Bench, side: number): F32 {
  const data = normal(side * side, 0.3 / Math.sqrt(side));
  for (let i = 0; i < side; i++) {
    data.fill(0, i * side, i * side + i);
    data[i * side + i] = 1;
  }
  return bench.engine.upload(data, [side, side], "f32");
}

/** A sweep as it is written down: each column is quantized and pays to all behind it at once. */
function columnByColumn(bench: Bench, weights: F32, feedback: F32, quantize: (column: F32, i: number) => F32): F32 {
  const { engine } = bench;
  const [columns, rows] = weights.shape;
  return engine.scope(() => {
    const [running, quantized] = [engine.copy(weights), engine.empty([columns, rows])];
    for (let i = 0; i < columns; i++)
      engine.scope(() => {
        const column = engine.view(running, [rows], i * rows);
        const chosen = engine.view(quantize(column, i), [rows]);
        engine.copyInto(quantized, chosen, i * rows);
        const later = columns - i - 1;
        if (later === 0) return;
        const factors = engine.view(feedback, [later, 1], i * columns + i + 1);
        const errors = engine.view(engine.subtract(column, chosen), [1, rows]);
        const accumulate = engine.view(running, [later, rows], (i + 1) * rows);
        engine.matmul(factors, errors, { alpha: -1, accumulate, exact: true });
      });
    return quantized;
  });
}

/** `few` takes 256 codewords, so that the feedback weighs more than the search. */
const vectorSweep =
  (few: boolean): MakeCase =>
  (bench, { hidden, vectorLength: length, codewords: many }) => {
    const { engine, draw } = bench;
    const codewords = few ? Math.min(256, many >> 1) : many;
    const [weights, feedback, book] = [draw([hidden, hidden]), feedbackOf(bench, hidden), draw([codewords, length])];
    const segments = [{ begin: 0, end: hidden, stages: [book] }];
    const [columns, rows] = [Math.min(SWEPT_COLUMNS, hidden), Math.min(SWEPT_ROWS, hidden)];
    return {
      shape: `[${hidden}, ${hidden}], v ${length}, ${codewords} codewords`,
      work: {
        bytes: 4 * (4 * weights.size + feedback.size / 2),
        operations: searchOf(bench, weights.size * codewords, hidden ** 3),
      },
      versions: [
        {
          name: "a column at a time",
          run: () =>
            columnByColumn(bench, weights, feedback, (column) => {
              const vectors = engine.view(column, [hidden / length, length]);
              return engine.gatherRows(book, engine.nearestCodeword(vectors, book).indices);
            }),
        },
        { name: "product", run: () => engine.vectorSweep(weights, feedback, segments).quantized },
      ],
      tolerance: 0.01,
      async check(run) {
        const got = await cornerOf(bench, (await run()) as F32, columns, rows);
        const corner = await cornerOf(bench, weights, columns, rows);
        const fed = await cornerOf(bench, feedback, columns, columns);
        const all = await engine.read(book);
        const want = await expected(bench, (on, f32) => {
          const stages = [f32(all, [codewords, length])];
          const swept: VectorSweepResult = on.vectorSweep(f32(corner, [columns, rows]), f32(fed, [columns, columns]), [
            { begin: 0, end: columns, stages },
          ]);
          return swept.quantized;
        });
        return shareOff(got, want);
      },
    };
  };

const affineSweep: MakeCase = (bench, { hidden }) => {
  const { engine, draw } = bench;
  const [bits, group] = [4, 128];
  const [weights, feedback] = [draw([hidden, hidden]), feedbackOf(bench, hidden)];
  const groups = Math.ceil(hidden / group);
  const groupOfColumn = Int32Array.from({ length: hidden }, (_, i) => Math.floor(i / group));
  const options = { bits, symmetric: false, groupOfColumn, groups };
  const grid = engine.affineGrid(weights, options);
  const ofColumn = (i: number): AffineGrid => {
    const at = groupOfColumn[i] * hidden;
    return { scale: engine.view(grid.scale, [hidden, 1], at), zero: engine.view(grid.zero, [hidden, 1], at) };
  };
  const [columns, rows] = [Math.min(SWEPT_COLUMNS, hidden), Math.min(SWEPT_ROWS, hidden)];
  return {
    shape: `[${hidden}, ${hidden}], ${bits} bits, groups of ${group}`,
    work: { bytes: 4 * (2.25 * weights.size + feedback.size / 2), operations: { f32: hidden ** 3 } },
    versions: [
      {
        name: "a column at a time",
        run: () =>
          columnByColumn(bench, weights, feedback, (column, i) =>
            engine.fakeQuantize(engine.view(column, [hidden, 1]), ofColumn(i), { bits, group: 1, symmetric: false }),
          ),
      },
      { name: "product", run: () => engine.affineSweep(weights, feedback, { ...options, grid }).quantized },
    ],
    tolerance: 0.01,
    async check(run) {
      const got = await cornerOf(bench, (await run()) as F32, columns, rows);
      const corner = await cornerOf(bench, weights, columns, rows);
      const fed = await cornerOf(bench, feedback, columns, columns);
      const [scale, zero] = [
        await cornerOf(bench, grid.scale, groups, rows),
        await cornerOf(bench, grid.zero, groups, rows),
      ];
      const want = await expected(bench, (on, f32) => {
        const same: AffineGrid = { scale: f32(scale, [groups, rows]), zero: f32(zero, [groups, rows]) };
        const leading = { bits, symmetric: false, groupOfColumn: groupOfColumn.slice(0, columns), groups, grid: same };
        const swept: AffineSweepResult = on.affineSweep(
          f32(corner, [columns, rows]),
          f32(fed, [columns, columns]),
          leading,
        );
        return swept.quantized;
      });
      return shareOff(got, want);
    },
  };
};

export const CODEBOOK_CASES = {
  nearestCodeword,
  segmentSum,
  vectorSweep: vectorSweep(false),
  vectorSweepFew: vectorSweep(true),
  affineSweep,
} as const satisfies Record<string, MakeCase>;
