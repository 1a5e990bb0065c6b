import { formatError, unsupportedError } from "../errors.js";
import { bytesOf } from "../files/dtypes.js";
import { BitReader, BitWriter, packedWords } from "../files/packing.js";
import { type RecordShape, recordShape } from "../quant/bits.js";
import type { AffineRecord, QuantizedRecord } from "../quant/record.js";
import {
  biasTensor,
  expectTensor,
  FLOAT_TYPES,
  FloatReader,
  floatTensor,
  readGroups,
  readIndices,
  readWords,
  wordTensor,
} from "./fields.js";
import { type LayerTensor, type LayerTensors, type Layout, NO_CODEBOOKS, type Refusal } from "./layout.js";

// The layouts of compressed-tensors (llm-compressor, vLLM): codes are signed, q - 2^(bits-1). "pack-quantized" keeps each row as one
// bit stream of unsigned codes, and zeros as one a column of groups; "int-quantized" keeps a byte a code and zero.

/** One layer, checked. */
export interface CompressedSetting {
  rows: number;
  columns: number;
  bits: number;
  group: number;
  symmetric: boolean;
  /** Groups are no runs of columns ("actorder": "group", gone since 0.20). */
  order: boolean;
}

export const packQuantizedLayout: Layout<CompressedSetting> = {
  name: "compressed-tensors",
  accepts,
  write: (record) => write(record, true),
  shape: packedShape,
  read: readPacked,
};

export const intQuantizedLayout: Layout<CompressedSetting> = {
  name: "int-quantized",
  accepts,
  write: (record) => write(record, false),
  shape: intShape,
  read: readInt,
};

function accepts(shape: RecordShape): true | Refusal {
  if (shape.kind !== "affine") return NO_CODEBOOKS;
  const { columns, group, columnGroups } = shape;
  if (columnGroups)
    return {
      reason: "its groups are runs of columns, and an act-order scattered these",
      remedy: "write gptq_v2 or bitwright",
    };
  if (columns % group === 0) return true;
  const fitting = [16, 32, 64, 128, 256, 512].filter((size) => columns % size === 0).join(", ");
  return {
    reason: `groups of ${group} do not divide ${columns} columns`,
    remedy: `fits: --group ${fitting} or channel`,
  };
}

function write(
  record: QuantizedRecord,
  packed: boolean,
): { tensors: LayerTensor[]; setting: { [key: string]: unknown } } {
  const accepted = accepts(recordShape(record));
  const refusal = accepted === true ? NO_CODEBOOKS : accepted;
  if (accepted !== true || record.kind !== "affine")
    throw unsupportedError(`compressed-tensors cannot hold this linear: ${refusal.reason}`, refusal.remedy);
  const { rows, columns, bits, group, symmetric, codes, scale, zero, storage } = record;
  const groups = columns / group;
  const tensors = [
    packed
      ? wordTensor("weight_packed", [rows, packedWords(columns, bits)], () => packRows(codes, rows, columns, bits))
      : signedBytes("weight", codes, [rows, columns], bits),
    floatTensor("weight_scale", scale, [rows, groups], storage),
  ];
  if (packed) {
    const size = BigInt64Array.of(BigInt(rows), BigInt(columns));
    tensors.push({ name: "weight_shape", dtype: "i64", shape: [2], bytes: () => bytesOf(size) });
  }
  if (!symmetric)
    tensors.push(
      packed
        ? wordTensor("weight_zero_point", [packedWords(rows, bits), groups], () => packZeros(zero, rows, groups, bits))
        : signedBytes("weight_zero_point", zero, [rows, groups], bits),
    );
  if (record.bias) tensors.push(biasTensor(record.bias, storage));
  return { tensors, setting: { rows, columns, bits, group, symmetric, packed } };
}

/** [O, words]: each row a stream of its own. */
function packRows(codes: Uint8Array, rows: number, columns: number, bits: number): Uint32Array {
  const width = packedWords(columns, bits);
  const words = new Uint32Array(rows * width);
  for (let o = 0; o < rows; o++) {
    const writer = new BitWriter(words.subarray(o * width, (o + 1) * width));
    for (let i = o * columns; i < (o + 1) * columns; i++) writer.write(codes[i], bits);
  }
  return words;
}

/** [words, G]: down each column the stream of one group. */
function packZeros(zero: Uint8Array, rows: number, groups: number, bits: number): Uint32Array {
  const height = packedWords(rows, bits);
  const words = new Uint32Array(height * groups);
  const stream = new Uint32Array(height);
  for (let g = 0; g < groups; g++) {
    const writer = new BitWriter(stream.fill(0));
    for (let o = 0; o < rows; o++) writer.write(zero[o * groups + g], bits);
    for (let w = 0; w < height; w++) words[w * groups + g] = stream[w];
  }
  return words;
}

function signedBytes(name: string, codes: Uint8Array, shape: number[], bits: number): LayerTensor {
  const bytes = () => bytesOf(Int8Array.from(codes, (code) => code - 2 ** (bits - 1)));
  return { name, dtype: "i8", shape, bytes };
}

/** What both have beside their codes. */
function commonShape(tensors: LayerTensors, setting: CompressedSetting): RecordShape {
  const { rows, columns, bits, group, symmetric, order } = setting;
  const groups = Math.ceil(columns / group);
  expectTensor(tensors, "weight_scale", FLOAT_TYPES, [rows, groups]);
  if (!symmetric) {
    // one byte a zero in int-quantized, and in what older writers packed
    const packed = tensors.info("weight_zero_point")?.dtype === "i32";
    if (packed) expectTensor(tensors, "weight_zero_point", ["i32"], [packedWords(rows, bits), groups]);
    else expectTensor(tensors, "weight_zero_point", ["i8"], [rows, groups]);
  }
  if (order) expectTensor(tensors, "weight_g_idx", ["i32", "i64"], [columns]);
  const bias = tensors.info("bias") !== undefined;
  if (bias) expectTensor(tensors, "bias", FLOAT_TYPES, [rows]);
  return { kind: "affine", rows, columns, bits, group, symmetric, columnGroups: order, bias };
}

function packedShape(tensors: LayerTensors, setting: CompressedSetting): RecordShape {
  const { rows, columns, bits } = setting;
  const found = tensors.info("weight_packed");
  if (32 % bits !== 0 && found?.shape[1] !== packedWords(columns, bits)) {
    if (found?.shape[1] === Math.ceil(columns / Math.floor(32 / bits))) {
      throw unsupportedError(
        `tensor ${tensors.layer}.weight_packed holds ${Math.floor(32 / bits)} codes of ${bits} bits in a word, as compressed-tensors packed before 0.18`,
        "write the checkpoint again with compressed-tensors 0.18 or later",
      );
    }
  }
  expectTensor(tensors, "weight_packed", ["i32"], [rows, packedWords(columns, bits)]);
  if (tensors.info("weight_shape")) expectTensor(tensors, "weight_shape", ["i64", "i32"], [2]);
  return commonShape(tensors, setting);
}

function intShape(tensors: LayerTensors, setting: CompressedSetting): RecordShape {
  expectTensor(tensors, "weight", ["i8"], [setting.rows, setting.columns]);
  return commonShape(tensors, setting);
}

async function readPacked(tensors: LayerTensors, setting: CompressedSetting): Promise<AffineRecord> {
  packedShape(tensors, setting);
  const { rows, columns, bits } = setting;
  if (tensors.info("weight_shape")) {
    const [o, i] = await readIndices(tensors, "weight_shape", 2 ** 31);
    if (o !== rows || i !== columns)
      throw formatError(`tensor ${tensors.layer}.weight_shape says ${o} x ${i}, config.json ${rows} x ${columns}`);
  }
  const words = await readWords(tensors, "weight_packed");
  const width = packedWords(columns, bits);
  const codes = new Uint8Array(rows * columns);
  for (let o = 0; o < rows; o++) {
    const reader = new BitReader(words.subarray(o * width, (o + 1) * width));
    for (let i = o * columns; i < (o + 1) * columns; i++) codes[i] = reader.read(bits);
  }
  return finish(tensors, setting, codes);
}

async function readInt(tensors: LayerTensors, setting: CompressedSetting): Promise<AffineRecord> {
  intShape(tensors, setting);
  return finish(tensors, setting, await readSigned(tensors, "weight", setting.bits));
}

/** Signed bytes as unsigned codes. Throws "format" for one that the bits do not hold. */
async function readSigned(tensors: LayerTensors, name: string, bits: number): Promise<Uint8Array> {
  const bytes = await tensors.read(name);
  const signed = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const half = 2 ** (bits - 1);
  const bad = signed.findIndex((value) => value < -half || value >= half);
  if (bad >= 0)
    throw formatError(`tensor ${tensors.layer}.${name} holds ${signed[bad]} at ${bad}, which is not of ${bits} bits`);
  return Uint8Array.from(signed, (value) => value + half);
}

async function finish(tensors: LayerTensors, setting: CompressedSetting, codes: Uint8Array): Promise<AffineRecord> {
  const { rows, columns, bits, group, symmetric, order } = setting;
  const groups = Math.ceil(columns / group);
  const floats = new FloatReader(tensors);
  const scale = await floats.read("weight_scale");
  const record: AffineRecord = {
    kind: "affine",
    storage: floats.storage(),
    rows,
    columns,
    bits,
    symmetric,
    group,
    codes,
    scale,
    zero: symmetric ? new Uint8Array(rows * groups).fill(2 ** (bits - 1)) : await readZeros(tensors, setting, groups),
  };
  const groupOfColumn = order && (await readGroups(tensors, "weight_g_idx", groups, group));
  if (groupOfColumn) record.groupOfColumn = groupOfColumn;
  const bias = await floats.readIfThere("bias"); // has its own type
  if (bias) record.bias = bias;
  return record;
}

async function readZeros(
  tensors: LayerTensors,
  { rows, bits }: CompressedSetting,
  groups: number,
): Promise<Uint8Array> {
  if (tensors.info("weight_zero_point")?.dtype === "i8") return readSigned(tensors, "weight_zero_point", bits);
  const words = await readWords(tensors, "weight_zero_point");
  const height = packedWords(rows, bits);
  const zero = new Uint8Array(rows * groups);
  const stream = new Uint32Array(height);
  for (let g = 0; g < groups; g++) {
    for (let w = 0; w < height; w++) stream[w] = words[w * groups + g];
    const reader = new BitReader(stream);
    for (let o = 0; o < rows; o++) zero[o * groups + g] = reader.read(bits);
  }
  return zero;
}
