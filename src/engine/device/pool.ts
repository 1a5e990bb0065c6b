import { BitwrightError } from "../../errors.js";
import { type Device, type DeviceBlock, DeviceOutOfMemory } from "./device.js";

/** The device has no room for a request, whatever the pool lets go of. Nothing was begun. */
export class NoRoom extends BitwrightError {
  constructor(message: string, remedy: string) {
    super("memory", message, remedy);
  }
}

/** Blocks below this are of one size. */
const LEAST = 512;

/** Bytes of the block that serves a request: a power of two or one of three steps between, so that blocks fit again. */
export function blockBytes(bytes: number): number {
  if (bytes <= LEAST) return LEAST;
  const step = 2 ** (Math.floor(Math.log2(bytes - 1)) - 2);
  return Math.ceil(bytes / step) * step;
}

/**
 * Blocks that were freed wait here for the next request of their size: asking a driver for memory takes as long as a kernel.
 * Work runs in order, so a block may serve again while earlier work on it is still queued.
 */
export class BlockPool {
  /** By size; that of the block freed last comes last. */
  private readonly waiting = new Map<number, DeviceBlock[]>();
  private waitingBytes = 0;
  private heldBytes = 0;

  constructor(
    private readonly device: Device,
    /** Bytes that may be held at most, where the user set a bound. */
    private readonly limit = Number.POSITIVE_INFINITY,
  ) {}

  /**
   * With `idle`, one on which no work is under way, which is worth a new one where there is room. Throws "memory" when the device has
   * not enough memory, whatever is let go.
   */
  take(bytes: number, idle = false): DeviceBlock {
    const size = blockBytes(bytes);
    const block = this.reuse(size, idle);
    if (block) {
      this.waitingBytes -= size;
      return block;
    }
    if (this.heldBytes + size > this.limit) this.trim();
    for (const attempt of [0, 1]) {
      try {
        if (this.heldBytes + size > this.limit) throw new DeviceOutOfMemory(size);
        const made = this.device.allocate(size);
        this.heldBytes += size;
        return made;
      } catch (error) {
        if (!(error instanceof DeviceOutOfMemory)) throw error;
        if (attempt === 0) this.trim();
      }
    }
    throw this.refusal(size);
  }

  /** A block that waits, unless a new one is better. */
  private reuse(size: number, idle: boolean): DeviceBlock | undefined {
    const list = this.waiting.get(size);
    if (!list || !idle || !this.device.isIdle) return list?.pop();
    if (list.length > 0 && this.device.isIdle(list[0])) return list.shift(); // of all of them it was freed first
    // others need memory too: at least as much stays free as waits
    const free = this.roomBytes() - this.waitingBytes;
    return this.waitingBytes + size <= free ? undefined : list.pop();
  }

  give(block: DeviceBlock): void {
    this.device.noteFreed?.(block);
    const { reserveBytes = Number.POSITIVE_INFINITY } = this.device;
    if (block.bytes > reserveBytes) {
      this.release(block);
      return;
    }
    this.makeRoom(reserveBytes - block.bytes);
    const list = this.waiting.get(block.bytes) ?? [];
    list.push(block);
    this.waiting.delete(block.bytes);
    this.waiting.set(block.bytes, list);
    this.waitingBytes += block.bytes;
  }

  /** Gives blocks back to the device, of the size that was not freed for the longest time first, until no more bytes wait. */
  private makeRoom(bytes: number): void {
    for (const [size, blocks] of this.waiting) {
      while (this.waitingBytes > bytes && blocks.length > 0) {
        this.waitingBytes -= size;
        this.release(blocks.pop() as DeviceBlock);
      }
      if (blocks.length > 0) return;
      this.waiting.delete(size);
    }
  }

  private release(block: DeviceBlock): void {
    this.heldBytes -= block.bytes;
    this.device.release(block);
  }

  /** Bytes that can still be taken, as far as the device tells, or else the bound; 0 where there is neither. */
  roomBytes(): number {
    const free = this.device.freeBytes() ?? Number.POSITIVE_INFINITY;
    const room = Math.min(free, this.limit - this.heldBytes) + this.waitingBytes;
    return Number.isFinite(room) ? room : 0;
  }

  /** Gives all waiting blocks back to the device. */
  trim(): void {
    this.makeRoom(0);
  }

  private refusal(bytes: number): NoRoom {
    const free = this.device.freeBytes();
    const mega = (count: number) => `${(count / 1e6).toFixed(0)} MB`;
    const bounded = this.heldBytes + bytes > this.limit;
    return new NoRoom(
      `the device has no room for ${mega(bytes)} more: ${mega(this.heldBytes)} are in use by this run` +
        (bounded ? `, which may take ${mega(this.limit)}` : free === undefined ? "" : ` and ${mega(free)} are free`),
      `fewer or shorter calibration windows, a smaller batch, ${bounded ? "a larger --device-memory" : "another --device"}, or --engine wasm`,
    );
  }
}
