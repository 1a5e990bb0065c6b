import type { DType } from "../tensor/index.js";

// What a file of named tensors offers a reader, whether one safetensors file or a checkpoint of many.

/** Element types that a safetensors file may hold and that we can size; only some of them are read as numbers. */
export type StoredDType = DType | "f64" | "i8" | "i16" | "i64" | "u64" | "bool" | "f8_e4m3" | "f8_e5m2";

export interface TensorInfo {
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  /** Bytes on disk. */
  readonly bytes: number;
}

/** Named tensors of which nothing is read before it is asked for. An unknown name is a "format" error that names the file. */
export interface TensorReader {
  /** For messages. */
  readonly name: string;
  /** Every tensor, in the order of the file. */
  readonly names: readonly string[];
  info(name: string): TensorInfo | undefined;
  /** The bytes as they lie in the file: row-major, little-endian. */
  readRaw(name: string): Promise<Uint8Array>;
  /** `length` bytes from byte `offset` of a tensor. */
  readRange(name: string, offset: number, length: number): Promise<Uint8Array>;
  /** The values of an f32, f16 or bf16 tensor, exactly; NaN and infinity come through. Other types are "unsupported". */
  readF32(name: string): Promise<Float32Array>;
  close(): Promise<void>;
}
