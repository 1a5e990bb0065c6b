import { createHash } from "node:crypto";
import fc from "fast-check";
import type {
  AffineRecord,
  CodebookRecord,
  CodebookSegmentRecord,
  QuantizedRecord,
  RecordStorage,
} from "../src/quant/record.js";
import { bf16ToF32, f16ToF32, f32ToBF16, f32ToF16 } from "../src/tensor/index.js";

/** A record with its arrays as text: equal for equal records, and quick to compare. */
export const fingerprint = (record: QuantizedRecord): unknown =>
  JSON.parse(
    JSON.stringify(record, (_key, value: unknown) => {
      if (!ArrayBuffer.isView(value)) return value;
      const bytes = new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
      return `${value.constructor.name} ${createHash("sha256").update(bytes).digest("hex")}`;
    }),
  );

// Arbitrary records for property tests: ragged sizes, any number of stages, groups and outliers, every optional part.

const round = (values: Float32Array, storage: RecordStorage) =>
  storage === "f16" ? f16ToF32(f32ToF16(values)) : bf16ToF32(f32ToBF16(values));

/** Numbers from a seed: fast-check shrinks shapes, not thousands of weights. */
function stream(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

const storageOf = fc.constantFrom<RecordStorage>("f16", "bf16");
const size = fc.integer({ min: 1, max: 20 });

export const affineRecords: fc.Arbitrary<AffineRecord> = fc
  .record({
    rows: size,
    columns: size,
    bits: fc.integer({ min: 1, max: 8 }),
    group: size,
    symmetric: fc.boolean(),
    scattered: fc.boolean(),
    storage: storageOf,
    bias: fc.boolean(),
    seed: fc.integer(),
  })
  .map((shape) => buildAffine(shape));

/** Records that GPTQ and compressed-tensors hold. */
export const packableRecords: fc.Arbitrary<AffineRecord> = fc
  .record({
    rows: fc.constantFrom(32, 64),
    columns: fc.constantFrom(32, 64, 96),
    bits: fc.constantFrom(2, 3, 4, 8),
    group: fc.constantFrom(16, 32, 96),
    symmetric: fc.boolean(),
    storage: storageOf,
    bias: fc.boolean(),
    seed: fc.integer(),
  })
  .map((shape) => buildAffine({ ...shape, scattered: false }));

interface AffineParts {
  rows: number;
  columns: number;
  bits: number;
  group: number;
  symmetric: boolean;
  /** Groups are no runs of columns. */
  scattered: boolean;
  storage: RecordStorage;
  bias: boolean;
  seed: number;
}

function buildAffine({ seed, bias, scattered, ...shape }: AffineParts): AffineRecord {
  const next = stream(seed);
  const { rows, columns, bits, storage, symmetric } = shape;
  const group = Math.min(shape.group, columns);
  const perRow = Math.ceil(columns / group);
  const groups = rows * perRow;
  const groupOfColumn = Int32Array.from({ length: columns }, () => next() * perRow);
  const codes = (count: number) => Uint8Array.from({ length: count }, () => next() * 2 ** bits);
  const reals = (count: number) =>
    round(
      Float32Array.from({ length: count }, () => next() - 0.5),
      storage,
    );
  return {
    kind: "affine",
    storage,
    rows,
    columns,
    bits,
    symmetric,
    group,
    codes: codes(rows * columns),
    scale: reals(groups),
    zero: symmetric ? new Uint8Array(groups).fill(2 ** (bits - 1)) : codes(groups),
    ...(scattered ? { groupOfColumn } : {}),
    ...(bias ? { bias: reals(rows) } : {}),
  };
}

const segment = fc.record({
  columns: fc.integer({ min: 1, max: 12 }),
  vectorLength: fc.integer({ min: 1, max: 7 }),
  codewords: fc.array(fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constant(5000)), { minLength: 1, maxLength: 4 }),
});

/** Large codebooks are for wide indices: their vectors are one element long. */
const build = (
  shape: {
    rows: number;
    hasOutliers: boolean;
    segments: { columns: number; vectorLength: number; codewords: number[] }[];
    storage: RecordStorage;
    order: boolean;
    columnScale: boolean;
    columnBias: boolean;
    rowScale: boolean;
    bias: boolean;
  },
  seed: number,
): CodebookRecord => {
  const next = stream(seed);
  const { rows, storage } = shape;
  const reals = (count: number) =>
    round(
      Float32Array.from({ length: count }, () => next() - 0.5),
      storage,
    );
  const segments: CodebookSegmentRecord[] = [];
  let begin = 0;
  for (const { columns, vectorLength: length, codewords } of shape.segments) {
    const vectorLength = Math.max(...codewords) > 100 ? 1 : length;
    const vectors = Math.ceil(rows / vectorLength) * columns;
    segments.push({
      begin,
      end: begin + columns,
      vectorLength,
      stages: codewords.map((count) => ({
        codewords: count,
        indices: Uint16Array.from({ length: vectors }, () => next() * count),
        centroids: reals(count * vectorLength),
      })),
    });
    begin += columns;
  }
  const columns = begin;
  const order = Uint16Array.from({ length: columns }, (_, index) => index);
  for (let i = columns - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return {
    kind: "codebook",
    storage,
    rows,
    columns,
    hasOutliers: shape.hasOutliers,
    segments,
    ...(shape.order ? { columnOrder: order } : {}),
    ...(shape.columnScale ? { columnScale: reals(columns) } : {}),
    ...(shape.columnBias ? { columnBias: reals(columns) } : {}),
    ...(shape.rowScale ? { rowScale: reals(rows) } : {}),
    ...(shape.bias ? { bias: reals(rows) } : {}),
  };
};

const options = {
  rows: size,
  storage: storageOf,
  order: fc.boolean(),
  columnScale: fc.boolean(),
  columnBias: fc.boolean(),
  rowScale: fc.boolean(),
  bias: fc.boolean(),
};

export const codebookRecords: fc.Arbitrary<CodebookRecord> = fc
  .record({
    ...options,
    hasOutliers: fc.boolean(),
    segments: fc.array(segment, { minLength: 1, maxLength: 4 }),
    seed: fc.integer(),
  })
  .map(({ seed, ...shape }) => build(shape, seed));

export const records: fc.Arbitrary<QuantizedRecord> = fc.oneof(affineRecords, codebookRecords);

const power = fc.integer({ min: 1, max: 7 });

/** Records that the published VPTQ layout holds: equal groups, at most one residual, powers of two. */
export const publishedRecords: fc.Arbitrary<CodebookRecord> = fc
  .record({
    ...options,
    rowScale: fc.constant(false),
    norm: fc.boolean(),
    outliers: fc.option(segment),
    groups: fc.integer({ min: 1, max: 3 }),
    columns: fc.integer({ min: 1, max: 12 }),
    vectorLength: fc.integer({ min: 1, max: 7 }),
    main: power,
    residual: fc.option(power),
    seed: fc.integer(),
  })
  .map(({ seed, norm, outliers, groups, columns, vectorLength, main, residual, ...rest }) => {
    const codewords = residual === null ? [2 ** main] : [2 ** main, 2 ** Math.min(main, residual)];
    const segments = Array.from({ length: groups }, () => ({ columns, vectorLength, codewords }));
    if (outliers) {
      const words = Math.min(40, outliers.codewords[0]);
      segments.unshift({ columns: outliers.columns, vectorLength: outliers.vectorLength + 1, codewords: [words] });
    }
    const shape = { ...rest, columnScale: norm, columnBias: norm, hasOutliers: outliers !== null, segments };
    return build(shape, seed);
  });
