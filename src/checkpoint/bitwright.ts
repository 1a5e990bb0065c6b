import { z } from "zod";
import { formatError } from "../errors.js";
import { bytesOf } from "../files/dtypes.js";
import { BitReader, BitWriter, packBits, packedWords, unpackBits } from "../files/packing.js";
import { indexBits, orderBits, type RecordShape } from "../quant/bits.js";
import type {
  AffineRecord,
  CodebookRecord,
  CodebookSegmentRecord,
  CodebookStage,
  QuantizedRecord,
} from "../quant/record.js";
import {
  biasTensor,
  checkFeatures,
  expectTensor,
  FLOAT_TYPES,
  FloatReader,
  floatTensor,
  indexStreams,
  readIndices,
  readOrder,
  readWords,
  wordTensor,
} from "./fields.js";
import { LAYER_LIMITS, type LayerTensor, type LayerTensors, type Layout } from "./layout.js";

// Our own layout, for every record (docs/FORMAT.md). Whole numbers are dense bit streams padded once, at their end.

const feature = z.number().int().min(1).max(LAYER_LIMITS.features);
const codewords = z.number().int().min(1).max(LAYER_LIMITS.codewords);

const settingSchema = z.discriminatedUnion("kind", [
  z.object({
    kind: z.literal("affine"),
    rows: feature,
    columns: feature,
    bits: z.number().int().min(1).max(8),
    group: feature,
    symmetric: z.boolean(),
  }),
  z.object({
    kind: z.literal("codebook"),
    rows: feature,
    columns: feature,
    outliers: z.boolean(),
    segments: z
      .array(
        z.object({
          columns: z.number().int().min(0).max(LAYER_LIMITS.features),
          vector_length: z.number().int().min(1).max(LAYER_LIMITS.vectorLength),
          codewords: z.array(codewords).min(1).max(16),
        }),
      )
      .min(1)
      .max(65536),
  }),
]);
export type BitwrightSetting = z.infer<typeof settingSchema>;

/** Checks what quantization_config says of a layer. Throws "format". */
export function bitwrightSetting(value: unknown, layer: string, where: string): BitwrightSetting {
  const parsed = settingSchema.safeParse(value);
  if (!parsed.success) {
    const problems = parsed.error.issues.slice(0, 4).map((issue) => `${issue.path.join(".")}: ${issue.message}`);
    throw formatError(`${where}: the setting of layer ${layer} is not valid: ${problems.join("; ")}`);
  }
  const setting = parsed.data;
  checkFeatures(layer, setting.rows, setting.columns);
  if (setting.kind === "codebook") {
    const covered = setting.segments.reduce((sum, segment) => sum + segment.columns, 0);
    if (covered !== setting.columns) {
      throw formatError(`${where}: the segments of layer ${layer} have ${covered} columns of ${setting.columns}`);
    }
  } else if (setting.group > setting.columns) {
    throw formatError(
      `${where}: layer ${layer} has groups of ${setting.group} columns, but ${setting.columns} columns`,
    );
  }
  return setting;
}

export const bitwrightLayout: Layout<BitwrightSetting> = { name: "bitwright", accepts: () => true, write, shape, read };

const symmetricZero = (bits: number): number => 2 ** (bits - 1);

function write(record: QuantizedRecord): { tensors: LayerTensor[]; setting: { [key: string]: unknown } } {
  const written = record.kind === "affine" ? writeAffine(record) : writeCodebook(record);
  if (record.bias) written.tensors.push(biasTensor(record.bias, record.storage));
  return written;
}

const packedTensor = (name: string, values: Uint8Array, bits: number): LayerTensor =>
  wordTensor(name, [packedWords(values.length, bits)], () => packBits(values, bits));

/** Numbers below `limit`, one a column. */
function orderTensor(name: string, order: ArrayLike<number>, limit: number): LayerTensor {
  const narrow = orderBits(limit) === 16;
  const bytes = () => bytesOf(narrow ? Uint16Array.from(order) : Uint32Array.from(order));
  return { name, dtype: narrow ? "u16" : "u32", shape: [order.length], bytes };
}
const orderType = (limit: number): "u16" | "u32" => (orderBits(limit) === 16 ? "u16" : "u32");

function writeAffine(record: AffineRecord): { tensors: LayerTensor[]; setting: BitwrightSetting } {
  const { rows, columns, bits, group, symmetric, storage, codes, scale, zero, groupOfColumn } = record;
  const groups = Math.ceil(columns / group);
  const tensors = [packedTensor("codes", codes, bits), floatTensor("scale", scale, [rows, groups], storage)];
  if (!symmetric) tensors.push(packedTensor("zero", zero, bits));
  else if (zero.some((value) => value !== symmetricZero(bits))) {
    throw formatError(`a symmetric record of ${bits} bits has zeros of ${symmetricZero(bits)} only`);
  }
  if (groupOfColumn) tensors.push(orderTensor("column_group", groupOfColumn, groups));
  return { tensors, setting: { kind: "affine", rows, columns, bits, group, symmetric } };
}

function writeCodebook(record: CodebookRecord): { tensors: LayerTensor[]; setting: BitwrightSetting } {
  const { rows, columns, storage, segments, columnOrder, columnScale, columnBias, rowScale } = record;
  const tensors: LayerTensor[] = [];
  for (const [s, segment] of segments.entries()) {
    tensors.push(indexTensor(`indices.${s}`, segment));
    for (const [t, { centroids, codewords }] of segment.stages.entries()) {
      tensors.push(floatTensor(`codebook.${s}.${t}`, centroids, [codewords, segment.vectorLength], storage));
    }
  }
  if (columnOrder) tensors.push(orderTensor("column_order", columnOrder, columns));
  if (columnScale) tensors.push(floatTensor("column_scale", columnScale, [columns], storage));
  if (columnBias) tensors.push(floatTensor("column_bias", columnBias, [columns], storage));
  if (rowScale) tensors.push(floatTensor("row_scale", rowScale, [rows], storage));
  const setting: BitwrightSetting = {
    kind: "codebook",
    rows,
    columns,
    outliers: record.hasOutliers,
    segments: segments.map(({ begin, end, vectorLength, stages }) => ({
      columns: end - begin,
      vector_length: vectorLength,
      codewords: stages.map((stage) => stage.codewords),
    })),
  };
  return { tensors, setting };
}

/** Per vector the index of each stage, main codebook first. */
function indexTensor(name: string, { stages }: CodebookSegmentRecord): LayerTensor {
  const streams = indexStreams(stages);
  const vectors = stages[0].indices.length;
  const size = packedWords(vectors, sum(streams.map(({ width }) => width)));
  return wordTensor(name, [size], () => {
    const words = new Uint32Array(size);
    new BitWriter(words).writeInTurn(streams, 0, vectors);
    return words;
  });
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

function shape(tensors: LayerTensors, setting: BitwrightSetting): RecordShape {
  const { rows, columns } = setting;
  const has = (name: string, dtypes: Parameters<typeof expectTensor>[2], size: number): boolean => {
    if (!tensors.info(name)) return false;
    expectTensor(tensors, name, dtypes, [size]);
    return true;
  };
  const bias = has("bias", FLOAT_TYPES, rows);
  if (setting.kind === "affine") {
    const { kind, bits, group, symmetric } = setting;
    const groups = Math.ceil(columns / group);
    expectTensor(tensors, "codes", ["i32"], [packedWords(rows * columns, bits)]);
    expectTensor(tensors, "scale", FLOAT_TYPES, [rows, groups]);
    if (!symmetric) expectTensor(tensors, "zero", ["i32"], [packedWords(rows * groups, bits)]);
    const columnGroups = has("column_group", [orderType(groups)], columns);
    return { kind, rows, columns, bits, group, symmetric, columnGroups, bias };
  }
  for (const [s, segment] of setting.segments.entries()) {
    const vectors = Math.ceil(rows / segment.vector_length) * segment.columns;
    const width = sum(segment.codewords.map(indexBits));
    expectTensor(tensors, `indices.${s}`, ["i32"], [packedWords(vectors, width)]);
    for (const [t, codewords] of segment.codewords.entries()) {
      expectTensor(tensors, `codebook.${s}.${t}`, FLOAT_TYPES, [codewords, segment.vector_length]);
    }
  }
  return {
    kind: "codebook",
    rows,
    columns,
    hasOutliers: setting.outliers,
    segments: setting.segments.map((segment) => ({
      columns: segment.columns,
      vectorLength: segment.vector_length,
      codewords: segment.codewords,
    })),
    columnOrder: has("column_order", [orderType(columns)], columns),
    columnScale: has("column_scale", FLOAT_TYPES, columns),
    columnBias: has("column_bias", FLOAT_TYPES, columns),
    rowScale: has("row_scale", FLOAT_TYPES, rows),
    bias,
  };
}

async function read(tensors: LayerTensors, setting: BitwrightSetting): Promise<QuantizedRecord> {
  shape(tensors, setting);
  const floats = new FloatReader(tensors);
  const record =
    setting.kind === "affine"
      ? await readAffine(tensors, setting, floats)
      : await readCodebook(tensors, setting, floats);
  record.storage = floats.storage();
  const bias = await floats.readIfThere("bias"); // has its own type
  if (bias) record.bias = bias;
  return record;
}

async function readAffine(
  tensors: LayerTensors,
  setting: BitwrightSetting & { kind: "affine" },
  floats: FloatReader,
): Promise<AffineRecord> {
  const { kind, rows, columns, bits, group, symmetric } = setting;
  const perRow = Math.ceil(columns / group);
  const groups = rows * perRow;
  const stream = async (name: string, count: number) =>
    Uint8Array.from(unpackBits(await readWords(tensors, name), bits, count));
  const record: AffineRecord = {
    kind,
    storage: "f16",
    rows,
    columns,
    bits,
    symmetric,
    group,
    codes: await stream("codes", rows * columns),
    scale: await floats.read("scale"),
    zero: symmetric ? new Uint8Array(groups).fill(symmetricZero(bits)) : await stream("zero", groups),
  };
  if (tensors.info("column_group"))
    record.groupOfColumn = Int32Array.from(await readIndices(tensors, "column_group", perRow));
  return record;
}

async function readCodebook(
  tensors: LayerTensors,
  setting: BitwrightSetting & { kind: "codebook" },
  floats: FloatReader,
): Promise<CodebookRecord> {
  const { rows, columns, outliers: hasOutliers } = setting;
  const segments: CodebookSegmentRecord[] = [];
  let begin = 0;
  for (const [s, segment] of setting.segments.entries()) {
    const end = begin + segment.columns;
    const vectorLength = segment.vector_length;
    const stages = await readStages(tensors, s, segment, Math.ceil(rows / vectorLength) * segment.columns, floats);
    segments.push({ begin, end, vectorLength, stages });
    begin = end;
  }
  const record: CodebookRecord = { kind: "codebook", storage: "f16", rows, columns, hasOutliers, segments };
  if (tensors.info("column_order")) record.columnOrder = await readOrder(tensors, "column_order", columns);
  const columnScale = await floats.readIfThere("column_scale");
  const columnBias = await floats.readIfThere("column_bias");
  const rowScale = await floats.readIfThere("row_scale");
  if (columnScale) record.columnScale = columnScale;
  if (columnBias) record.columnBias = columnBias;
  if (rowScale) record.rowScale = rowScale;
  return record;
}

async function readStages(
  tensors: LayerTensors,
  s: number,
  segment: { codewords: number[] },
  vectors: number,
  floats: FloatReader,
): Promise<CodebookStage[]> {
  const stages: CodebookStage[] = [];
  for (const [t, codewords] of segment.codewords.entries()) {
    const centroids = await floats.read(`codebook.${s}.${t}`);
    stages.push({ indices: new Uint16Array(vectors), centroids, codewords });
  }
  new BitReader(await readWords(tensors, `indices.${s}`)).readInTurn(indexStreams(stages), 0, vectors);
  for (const { indices, codewords } of stages) {
    for (let i = 0; i < vectors; i++) {
      if (indices[i] < codewords) continue;
      throw formatError(
        `tensor ${tensors.layer}.indices.${s}: vector ${i} has codeword ${indices[i]} of a codebook of ${codewords}`,
      );
    }
  }
  return stages;
}
