import type { AffineRecord, CodebookRecord, QuantizedRecord } from "./record.js";

// How many bits a quantized linear takes on disk. Everything that is stored counts: indices with their padding, codebooks,
// scales, zeros, permutations, biases. Sizes come from shapes alone, so a plan and its outcome are counted by the same code.

/** Formats of a quantized checkpoint, each with its file in checkpoint/. */
export const CHECKPOINT_FORMATS = ["vptq", "gptq", "gptq_v2", "compressed-tensors", "bitwright"] as const;
export type CheckpointFormat = (typeof CHECKPOINT_FORMATS)[number];

/** How one record is stored; they pad and pack differently. Compressed-tensors has two ways: packed, and one byte a code. */
export type RecordLayout = CheckpointFormat | "int-quantized";

export interface AffineShape {
  kind: "affine";
  rows: number;
  columns: number;
  bits: number;
  /** Columns in a group; the last may be shorter. */
  group: number;
  /** Symmetric zeros are not stored, but for GPTQ. */
  symmetric: boolean;
  /** Groups are no runs of columns: the group of each column is stored. */
  columnGroups?: boolean;
  bias: boolean;
}

export interface CodebookShape {
  kind: "codebook";
  rows: number;
  columns: number;
  hasOutliers: boolean;
  /** In stored order; `codewords` has one entry a stage. */
  segments: { columns: number; vectorLength: number; codewords: number[] }[];
  columnOrder: boolean;
  columnScale: boolean;
  columnBias: boolean;
  rowScale: boolean;
  bias: boolean;
}

export type RecordShape = AffineShape | CodebookShape;

export interface RecordBits {
  /** Codes or codeword indices, padding included. */
  indices: number;
  codebooks: number;
  /** Scales, zeros and offsets of groups, columns and rows. */
  scales: number;
  /** The order of the columns. */
  order: number;
  /** The linear's own bias. */
  bias: number;
  total: number;
}

/** Bits of an index into a codebook, at least one. */
export const indexBits = (codewords: number): number => Math.max(1, Math.ceil(Math.log2(codewords)));

/** Bits of one of `count` columns or groups in a list of them. */
export const orderBits = (count: number): number => (count <= 65536 ? 16 : 32);

const padTo32 = (bits: number): number => Math.ceil(bits / 32) * 32;

/** Bits of a record with this shape, in this layout. */
export function shapeBits(shape: RecordShape, layout: RecordLayout = "bitwright"): RecordBits {
  const parts = shape.kind === "affine" ? affineParts(shape, layout) : codebookParts(shape, layout);
  const bias = shape.bias ? 16 * shape.rows : 0;
  return { ...parts, bias, total: parts.indices + parts.codebooks + parts.scales + parts.order + bias };
}

type Parts = Pick<RecordBits, "indices" | "codebooks" | "scales" | "order">;

function affineParts(shape: AffineShape, layout: RecordLayout): Parts {
  const { rows, columns, bits, group, symmetric, columnGroups = false } = shape;
  const perRow = Math.ceil(columns / group);
  const scales = 16 * rows * perRow;
  switch (layout) {
    case "gptq":
    case "gptq_v2": // always zeros and the group of each column
      return {
        indices: rows * padTo32(columns * bits),
        codebooks: 0,
        scales: scales + perRow * padTo32(rows * bits),
        order: 32 * columns,
      };
    case "compressed-tensors":
      return {
        indices: rows * padTo32(columns * bits) + 128, // weight_shape
        codebooks: 0,
        scales: scales + (symmetric ? 0 : perRow * padTo32(rows * bits)),
        order: columnGroups ? 32 * columns : 0,
      };
    case "int-quantized":
      return {
        indices: 8 * rows * columns,
        codebooks: 0,
        scales: scales + (symmetric ? 0 : 8 * rows * perRow),
        order: columnGroups ? 32 * columns : 0,
      };
    default:
      return {
        indices: padTo32(rows * columns * bits),
        codebooks: 0,
        scales: scales + (symmetric ? 0 : padTo32(rows * perRow * bits)),
        order: columnGroups ? orderBits(perRow) * columns : 0,
      };
  }
}

function codebookParts(shape: CodebookShape, layout: RecordLayout): Parts {
  const { rows, columns } = shape;
  let indices = 0;
  let codebooks = 0;
  for (const [index, segment] of shape.segments.entries()) {
    const vectorRows = Math.ceil(rows / segment.vectorLength);
    const width = segment.codewords.reduce((sum, codewords) => sum + indexBits(codewords), 0);
    if (layout === "bitwright") indices += padTo32(vectorRows * segment.columns * width);
    // the published layout keeps outlier indices as 16-bit numbers, and pads each row of the others
    else if (shape.hasOutliers && index === 0) indices += vectorRows * segment.columns * 16;
    else indices += vectorRows * padTo32(segment.columns * width);
    for (const codewords of segment.codewords) codebooks += 16 * codewords * segment.vectorLength;
  }
  let perColumn = (shape.columnScale ? 16 : 0) + (shape.columnBias ? 16 : 0);
  if (layout === "vptq" && perColumn > 0) perColumn = 32; // the published layout has both or none
  return {
    indices,
    codebooks,
    scales: perColumn * columns + (shape.rowScale ? 16 * rows : 0),
    order: shape.columnOrder ? orderBits(columns) * columns : 0,
  };
}

/** The shape of a record. */
export function recordShape(record: QuantizedRecord): RecordShape {
  return record.kind === "affine" ? affineShape(record) : codebookShape(record);
}

function affineShape({ kind, rows, columns, bits, group, symmetric, groupOfColumn, bias }: AffineRecord): AffineShape {
  const columnGroups = groupOfColumn !== undefined;
  return { kind, rows, columns, bits, group, symmetric, columnGroups, bias: bias !== undefined };
}

function codebookShape(record: CodebookRecord): CodebookShape {
  return {
    kind: "codebook",
    rows: record.rows,
    columns: record.columns,
    hasOutliers: record.hasOutliers,
    segments: record.segments.map(({ begin, end, vectorLength, stages }) => ({
      columns: end - begin,
      vectorLength,
      codewords: stages.map(({ codewords }) => codewords),
    })),
    columnOrder: record.columnOrder !== undefined,
    columnScale: record.columnScale !== undefined,
    columnBias: record.columnBias !== undefined,
    rowScale: record.rowScale !== undefined,
    bias: record.bias !== undefined,
  };
}

/** Every bit of a record as it lies on disk. */
export const recordBits = (record: QuantizedRecord, layout: RecordLayout = "bitwright"): RecordBits =>
  shapeBits(recordShape(record), layout);

/** All bits of a record per weight of the linear. */
export const bitsPerWeight = (record: QuantizedRecord, layout: RecordLayout = "bitwright"): number =>
  recordBits(record, layout).total / (record.rows * record.columns);
