/** Element types of tensors. Arithmetic is f32; the others store. */
export type DType = "f32" | "f16" | "bf16" | "i32" | "u32" | "u16" | "u8";

/** The host array that holds a dtype; f16 and bf16 are held as their 16-bit patterns. */
export interface HostArrays {
  f32: Float32Array;
  f16: Uint16Array;
  bf16: Uint16Array;
  i32: Int32Array;
  u32: Uint32Array;
  u16: Uint16Array;
  u8: Uint8Array;
}
export type HostArray<D extends DType = DType> = HostArrays[D];

export const BYTES_PER_ELEMENT: Readonly<Record<DType, number>> = {
  f32: 4,
  f16: 2,
  bf16: 2,
  i32: 4,
  u32: 4,
  u16: 2,
  u8: 1,
};

const CONSTRUCTORS = {
  f32: Float32Array,
  f16: Uint16Array,
  bf16: Uint16Array,
  i32: Int32Array,
  u32: Uint32Array,
  u16: Uint16Array,
  u8: Uint8Array,
} as const;

/** A host array of `length` zeros. */
export function hostArray<D extends DType>(dtype: D, length: number): HostArray<D> {
  return new CONSTRUCTORS[dtype](length) as HostArray<D>;
}

/** A view of `length` elements of `dtype` over a buffer, without a copy. */
export function hostView<D extends DType>(
  dtype: D,
  buffer: ArrayBufferLike,
  byteOffset: number,
  length: number,
): HostArray<D> {
  return new CONSTRUCTORS[dtype](buffer as ArrayBuffer, byteOffset, length) as HostArray<D>;
}
