import type { AffineRecord, CodebookRecord, CodebookSegmentRecord, QuantizedRecord } from "./record.js";

/**
 * The weights [O, I] that a record stands for, original column order. Arithmetic is f32, in the order of the published VPTQ
 * decoder: stages are added in turn, then times the scale, then plus the bias, each rounded (JavaScript computes one operation
 * in f64 and rounds once when it stores, which equals the f32 operation).
 */
export function dequantize(record: QuantizedRecord): Float32Array {
  return record.kind === "affine" ? dequantizeAffine(record) : dequantizeCodebook(record);
}

function dequantizeAffine(record: AffineRecord): Float32Array {
  const { rows, columns, group, groupOfColumn, codes, scale, zero } = record;
  const groups = Math.ceil(columns / group);
  const weights = new Float32Array(rows * columns);
  if (groupOfColumn) {
    for (let o = 0, at = 0; o < rows; o++) {
      for (let i = 0; i < columns; i++, at++) {
        const g = o * groups + groupOfColumn[i];
        weights[at] = (codes[at] - zero[g]) * scale[g];
      }
    }
    return weights;
  }
  for (let o = 0; o < rows; o++) {
    for (let g = 0; g < groups; g++) {
      const s = scale[o * groups + g];
      const z = zero[o * groups + g];
      const end = o * columns + Math.min(columns, (g + 1) * group);
      for (let i = o * columns + g * group; i < end; i++) weights[i] = (codes[i] - z) * s;
    }
  }
  return weights;
}

function dequantizeCodebook(record: CodebookRecord): Float32Array {
  const { rows, columns, columnScale, columnBias, rowScale } = record;
  const weights = new Float32Array(rows * columns);
  for (const segment of record.segments) addSegment(weights, record, segment);
  if (!columnScale && !columnBias && !rowScale) return weights;
  for (let o = 0, at = 0; o < rows; o++) {
    for (let c = 0; c < columns; c++, at++) {
      if (columnScale) weights[at] *= columnScale[c];
      if (rowScale) weights[at] *= rowScale[o];
      if (columnBias) weights[at] += columnBias[c];
    }
  }
  return weights;
}

function addSegment(weights: Float32Array, record: CodebookRecord, segment: CodebookSegmentRecord): void {
  const { rows, columns, columnOrder } = record;
  const { begin, end, vectorLength, stages } = segment;
  const width = end - begin;
  const vectorRows = Math.ceil(rows / vectorLength);
  for (const [stage, { indices, centroids }] of stages.entries()) {
    for (let r = 0; r < vectorRows; r++) {
      const height = Math.min(vectorLength, rows - r * vectorLength); // the last vector may stand out
      for (let j = 0; j < width; j++) {
        const column = columnOrder ? columnOrder[begin + j] : begin + j;
        const from = indices[r * width + j] * vectorLength;
        let at = r * vectorLength * columns + column;
        // assigned, not added to zero: 0 + -0 would lose the sign
        if (stage === 0) for (let k = 0; k < height; k++, at += columns) weights[at] = centroids[from + k];
        else for (let k = 0; k < height; k++, at += columns) weights[at] += centroids[from + k];
      }
    }
  }
}

/**
 * The same weights without a column order: the indices are stored in the original order. Possible with one segment; other
 * records come back as they are, for the segment of a column lies in its position.
 */
export function absorbOrder(record: CodebookRecord): CodebookRecord {
  const { columnOrder, segments, columns } = record;
  if (!columnOrder || segments.length !== 1) return record;
  const [segment] = segments;
  const stages = segment.stages.map((stage) => {
    const indices = new Uint16Array(stage.indices.length);
    for (let row = 0; row < indices.length; row += columns) {
      for (let j = 0; j < columns; j++) indices[row + columnOrder[j]] = stage.indices[row + j];
    }
    return { ...stage, indices };
  });
  const { columnOrder: _, ...rest } = record;
  return { ...rest, segments: [{ ...segment, stages }] };
}
