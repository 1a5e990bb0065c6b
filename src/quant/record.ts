// What a quantized linear is: plain data on the host, independent of any file layout.
// Real numbers are f32 arrays whose every value is exactly representable in the record's `storage` type, so that writing loses nothing.

export type RecordStorage = "f16" | "bf16";

/** Affine codes: w[o, i] = (codes[o, i] - zero[o, g]) * scale[o, g] with g = groupOfColumn[i], or floor(i / group). */
export interface AffineRecord {
  kind: "affine";
  storage: RecordStorage;
  /** O, output rows. */
  rows: number;
  /** I, input columns. */
  columns: number;
  bits: number;
  symmetric: boolean;
  /** Columns in a group (the last may be shorter); equals `columns` for one group a row. */
  group: number;
  /** [I], below G: the group of each column where groups are no runs of columns (GPTQ's act-order in other programs). */
  groupOfColumn?: Int32Array;
  /** [O, I], original column order. */
  codes: Uint8Array;
  /** [O, G], G = ceil(I / group). */
  scale: Float32Array;
  /** [O, G], whole numbers. */
  zero: Uint8Array;
  bias?: Float32Array;
}

/** One additive codebook over a run of columns. */
export interface CodebookStage {
  /** [vectors, columns of the segment] row-major, vectors = ceil(O / vectorLength): the chosen codeword. */
  indices: Uint16Array;
  /** [codewords, vectorLength] row-major. */
  centroids: Float32Array;
  codewords: number;
}

/** A run of columns, in stored order, with its own codebooks. */
export interface CodebookSegmentRecord {
  /** First stored column and the one after the last. */
  begin: number;
  end: number;
  vectorLength: number;
  /** Main codebook, then residual ones: a vector is the sum of one codeword of each. */
  stages: CodebookStage[];
}

/**
 * Vector-quantized weights (VPTQ): v consecutive output rows in one column are the sum of one codeword a stage; then
 * w[o, c] = vector value * columnScale[c] * rowScale[o] + columnBias[c], c = columnOrder[stored column].
 */
export interface CodebookRecord {
  kind: "codebook";
  storage: RecordStorage;
  rows: number;
  columns: number;
  /** True when segments[0] holds outlier columns. */
  hasOutliers: boolean;
  segments: CodebookSegmentRecord[];
  /** Original column of each stored column; absent when they are the same (the order was absorbed). */
  columnOrder?: Uint16Array | Uint32Array;
  /** [I], original column order. */
  columnScale?: Float32Array;
  columnBias?: Float32Array;
  /** [O]. */
  rowScale?: Float32Array;
  bias?: Float32Array;
}

export type QuantizedRecord = AffineRecord | CodebookRecord;
