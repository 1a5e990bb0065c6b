import { usageError } from "../errors.js";
import {
  BYTES_PER_ELEMENT,
  type DType,
  type HostArray,
  hostView,
  ScopeStack,
  sizeOf,
  Tensor,
  type TensorBuffer,
} from "../tensor/index.js";
import { checkDense, checkRange, checkShape, checkTensor } from "./check.js";

/** Bytes that an engine got from wherever it keeps its tensors. `address` counts from the beginning of `memory`. */
export interface MemoryBlock {
  readonly memory: ArrayBufferLike;
  readonly address: number;
  /** Gives the bytes back; called once. */
  release(): void;
}

class CpuBuffer implements TensorBuffer {
  references = 0;
  private freed = false;

  constructor(
    readonly owner: EngineMemory,
    readonly bytes: number,
    readonly block: MemoryBlock,
    private readonly onFree: (buffer: CpuBuffer) => void,
  ) {}

  /** Idempotent, so that tensors may be disposed after their engine was closed. */
  free(): void {
    if (this.freed) return;
    this.freed = true;
    this.onFree(this);
    this.block.release();
  }
}

/**
 * Tensors, scopes and the count of bytes of an engine whose memory the host can address: everything under "memory" in
 * engine.ts but `cast`. An engine extends it, says where bytes come from, and adds its operations.
 */
export abstract class EngineMemory {
  private readonly scopes = new ScopeStack();
  private readonly buffers = new Set<CpuBuffer>();
  private live = 0;
  private peak = 0;
  private closed = false;

  /** `bytes` new bytes, contents undefined, aligned to 4 bytes or better; may be asked for 0. Throws what the caller shall see. */
  protected abstract allocate(bytes: number): MemoryBlock;

  // ---- for the operations of the engine

  /** A new tensor of undefined contents in the current scope. */
  empty<D extends DType = "f32">(shape: readonly number[], dtype: D = "f32" as D): Tensor<D> {
    if (this.closed) throw usageError("the engine was closed", "make a new one");
    checkShape("create", shape);
    const bytes = sizeOf(shape) * BYTES_PER_ELEMENT[dtype];
    const buffer = new CpuBuffer(this, bytes, this.allocate(bytes), (freed) => this.forget(freed));
    this.buffers.add(buffer);
    this.live += bytes;
    this.peak = Math.max(this.peak, this.live);
    return this.scopes.track(new Tensor(buffer, 0, dtype, [...shape]));
  }

  /** The elements in place. Throws "usage" for a tensor that was disposed or that another engine made. */
  host<D extends DType>(tensor: Tensor<D>): HostArray<D> {
    const { memory, address } = this.blockOf(tensor);
    return hostView(tensor.dtype, memory, address + tensor.byteOffset, tensor.size);
  }

  /** Address of the first element. Throws as `host`. */
  address(tensor: Tensor): number {
    return this.blockOf(tensor).address + tensor.byteOffset;
  }

  private blockOf(tensor: Tensor): MemoryBlock {
    checkTensor(tensor);
    const { buffer } = tensor;
    if (!(buffer instanceof CpuBuffer) || buffer.owner !== this)
      throw usageError(
        `a tensor of shape [${tensor.shape}] belongs to another engine`,
        "read it there, upload it here",
      );
    if (this.closed) throw usageError("the engine was closed", "make a new one");
    return buffer.block;
  }

  private forget(buffer: CpuBuffer): void {
    this.buffers.delete(buffer);
    this.live -= buffer.bytes;
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

  view<D extends DType>(tensor: Tensor<D>, shape: readonly number[], offset = 0): Tensor<D> {
    this.blockOf(tensor);
    checkShape("view", shape);
    checkRange("view", offset, sizeOf(shape), tensor.size);
    const byteOffset = tensor.byteOffset + offset * BYTES_PER_ELEMENT[tensor.dtype];
    return this.scopes.track(new Tensor(tensor.buffer, byteOffset, tensor.dtype, [...shape]));
  }

  copy<D extends DType>(tensor: Tensor<D>): Tensor<D> {
    const source = this.host(tensor);
    const target = this.empty(tensor.shape, tensor.dtype);
    this.host(target).set(source);
    return target;
  }

  copyInto<D extends DType>(target: Tensor<D>, source: Tensor<D>, offset = 0): void {
    if (target.dtype !== source.dtype)
      throw usageError(`copyInto: expected a source of ${target.dtype}, got ${source.dtype}`, "cast it first");
    checkRange("copyInto", offset, source.size, target.size);
    this.host(target).set(this.host(source), offset);
  }

  scope<T>(body: () => T): T {
    return this.scopes.run(body);
  }

  keep<T extends Tensor>(tensor: T): T {
    return this.scopes.keep(tensor);
  }

  liveBytes(): number {
    return this.live;
  }

  peakBytes(): number {
    return this.peak;
  }

  resetPeak(): void {
    this.peak = this.live;
  }

  /** Frees all buffers; an engine with more to stop overrides it and calls it. Tensors may still be disposed afterwards. */
  async close(): Promise<void> {
    for (const buffer of [...this.buffers]) buffer.free();
    this.closed = true;
  }
}
