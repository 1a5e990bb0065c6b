import { unsupportedError } from "../errors.js";
import { bytesOf } from "../files/dtypes.js";
import { BitReader, BitWriter, packedWords } from "../files/packing.js";
import { type CodebookShape, indexBits, type RecordShape, recordShape } from "../quant/bits.js";
import type { CodebookRecord, CodebookSegmentRecord, QuantizedRecord } from "../quant/record.js";
import {
  biasTensor,
  expectTensor,
  FLOAT_TYPES,
  FloatReader,
  floatTensor,
  INDEX_TYPES,
  indexStreams,
  readIndices,
  readOrder,
  readWords,
  wordTensor,
} from "./fields.js";
import { ELSEWHERE, type LayerTensor, type LayerTensors, type Layout, type Refusal } from "./layout.js";
import type { VptqSetting } from "./vptq-config.js";

// The layout of the published VPTQ checkpoints (microsoft/VPTQ, arXiv 2409.17066; loaded by the vptq package and transformers):
// one stream of main and residual index a vector row, padded to 32 bits; outlier indices as 16-bit numbers; codebooks per group.

export const vptqLayout: Layout<VptqSetting> = { name: "vptq", accepts, write, shape, read };

function accepts(shape: RecordShape): true | Refusal {
  const reason = problemOf(shape);
  return reason === undefined ? true : { reason, remedy: ELSEWHERE };
}

function problemOf(shape: RecordShape): string | undefined {
  if (shape.kind !== "codebook") return "it holds codebooks only, not affine codes";
  if (shape.rowScale) return "it has no scales of rows";
  if (shape.columnOrder && shape.columns > 65536) return "its column order is 16 bits wide";
  if (shape.hasOutliers) {
    const { codewords, vectorLength } = shape.segments[0];
    if (codewords.length !== 1) return "outliers have one codebook";
    if (vectorLength < 2) return "outlier vectors have two elements or more";
  }
  const groups = shape.segments.slice(shape.hasOutliers ? 1 : 0);
  if (groups.length === 0) return "there must be a group of columns beside the outliers";
  const [first] = groups;
  if (first.codewords.length < 1 || first.codewords.length > 2) return "it holds one residual codebook at most";
  const alike = groups.every(
    (group) =>
      group.vectorLength === first.vectorLength &&
      group.columns === first.columns &&
      group.codewords.join() === first.codewords.join(),
  );
  if (!alike) return "its column groups are all alike";
  const [main, residual] = first.codewords;
  for (const codewords of [main, residual ?? 2]) {
    if (codewords < 2 || 2 ** indexBits(codewords) !== codewords) return "codebook sizes are powers of two";
  }
  // its decoder masks the residual index with the width of the main one
  if (residual > main) return "a residual codebook may not be larger than the main one";
  return undefined;
}

/** Segments of the column groups, without the outliers. */
const groupsOf = (record: CodebookRecord): CodebookSegmentRecord[] => record.segments.slice(record.hasOutliers ? 1 : 0);

function write(record: QuantizedRecord): { tensors: LayerTensor[]; setting: { [key: string]: unknown } } {
  const reason = problemOf(recordShape(record));
  if (reason !== undefined || record.kind !== "codebook") {
    throw unsupportedError(`the published VPTQ layout cannot hold this linear: ${reason}`, "use the bitwright layout");
  }
  const { rows, columns, storage } = record;
  const groups = groupsOf(record);
  const { vectorLength, begin, end, stages } = groups[0];
  const outliers = record.hasOutliers ? record.segments[0] : undefined;
  const norm = record.columnScale !== undefined || record.columnBias !== undefined;
  const tensors: LayerTensor[] = [indexTensor(groups, Math.ceil(rows / vectorLength))];
  const addFloats = (name: string, values: Float32Array, shape: number[]) =>
    tensors.push(floatTensor(name, values, shape, storage));
  const names = ["centroids.weight", "res_centroids.weight"];
  for (const [stage, { codewords }] of stages.entries()) {
    const all = new Float32Array(groups.length * codewords * vectorLength);
    for (const [g, group] of groups.entries()) all.set(group.stages[stage].centroids, g * codewords * vectorLength);
    addFloats(names[stage], all, [groups.length, codewords * vectorLength]);
  }
  if (outliers) {
    const [stage] = outliers.stages;
    const vectorRows = Math.ceil(rows / outliers.vectorLength);
    const shape = [1, vectorRows, outliers.end - outliers.begin];
    tensors.push({ name: "outlier_indices", dtype: "i16", shape, bytes: () => bytesOf(stage.indices) });
    addFloats("outlier_centroids.weight", stage.centroids, [1, stage.codewords * outliers.vectorLength]);
  }
  const { columnOrder } = record;
  if (columnOrder) {
    const bytes = () => bytesOf(Uint16Array.from(columnOrder));
    tensors.push({ name: "perm", dtype: "i16", shape: [columns], bytes });
  }
  if (norm) {
    addFloats("weight_scale", record.columnScale ?? new Float32Array(columns).fill(1), [columns]);
    addFloats("weight_bias", record.columnBias ?? new Float32Array(columns), [columns]);
  }
  if (record.bias) tensors.push(biasTensor(record.bias, storage));
  return {
    tensors,
    setting: {
      in_features: columns,
      out_features: rows,
      bias: record.bias !== undefined,
      vector_lens: [outliers ? outliers.vectorLength : -1, vectorLength],
      num_centroids: [outliers ? outliers.stages[0].codewords : -1, stages[0].codewords],
      num_res_centroids: [-1, stages[1]?.codewords ?? -1],
      group_num: groups.length,
      group_size: end - begin,
      outlier_size: outliers ? outliers.end - outliers.begin : 0,
      enable_norm: norm,
      enable_perm: record.columnOrder !== undefined,
      is_indice_packed: true,
      indices_as_float: false,
    },
  };
}

/** Each row of vectors begins at a word. */
function indexTensor(groups: CodebookSegmentRecord[], vectorRows: number): LayerTensor {
  const [{ begin, end, stages }] = groups;
  const width = end - begin;
  const bits = stages.reduce((sum, { codewords }) => sum + indexBits(codewords), 0);
  const rowWords = packedWords(width, bits);
  return wordTensor("indices", [groups.length, vectorRows, rowWords], () => {
    const words = new Uint32Array(groups.length * vectorRows * rowWords);
    const writer = new BitWriter(words);
    for (const group of groups) {
      const streams = indexStreams(group.stages);
      for (let r = 0; r < vectorRows; r++) {
        writer.writeInTurn(streams, r * width, width);
        writer.align();
      }
    }
    return words;
  });
}

function shape(tensors: LayerTensors, setting: VptqSetting): CodebookShape {
  const { rows, columns, vectorLength, codewords, residual, outliers, groups, groupColumns } = setting;
  const vectorRows = Math.ceil(rows / vectorLength);
  if (setting.packed) {
    const width = indexBits(codewords) + (residual > 0 ? indexBits(residual) : 0);
    expectTensor(tensors, "indices", ["i32", "u32"], [groups, vectorRows, packedWords(groupColumns, width)]);
  } else {
    expectTensor(tensors, "indices", INDEX_TYPES, [groups, vectorRows, groupColumns]);
    if (residual > 0) expectTensor(tensors, "res_indices", INDEX_TYPES, [groups, vectorRows, groupColumns]);
  }
  expectTensor(tensors, "centroids.weight", FLOAT_TYPES, [groups, codewords * vectorLength]);
  if (residual > 0) expectTensor(tensors, "res_centroids.weight", FLOAT_TYPES, [groups, residual * vectorLength]);
  if (outliers) {
    const outlierRows = Math.ceil(rows / outliers.vectorLength);
    expectTensor(tensors, "outlier_indices", INDEX_TYPES, [1, outlierRows, outliers.columns]);
    const elements = outliers.codewords * outliers.vectorLength;
    expectTensor(tensors, "outlier_centroids.weight", FLOAT_TYPES, [1, elements]);
  }
  if (setting.order) expectTensor(tensors, "perm", INDEX_TYPES, [columns]);
  if (setting.norm) {
    expectTensor(tensors, "weight_scale", FLOAT_TYPES, [columns]);
    expectTensor(tensors, "weight_bias", FLOAT_TYPES, [columns]);
  }
  const bias = tensors.info("bias") !== undefined;
  if (bias) expectTensor(tensors, "bias", FLOAT_TYPES, [rows]);
  return {
    kind: "codebook",
    rows,
    columns,
    hasOutliers: outliers !== undefined,
    segments: segmentsOf(setting),
    columnOrder: setting.order,
    columnScale: setting.norm,
    columnBias: setting.norm,
    rowScale: false,
    bias,
  };
}

function segmentsOf(setting: VptqSetting): CodebookShape["segments"] {
  const { outliers, groups, groupColumns, vectorLength, codewords, residual, columns } = setting;
  const outlierColumns = outliers?.columns ?? 0;
  const segments = Array.from({ length: groups }, (_, g) => ({
    columns: Math.max(0, Math.min(groupColumns, columns - outlierColumns - g * groupColumns)),
    vectorLength,
    codewords: residual > 0 ? [codewords, residual] : [codewords],
  }));
  if (!outliers) return segments;
  return [
    { columns: outlierColumns, vectorLength: outliers.vectorLength, codewords: [outliers.codewords] },
    ...segments,
  ];
}

async function read(tensors: LayerTensors, setting: VptqSetting): Promise<CodebookRecord> {
  const { rows, columns, hasOutliers } = shape(tensors, setting);
  const floats = new FloatReader(tensors);
  const segments: CodebookSegmentRecord[] = [];
  const { outliers } = setting;
  if (outliers) {
    const indices = Uint16Array.from(await readIndices(tensors, "outlier_indices", outliers.codewords));
    const centroids = await floats.read("outlier_centroids.weight");
    const { vectorLength, codewords } = outliers;
    segments.push({ begin: 0, end: outliers.columns, vectorLength, stages: [{ indices, centroids, codewords }] });
  }
  segments.push(...(await readGroups(tensors, setting, floats, outliers?.columns ?? 0)));
  const record: CodebookRecord = { kind: "codebook", storage: "f16", rows, columns, hasOutliers, segments };
  if (setting.order) record.columnOrder = await readOrder(tensors, "perm", columns);
  if (setting.norm) {
    record.columnScale = await floats.read("weight_scale");
    record.columnBias = await floats.read("weight_bias");
  }
  record.storage = floats.storage();
  const bias = await floats.readIfThere("bias"); // has its own type
  if (bias) record.bias = bias;
  return record;
}

async function readGroups(
  tensors: LayerTensors,
  setting: VptqSetting,
  floats: FloatReader,
  firstColumn: number,
): Promise<CodebookSegmentRecord[]> {
  const { rows, columns, vectorLength, codewords, residual, groups, groupColumns } = setting;
  const vectorRows = Math.ceil(rows / vectorLength);
  const mainCentroids = await floats.read("centroids.weight");
  const residualCentroids = residual > 0 ? await floats.read("res_centroids.weight") : undefined;
  const next = await indexStream(tensors, setting);
  const segments: CodebookSegmentRecord[] = [];
  for (let g = 0; g < groups; g++) {
    const begin = Math.min(columns, firstColumn + g * groupColumns);
    const end = Math.min(columns, begin + groupColumns);
    const width = end - begin;
    const main = new Uint16Array(vectorRows * width);
    const rest = new Uint16Array(residual > 0 ? vectorRows * width : 0);
    for (let r = 0; r < vectorRows; r++) {
      next.read(main, rest, r * width, width);
      next.endRow(groupColumns - width); // padding of a short last group
    }
    const book = (centroids: Float32Array, size: number) =>
      centroids.slice(g * size * vectorLength, (g + 1) * size * vectorLength);
    const stages = [{ indices: main, centroids: book(mainCentroids, codewords), codewords }];
    if (residualCentroids) {
      stages.push({ indices: rest, centroids: book(residualCentroids, residual), codewords: residual });
    }
    segments.push({ begin, end, vectorLength, stages });
  }
  return segments;
}

/** Main and residual indices of one row of vectors after another, packed or not. */
interface IndexStream {
  /** The next `count`, into `main` and, where there is a residual codebook, `rest` from `begin` on. */
  read(main: Uint16Array, rest: Uint16Array, begin: number, count: number): void;
  /** Passes over `padding` vectors and on to the next row. */
  endRow(padding: number): void;
}

async function indexStream(tensors: LayerTensors, setting: VptqSetting): Promise<IndexStream> {
  const { codewords, residual } = setting;
  if (setting.packed) {
    const reader = new BitReader(await readWords(tensors, "indices"));
    const [width, restWidth] = [indexBits(codewords), residual > 0 ? indexBits(residual) : 0];
    return {
      read(main, rest, begin, count) {
        const streams = [{ values: main, width }];
        if (residual > 0) streams.push({ values: rest, width: restWidth });
        reader.readInTurn(streams, begin, count);
      },
      endRow(padding) {
        reader.skip(padding * (width + restWidth));
        reader.align();
      },
    };
  }
  const main = await readIndices(tensors, "indices", codewords);
  const rest = residual > 0 ? await readIndices(tensors, "res_indices", residual) : undefined;
  let at = 0;
  return {
    read(mains, rests, begin, count) {
      mains.set(main.subarray(at, at + count), begin);
      if (rest) rests.set(rest.subarray(at, at + count), begin);
      at += count;
    },
    endRow(padding) {
      at += padding;
    },
  };
}
