import { usageError } from "../errors.js";
import { BYTES_PER_ELEMENT, type DType, ScopeStack, sizeOf, Tensor, type TensorBuffer } from "../tensor/index.js";
import { checkRange, checkShape, checkTensor } from "./check.js";

class BlockBuffer<Block> implements TensorBuffer {
  references = 0;
  private freed = false;

  constructor(
    readonly owner: object,
    readonly bytes: number,
    readonly block: Block,
    private readonly onFree: (buffer: BlockBuffer<Block>) => void,
  ) {}

  /** Idempotent, so that tensors may be disposed after their engine was closed. */
  free(): void {
    if (this.freed) return;
    this.freed = true;
    this.onFree(this);
  }
}

/**
 * Tensors, scopes and the count of bytes: what all engines do alike under "memory" in engine.ts, wherever their blocks lie.
 */
export abstract class TensorMemory<Block> {
  /** Of the engine that this is: a call has done its work when it returns. */
  readonly runsAhead: boolean = false;
  readonly uploadsBeside: boolean = false;
  private readonly scopes = new ScopeStack();
  private readonly buffers = new Set<BlockBuffer<Block>>();
  private live = 0;
  private peak = 0;
  private closed = false;

  /**
   * `bytes` new bytes, contents undefined, aligned to 4 bytes or better; may be asked for 0. With `filled` the host fills them at once.
   * Throws what the caller shall see.
   */
  protected abstract allocate(bytes: number, filled: boolean): Block;
  /** Takes a block back; called once for each. */
  protected abstract release(block: Block): void;

  /** A new tensor of undefined contents in the current scope, which the host fills at once where it is to be `filled`. */
  empty<D extends DType = "f32">(shape: readonly number[], dtype: D = "f32" as D, filled = false): Tensor<D> {
    if (this.closed) throw usageError("the engine was closed", "make a new one");
    checkShape("create", shape);
    const bytes = sizeOf(shape) * BYTES_PER_ELEMENT[dtype];
    const buffer = new BlockBuffer<Block>(this, bytes, this.allocate(bytes, filled), (freed) => this.forget(freed));
    this.buffers.add(buffer);
    this.live += bytes;
    this.peak = Math.max(this.peak, this.live);
    return this.scopes.track(new Tensor(buffer, 0, dtype, [...shape]));
  }

  /** Throws "usage" for a tensor that was disposed or that another engine made. */
  blockOf(tensor: Tensor): Block {
    checkTensor(tensor);
    const { buffer } = tensor;
    if (!(buffer instanceof BlockBuffer) || buffer.owner !== this)
      throw usageError(
        `a tensor of shape [${tensor.shape}] belongs to another engine`,
        "read it there, upload it here",
      );
    if (this.closed) throw usageError("the engine was closed", "make a new one");
    return buffer.block as Block;
  }

  private forget(buffer: BlockBuffer<Block>): void {
    this.buffers.delete(buffer);
    this.live -= buffer.bytes;
    this.release(buffer.block);
  }

  // ---- Engine, "memory"

  view<D extends DType>(tensor: Tensor<D>, shape: readonly number[], offset = 0): Tensor<D> {
    this.blockOf(tensor);
    checkShape("view", shape);
    checkRange("view", offset, sizeOf(shape), tensor.size);
    const byteOffset = tensor.byteOffset + offset * BYTES_PER_ELEMENT[tensor.dtype];
    return this.scopes.track(new Tensor(tensor.buffer, byteOffset, tensor.dtype, [...shape]));
  }

  scope<T>(body: () => T): T {
    return this.scopes.run(body);
  }

  keep<T extends Tensor>(tensor: T): T {
    return this.scopes.keep(tensor);
  }

  /** Engines with products in f32 have nothing to tell. */
  async overflowed(): Promise<boolean> {
    return false;
  }

  roomBytes(): number {
    return 0;
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
