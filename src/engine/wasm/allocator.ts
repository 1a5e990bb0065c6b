import { memoryError } from "../../errors.js";

/** Every block begins at a multiple of this many bytes and its size is one: a cache line. */
export const ALIGNMENT = 64;

interface Block {
  address: number;
  size: number;
}

/**
 * Best-fit allocator with coalescing over addresses [begin, limit). It only keeps the books: the memory itself belongs to
 * the caller, who makes it `needed(end)` bytes long before a block that ends there is used.
 */
export class Allocator {
  /** Free blocks below `top` by (size, address). No two of them touch. */
  private readonly free: Block[] = [];
  private readonly freeByBegin = new Map<number, Block>();
  private readonly freeByEnd = new Map<number, Block>();
  private readonly live = new Map<number, number>();
  private top: number;
  private used = 0;

  constructor(
    begin: number,
    private readonly limit: number,
    private readonly needed: (end: number) => void = () => {},
  ) {
    this.top = roundUp(begin);
  }

  /** Bytes of all live blocks, rounding included. */
  get liveBytes(): number {
    return this.used;
  }

  get freeBlocks(): number {
    return this.free.length;
  }

  /** Address of a new block of at least `bytes` bytes; 0 bytes take the least block. Throws "unsupported" when none fits. */
  allocate(bytes: number): number {
    const size = Math.max(ALIGNMENT, roundUp(bytes));
    const index = this.firstOfSize(size, 0);
    if (index < this.free.length) {
      const block = this.free[index];
      this.removeFree(block);
      if (block.size > size) this.insertFree({ address: block.address + size, size: block.size - size });
      return this.take(block.address, size);
    }
    // nothing fits: extend the block at the top, or begin there
    const last = this.freeByEnd.get(this.top);
    const address = last ? last.address : this.top;
    if (address + size > this.limit) throw this.exhausted(bytes);
    this.needed(address + size);
    if (last) this.removeFree(last);
    this.top = address + size;
    return this.take(address, size);
  }

  release(address: number): void {
    const size = this.live.get(address);
    if (size === undefined) throw new Error(`the wasm allocator has no block at ${address}: released twice?`);
    this.live.delete(address);
    this.used -= size;
    const block = { address, size };
    const before = this.freeByEnd.get(address);
    if (before) {
      this.removeFree(before);
      block.address = before.address;
      block.size += before.size;
    }
    const after = this.freeByBegin.get(address + size);
    if (after) {
      this.removeFree(after);
      block.size += after.size;
    }
    this.insertFree(block);
  }

  private take(address: number, size: number): number {
    this.live.set(address, size);
    this.used += size;
    return address;
  }

  private exhausted(bytes: number) {
    const largest = this.free.at(-1)?.size ?? 0;
    const rest = Math.max(largest, this.limit - this.top);
    return memoryError(
      `the wasm engine's memory is full: ${megabytes(bytes)} were asked for, ${megabytes(this.used)} of ` +
        `${megabytes(this.limit)} are in use and the largest free piece has ${megabytes(rest)}`,
      "use shorter windows, fewer calibration samples or a smaller batch; one WebAssembly memory holds at most 4096 MB",
    );
  }

  /** Index of the first free block not before (size, address). */
  private firstOfSize(size: number, address: number): number {
    let low = 0;
    let high = this.free.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const block = this.free[middle];
      if (block.size < size || (block.size === size && block.address < address)) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  private insertFree(block: Block): void {
    this.free.splice(this.firstOfSize(block.size, block.address), 0, block);
    this.freeByBegin.set(block.address, block);
    this.freeByEnd.set(block.address + block.size, block);
  }

  private removeFree(block: Block): void {
    this.free.splice(this.firstOfSize(block.size, block.address), 1);
    this.freeByBegin.delete(block.address);
    this.freeByEnd.delete(block.address + block.size);
  }
}

const roundUp = (bytes: number): number => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
const megabytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(bytes < 2 ** 20 ? 2 : 0)} MB`;
