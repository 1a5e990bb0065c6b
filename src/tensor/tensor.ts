import { BYTES_PER_ELEMENT, type DType } from "./dtype.js";

/** Memory that an engine owns. Counted by references: every tensor over it holds one. */
export interface TensorBuffer {
  readonly bytes: number;
  references: number;
  /** Gives the memory back; called when the last reference goes. */
  free(): void;
}

/**
 * A dense row-major array in an engine's memory. Plain shape and type here; what the buffer is only its engine knows.
 * Lifetimes are scoped (see `Engine.scope`); `dispose` is for tensors that were kept out of every scope.
 */
export class Tensor<D extends DType = DType> {
  readonly size: number;
  private live = true;

  constructor(
    readonly buffer: TensorBuffer,
    /** Offset of the first element in the buffer, in bytes. */
    readonly byteOffset: number,
    readonly dtype: D,
    readonly shape: readonly number[],
  ) {
    this.size = sizeOf(shape);
    buffer.references++;
  }

  get bytes(): number {
    return this.size * BYTES_PER_ELEMENT[this.dtype];
  }

  get disposed(): boolean {
    return !this.live;
  }

  /** Idempotent. */
  dispose(): void {
    if (!this.live) return;
    this.live = false;
    this.buffer.references--;
    if (this.buffer.references === 0) this.buffer.free();
  }
}

export type F32 = Tensor<"f32">;
export type I32 = Tensor<"i32">;

/** Number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  let size = 1;
  for (const extent of shape) size *= extent;
  return size;
}

export const sameShape = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((extent, axis) => extent === b[axis]);
