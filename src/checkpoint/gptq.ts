import { unsupportedError } from "../errors.js";
import { bytesOf } from "../files/dtypes.js";
import { BitReader, BitWriter, packBits, packedWords } from "../files/packing.js";
import { type RecordShape, recordShape } from "../quant/bits.js";
import type { AffineRecord, QuantizedRecord } from "../quant/record.js";
import {
  biasTensor,
  expectTensor,
  FLOAT_TYPES,
  FloatReader,
  floatTensor,
  isExact,
  readGroups,
  readWords,
  wordTensor,
} from "./fields.js";
import { ELSEWHERE, type LayerTensor, type LayerTensors, type Layout, NO_CODEBOOKS, type Refusal } from "./layout.js";

// The layout of AutoGPTQ and GPTQModel, I inputs x O outputs: codes packed along the inputs, zeros along the outputs, a scale for
// each group and output, the group of each input. Version 1 stores zeros less one, version 2 as they are.

/** One layer, checked. */
export interface GptqSetting {
  rows: number;
  columns: number;
  bits: number;
  group: number;
  symmetric: boolean;
}

type Version = 1 | 2;

/** What the packers hold; 5, 6 and 7 bits have bit planes in GPTQModel alone. */
const BITS = [2, 3, 4, 8];
/** Group sizes that the kernels know beside one group a row. */
const GROUPS = [16, 32, 64, 128, 256, 512, 1024];

export const gptqLayouts: Readonly<Record<"gptq" | "gptq_v2", Layout<GptqSetting>>> = {
  gptq: layoutOf(1),
  gptq_v2: layoutOf(2),
};

function layoutOf(version: Version): Layout<GptqSetting> {
  return {
    name: version === 1 ? "gptq" : "gptq_v2",
    accepts: (shape) => accepts(shape, version),
    write: (record) => write(record, version),
    shape,
    read: (tensors, setting) => read(tensors, setting, version),
  };
}

function accepts(shape: RecordShape, version: Version): true | Refusal {
  if (shape.kind !== "affine") return NO_CODEBOOKS;
  const { rows, columns, bits, group, symmetric, columnGroups } = shape;
  const refuse = (reason: string, remedy: string): Refusal => ({ reason, remedy });
  if (!BITS.includes(bits)) return refuse(`it holds no codes of ${bits} bits`, `fits: --bits ${BITS.join(", ")}`);
  if (rows % 32 !== 0 || columns % 32 !== 0)
    return refuse(`it packs 32 rows and 32 columns at a time, and ${rows} x ${columns} is no multiple`, ELSEWHERE);
  const fitting = GROUPS.filter((size) => columns % size === 0).join(", ");
  if (group < columns && !GROUPS.includes(group))
    return refuse(`its kernels know no groups of ${group} columns`, `fits: --group ${fitting} or channel`);
  if (columns % group !== 0 && !symmetric && !columnGroups)
    return refuse(
      `groups of ${group} do not divide ${columns} columns`,
      `fits: --group ${fitting} or channel; or --symmetric, of which the last group may be short`,
    );
  if (version === 1 && !symmetric)
    return refuse(
      "it stores zeros less one, and a zero of 0 would be lost",
      "write gptq_v2, or quantize with --symmetric",
    );
  return true;
}

function write(
  record: QuantizedRecord,
  version: Version,
): { tensors: LayerTensor[]; setting: { [key: string]: unknown } } {
  const accepted = accepts(recordShape(record), version);
  const refusal = accepted === true ? NO_CODEBOOKS : accepted;
  if (accepted !== true || record.kind !== "affine")
    throw unsupportedError(`the GPTQ format cannot hold this linear: ${refusal.reason}`, refusal.remedy);
  const { rows, columns, bits, group, symmetric, scale, zero, groupOfColumn } = record;
  const groups = Math.ceil(columns / group);
  // kernels want f16; what bf16 alone holds stays bf16
  const storage = isExact(scale, "f16") ? "f16" : record.storage;
  const transposed = new Float32Array(scale.length); // [G, O]
  for (let o = 0; o < rows; o++) for (let g = 0; g < groups; g++) transposed[g * rows + o] = scale[o * groups + g];
  const index = groupOfColumn ?? Int32Array.from({ length: columns }, (_, i) => Math.floor(i / group));
  const tensors: LayerTensor[] = [
    wordTensor("qweight", [packedWords(columns, bits), rows], () => packCodes(record)),
    wordTensor("qzeros", [groups, packedWords(rows, bits)], () => packZeros(zero, rows, groups, bits, version)),
    floatTensor("scales", transposed, [groups, rows], storage),
    { name: "g_idx", dtype: "i32", shape: [columns], bytes: () => bytesOf(index) },
  ];
  if (record.bias) tensors.push(biasTensor(record.bias, storage));
  const setting = { rows, columns, bits, group, symmetric, order: groupOfColumn !== undefined };
  return { tensors, setting };
}

/** [I bits / 32, O]: down each column the stream of one output. */
function packCodes({ rows, columns, bits, codes }: AffineRecord): Uint32Array {
  const height = packedWords(columns, bits);
  const words = new Uint32Array(height * rows);
  for (let o = 0; o < rows; o++) {
    const stream = packBits(codes.subarray(o * columns, (o + 1) * columns), bits);
    for (let w = 0; w < height; w++) words[w * rows + o] = stream[w];
  }
  return words;
}

/** [G, O bits / 32]: along each row the stream of one group. */
function packZeros(zero: Uint8Array, rows: number, groups: number, bits: number, version: Version): Uint32Array {
  const width = packedWords(rows, bits);
  const words = new Uint32Array(groups * width);
  for (let g = 0; g < groups; g++) {
    const writer = new BitWriter(words.subarray(g * width, (g + 1) * width));
    for (let o = 0; o < rows; o++) writer.write(zero[o * groups + g] - (version === 1 ? 1 : 0), bits);
  }
  return words;
}

function shape(tensors: LayerTensors, { rows, columns, bits, group, symmetric }: GptqSetting): RecordShape {
  const groups = Math.ceil(columns / group);
  expectTensor(tensors, "qweight", ["i32"], [packedWords(columns, bits), rows]);
  expectTensor(tensors, "qzeros", ["i32"], [groups, packedWords(rows, bits)]);
  expectTensor(tensors, "scales", FLOAT_TYPES, [groups, rows]);
  const order = tensors.info("g_idx") !== undefined; // whether it is more than i / group is in the data
  if (order) expectTensor(tensors, "g_idx", ["i32", "i64"], [columns]);
  const bias = tensors.info("bias") !== undefined;
  if (bias) expectTensor(tensors, "bias", FLOAT_TYPES, [rows]);
  return { kind: "affine", rows, columns, bits, group, symmetric, bias };
}

async function read(tensors: LayerTensors, setting: GptqSetting, version: Version): Promise<AffineRecord> {
  shape(tensors, setting);
  const { rows, columns, bits, group } = setting;
  const groups = Math.ceil(columns / group);
  const floats = new FloatReader(tensors);
  const transposed = await floats.read("scales");
  const scale = new Float32Array(transposed.length);
  for (let o = 0; o < rows; o++) for (let g = 0; g < groups; g++) scale[o * groups + g] = transposed[g * rows + o];
  const zero = await readZeros(tensors, setting, groups, version);
  const record: AffineRecord = {
    kind: "affine",
    storage: floats.storage(),
    rows,
    columns,
    bits,
    symmetric: setting.symmetric && zero.every((value) => value === 2 ** (bits - 1)),
    group,
    codes: await readCodes(tensors, setting),
    scale,
    zero,
  };
  const groupOfColumn = await readGroups(tensors, "g_idx", groups, group);
  if (groupOfColumn) record.groupOfColumn = groupOfColumn;
  const bias = await floats.readIfThere("bias"); // has its own type
  if (bias) record.bias = bias;
  return record;
}

async function readCodes(tensors: LayerTensors, { rows, columns, bits }: GptqSetting): Promise<Uint8Array> {
  const words = await readWords(tensors, "qweight");
  const height = packedWords(columns, bits);
  const codes = new Uint8Array(rows * columns);
  const stream = new Uint32Array(height);
  for (let o = 0; o < rows; o++) {
    for (let w = 0; w < height; w++) stream[w] = words[w * rows + o];
    const reader = new BitReader(stream);
    for (let i = o * columns; i < (o + 1) * columns; i++) codes[i] = reader.read(bits);
  }
  return codes;
}

async function readZeros(
  tensors: LayerTensors,
  { rows, bits }: GptqSetting,
  groups: number,
  version: Version,
): Promise<Uint8Array> {
  const words = await readWords(tensors, "qzeros");
  const width = packedWords(rows, bits);
  const zero = new Uint8Array(rows * groups);
  const mask = 2 ** bits - 1;
  for (let g = 0; g < groups; g++) {
    const reader = new BitReader(words.subarray(g * width, (g + 1) * width));
    // a field of ones is the zero 0 of version 1, stored as -1
    for (let o = 0; o < rows; o++) zero[o * groups + g] = (reader.read(bits) + (version === 1 ? 1 : 0)) & mask;
  }
  return zero;
}
