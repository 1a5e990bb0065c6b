import type { DType } from "../tensor/index.js";
import type { StoredDType } from "./tensors.js";

/** Names in a safetensors header. */
const NAMES: Readonly<Record<StoredDType, string>> = {
  f64: "F64",
  f32: "F32",
  f16: "F16",
  bf16: "BF16",
  f8_e4m3: "F8_E4M3",
  f8_e5m2: "F8_E5M2",
  i64: "I64",
  i32: "I32",
  i16: "I16",
  i8: "I8",
  u64: "U64",
  u32: "U32",
  u16: "U16",
  u8: "U8",
  bool: "BOOL",
};

const BYTES: Readonly<Record<StoredDType, number>> = {
  f64: 8,
  f32: 4,
  f16: 2,
  bf16: 2,
  f8_e4m3: 1,
  f8_e5m2: 1,
  i64: 8,
  i32: 4,
  i16: 2,
  i8: 1,
  u64: 8,
  u32: 4,
  u16: 2,
  u8: 1,
  bool: 1,
};

const BY_NAME = new Map(Object.entries(NAMES).map(([dtype, name]) => [name, dtype as StoredDType]));

export const storedName = (dtype: StoredDType): string => NAMES[dtype];
export const storedBytes = (dtype: StoredDType): number => BYTES[dtype];
export const storedDType = (name: string): StoredDType | undefined => BY_NAME.get(name);
export const storedNames = (): string[] => Object.values(NAMES);

export const isFloat = (dtype: StoredDType): dtype is "f32" | "f16" | "bf16" =>
  dtype === "f32" || dtype === "f16" || dtype === "bf16";

const VIEWS = {
  f32: Float32Array,
  f16: Uint16Array,
  bf16: Uint16Array,
  i32: Int32Array,
  u32: Uint32Array,
  u16: Uint16Array,
  u8: Uint8Array,
} as const;

/** Bytes as an array of the dtype, without a copy where they are aligned. Hosts are little-endian, as files are. */
export function viewBytes<D extends DType>(dtype: D, bytes: Uint8Array): InstanceType<(typeof VIEWS)[D]> {
  const View = VIEWS[dtype];
  const aligned = bytes.byteOffset % View.BYTES_PER_ELEMENT === 0 ? bytes : new Uint8Array(bytes);
  return new View(
    aligned.buffer as ArrayBuffer,
    aligned.byteOffset,
    aligned.byteLength / View.BYTES_PER_ELEMENT,
  ) as InstanceType<(typeof VIEWS)[D]>;
}

/** The bytes of an array, without a copy. */
export const bytesOf = (array: ArrayBufferView): Uint8Array =>
  new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
