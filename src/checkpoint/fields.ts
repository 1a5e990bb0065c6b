import { formatError, unsupportedError } from "../errors.js";
import { bytesOf, storedName, viewBytes } from "../files/dtypes.js";
import type { BitStream } from "../files/packing.js";
import type { StoredDType } from "../files/tensors.js";
import { checkFinite } from "../model/weights.js";
import { indexBits } from "../quant/bits.js";
import type { CodebookStage, RecordStorage } from "../quant/record.js";
import { bf16ToF32, f16ToF32, f32ToBF16, f32ToF16 } from "../tensor/index.js";
import { LAYER_LIMITS, type LayerTensor, type LayerTensors } from "./layout.js";

// Reading and writing the fields of a layer: every tensor's type and shape is checked before its data is touched.

/** Types that hold whole numbers below 65536 in some writer or other; the published one stores u16 bits as i16 or f16. */
export const INDEX_TYPES = ["i16", "u16", "f16", "i32", "i64"] as const;
export const FLOAT_TYPES = ["f16", "bf16", "f32"] as const;

/** Throws "format" unless the layer has a tensor of one of these types and this shape. */
export function expectTensor(
  tensors: LayerTensors,
  name: string,
  dtypes: readonly StoredDType[],
  shape: readonly number[],
): void {
  const info = tensors.info(name);
  if (!info) {
    throw formatError(
      `layer ${tensors.layer} has no tensor ${name}, which its quantization_config asks for`,
      "config.json and the weights belong to different checkpoints",
    );
  }
  if (!dtypes.includes(info.dtype)) {
    throw formatError(
      `tensor ${tensors.layer}.${name}: expected ${dtypes.map(storedName).join(" or ")}, got ${storedName(info.dtype)}`,
    );
  }
  if (info.shape.length !== shape.length || info.shape.some((size, axis) => size !== shape[axis])) {
    throw formatError(
      `tensor ${tensors.layer}.${name}: expected shape [${shape.join(", ")}] from quantization_config, got [${info.shape.join(", ")}]`,
      "config.json and the weights belong to different checkpoints",
    );
  }
}

/** Throws "format" unless rows x columns is a linear that we can hold. */
export function checkFeatures(layer: string, rows: number, columns: number): void {
  const good = (size: number) => Number.isInteger(size) && size >= 1 && size <= LAYER_LIMITS.features;
  if (good(rows) && good(columns) && rows * columns <= LAYER_LIMITS.elements) return;
  throw formatError(`layer ${layer}: quantization_config says ${rows} x ${columns}, more than any linear can have`);
}

/** 32-bit words of a packed tensor. */
export const readWords = async (tensors: LayerTensors, name: string): Promise<Uint32Array> =>
  viewBytes("u32", await tensors.read(name));

/** Unsigned numbers of an index tensor; a value of `limit` or more is a "format" error. */
export async function readIndices(tensors: LayerTensors, name: string, limit: number): Promise<Uint32Array> {
  const dtype = tensors.info(name)?.dtype;
  const bytes = await tensors.read(name);
  const values = dtype === "i32" || dtype === "u32" ? viewBytes("u32", bytes) : widen(dtype, bytes);
  for (let i = 0; i < values.length; i++) {
    if (values[i] >= limit) {
      throw formatError(`tensor ${tensors.layer}.${name} holds ${values[i]} at ${i}, expected less than ${limit}`);
    }
  }
  return values;
}

function widen(dtype: StoredDType | undefined, bytes: Uint8Array): Uint32Array {
  if (dtype !== "i64") return Uint32Array.from(viewBytes("u16", bytes));
  const words = viewBytes("u32", bytes);
  // a high half is a negative or absurd number: out of any limit
  return Uint32Array.from({ length: words.length / 2 }, (_, i) => (words[2 * i + 1] === 0 ? words[2 * i] : 0xffffffff));
}

/** Group of each column where a tensor says it; undefined when it is not there, or says runs of `group` columns. */
export async function readGroups(
  tensors: LayerTensors,
  name: string,
  groups: number,
  group: number,
): Promise<Int32Array | undefined> {
  if (!tensors.info(name)) return undefined;
  const index = Int32Array.from(await readIndices(tensors, name, groups));
  return index.some((g, i) => g !== Math.floor(i / group)) ? index : undefined;
}

/** A permutation of 0..count-1. */
export async function readOrder(
  tensors: LayerTensors,
  name: string,
  count: number,
): Promise<Uint16Array | Uint32Array> {
  const order = await readIndices(tensors, name, count);
  const seen = new Uint8Array(count);
  for (const column of order) {
    if (seen[column]++) throw formatError(`tensor ${tensors.layer}.${name} is no permutation: ${column} comes twice`);
  }
  return count <= 65536 ? Uint16Array.from(order) : Uint32Array.from(order);
}

/** Real numbers of a layer, gathered so that their common storage type can be told. */
export class FloatReader {
  private readonly parts: { dtype: StoredDType; values: Float32Array }[] = [];
  constructor(private readonly tensors: LayerTensors) {}

  /** Values of a tensor that is there. Throws "numeric" at NaN or infinity. */
  async read(name: string): Promise<Float32Array> {
    const info = this.tensors.info(name);
    if (!info) throw formatError(`layer ${this.tensors.layer} has no tensor ${name}`);
    const bytes = await this.tensors.read(name);
    const values =
      info.dtype === "f32"
        ? viewBytes("f32", bytes)
        : info.dtype === "f16"
          ? f16ToF32(viewBytes("f16", bytes))
          : bf16ToF32(viewBytes("bf16", bytes));
    checkFinite(`${this.tensors.layer}.${name}`, values, info.shape);
    this.parts.push({ dtype: info.dtype, values });
    return values;
  }

  async readIfThere(name: string): Promise<Float32Array | undefined> {
    return this.tensors.info(name) ? this.read(name) : undefined;
  }

  /** The type of all values read so far, or one in which they are exact. Throws "unsupported" when there is none. */
  storage(): RecordStorage {
    const types = ["f16", "bf16"] as const;
    const found =
      types.find((storage) => this.parts.every(({ dtype }) => dtype === storage)) ??
      types.find((storage) => this.parts.every(({ values }) => isExact(values, storage)));
    if (found) return found;
    throw unsupportedError(
      `layer ${this.tensors.layer} mixes number types, and neither f16 nor bf16 holds all its values exactly`,
      "convert its codebooks and scales to one type",
    );
  }
}

const stored = (values: Float32Array, storage: RecordStorage): Uint16Array =>
  storage === "f16" ? f32ToF16(values) : f32ToBF16(values);

/** Whether numbers are what these bits of theirs say. */
function isSame(values: Float32Array, bits: Uint16Array, storage: RecordStorage): boolean {
  const back = storage === "f16" ? f16ToF32(bits) : bf16ToF32(bits);
  for (let i = 0; i < values.length; i++) if (values[i] !== back[i]) return false;
  return true;
}

export const isExact = (values: Float32Array, storage: RecordStorage): boolean =>
  isSame(values, stored(values, storage), storage);

/** A tensor of packed words; its shape is known before they are packed. */
export const wordTensor = (name: string, shape: readonly number[], pack: () => Uint32Array): LayerTensor => ({
  name,
  dtype: "i32",
  shape,
  bytes: () => bytesOf(pack()),
});

/** The indices of each stage, main codebook first, as they are written in turn. */
export const indexStreams = (stages: readonly CodebookStage[]): BitStream[] =>
  stages.map(({ indices, codewords }) => ({ values: indices, width: indexBits(codewords) }));

/** The bias of a linear, copied from the model as it was: in the record's type, or else in one that is exact. */
export function biasTensor(values: Float32Array, storage: RecordStorage): LayerTensor {
  const exact = ([storage, "f16", "bf16"] as const).find((dtype) => isExact(values, dtype));
  if (exact) return floatTensor("bias", values, [values.length], exact);
  return { name: "bias", dtype: "f32", shape: [values.length], bytes: () => bytesOf(values) };
}

/** A tensor of real numbers. Values that the storage type cannot hold are an error of the caller, thrown with the bytes. */
export function floatTensor(
  name: string,
  values: Float32Array,
  shape: readonly number[],
  storage: RecordStorage,
): LayerTensor {
  const bytes = () => {
    const bits = stored(values, storage);
    if (!isSame(values, bits, storage))
      throw formatError(`${name}: a value is not exact in ${storage}, as a record's must be`);
    return bytesOf(bits);
  };
  return { name, dtype: storage, shape, bytes };
}
