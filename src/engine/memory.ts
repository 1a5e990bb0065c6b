import { usageError } from "../errors.js";
import { type DType, type HostArray, hostView, sizeOf, type Tensor } from "../tensor/index.js";
import { checkDense, checkRange, checkShape } from "./check.js";
import { TensorMemory } from "./tensor-memory.js";

/** Bytes that an engine got from wherever it keeps its tensors. `address` counts from the beginning of `memory`. */
export interface MemoryBlock {
  readonly memory: ArrayBufferLike;
  readonly address: number;
  /** Gives the bytes back; called once. */
  release(): void;
}

/**
 * Memory of an engine whose tensors the host can address: everything under "memory" in engine.ts but `cast`. An engine extends
 * it, says where bytes come from, and adds its operations.
 */
export abstract class EngineMemory extends TensorMemory<MemoryBlock> {
  protected release(block: MemoryBlock): void {
    block.release();
  }

  // ---- for the operations of the engine

  /** The elements in place. Throws "usage" for a tensor that was disposed or that another engine made. */
  host<D extends DType>(tensor: Tensor<D>): HostArray<D> {
    const { memory, address } = this.blockOf(tensor);
    return hostView(tensor.dtype, memory, address + tensor.byteOffset, tensor.size);
  }

  /** Address of the first element. Throws as `host`. */
  address(tensor: Tensor): number {
    return this.blockOf(tensor).address + tensor.byteOffset;
  }

  // ---- Engine, "memory"

  create<D extends DType = "f32">(shape: readonly number[], dtype: D = "f32" as D): Tensor<D> {
    const tensor = this.empty(shape, dtype);
    this.host(tensor).fill(0);
    return tensor;
  }

  upload<D extends DType>(data: HostArray<D>, shape: readonly number[], dtype: D): Tensor<D> {
    checkShape("upload", shape);
    checkDense("upload", data, dtype, sizeOf(shape));
    const tensor = this.empty(shape, dtype);
    this.host(tensor).set(data);
    return tensor;
  }

  async read<D extends DType>(tensor: Tensor<D>): Promise<HostArray<D>> {
    return this.host(tensor).slice() as HostArray<D>;
  }

  write<D extends DType>(tensor: Tensor<D>, data: HostArray<D>, offset = 0): void {
    checkDense("write", data, tensor.dtype);
    checkRange("write", offset, data.length, tensor.size);
    this.host(tensor).set(data, offset);
  }

  copy<D extends DType>(tensor: Tensor<D>): Tensor<D> {
    const source = this.host(tensor);
    const target = this.empty(tensor.shape, tensor.dtype);
    this.host(target).set(source);
    return target;
  }

  copyInto<D extends DType>(target: Tensor<D>, source: Tensor<D>, offset = 0): void {
    checkCopy(target, source, offset);
    this.host(target).set(this.host(source), offset);
  }
}

export function checkCopy(target: Tensor, source: Tensor, offset: number): void {
  if (target.dtype !== source.dtype)
    throw usageError(`copyInto: expected a source of ${target.dtype}, got ${source.dtype}`, "cast it first");
  checkRange("copyInto", offset, source.size, target.size);
}
