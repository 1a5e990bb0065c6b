import type { CudaDriver } from "./driver.js";

/** Bytes of a slot, and how many there are. */
const SLOT = 2 ** 22;
const SLOTS = 8;

/** What lies in a slot. */
interface Use {
  /** An event for the copy was recorded, and nobody has waited for it. */
  underWay: boolean;
  /** Number of that event among those of the work; 0 for one of the uploads. */
  mark: number;
  /** A download's bytes that were not taken out yet. */
  take?: () => void;
}

/**
 * Copies between the host and the card through pinned memory: only from there does the card copy while the host goes on.
 * Slots are used in turn; one is used again when its copy is done. Uploads to where no work is under way have a stream of their own,
 * so that they need not wait for the work enqueued before; that enqueued afterwards waits for them.
 */
export class Staging {
  private readonly addresses: number[] = [];
  private readonly views: Uint8Array[] = [];
  private readonly events: number[] = [];
  private readonly uses: Use[] = [];
  private next = 0;
  /** Events that were recorded behind the work so far, and the last of them that somebody has waited for. */
  private marks = 0;
  private reached = 0;

  constructor(
    private readonly driver: CudaDriver,
    /** Of the work. */
    private readonly stream: number,
    private readonly uploads: number,
  ) {
    for (let slot = 0; slot < SLOTS; slot++) {
      const address = driver.handle("cuMemHostAlloc", SLOT, 0);
      this.addresses.push(address);
      this.views.push(new Uint8Array(driver.koffi.view(BigInt(address), SLOT)));
      this.events.push(driver.handle("cuEventCreate", 2)); // without times
      this.uses.push({ underWay: false, mark: 0 });
    }
  }

  /** A point behind all work so far, for `isDone`. */
  get mark(): number {
    return this.marks + 1;
  }

  /** Whether the work before a point is known to be done. */
  isDone(mark: number): boolean {
    return mark <= this.reached;
  }

  /** `to` is an address on the card, `idle` when no work there is under way. The data may be changed when it returns. */
  upload(to: number, data: Uint8Array, idle: boolean): void {
    const { driver, stream } = this;
    const by = idle ? this.uploads : stream;
    let slot = 0;
    for (let at = 0; at < data.length; at += SLOT) {
      const bytes = Math.min(SLOT, data.length - at);
      slot = this.freeSlot();
      this.views[slot].set(data.subarray(at, at + bytes));
      driver.call("cuMemcpyHtoDAsync", to + at, this.addresses[slot], bytes, by);
      this.record(slot, by);
    }
    if (idle && data.length > 0) driver.call("cuStreamWaitEvent", stream, this.events[slot], 0);
  }

  /**
   * Enqueues the copy at once and waits for it, and for all work before it, when the caller has nothing more to do: what it
   * enqueues after the call runs during the wait.
   */
  async download(from: number, bytes: number): Promise<Uint8Array<ArrayBuffer>> {
    const result = new Uint8Array(bytes);
    const taking: (() => void)[] = [];
    for (let at = 0; at < bytes; at += SLOT) {
      const part = Math.min(SLOT, bytes - at);
      const slot = this.freeSlot();
      this.driver.call("cuMemcpyDtoHAsync", this.addresses[slot], from + at, part, this.stream);
      this.record(slot, this.stream);
      const use = this.uses[slot];
      const take = () => {
        if (use.take !== take) return;
        this.wait(slot);
        result.set(this.views[slot].subarray(0, part), at);
        use.take = undefined;
      };
      use.take = take;
      taking.push(take);
    }
    await undefined;
    for (const take of taking) take();
    return result;
  }

  /** The next slot, empty. */
  private freeSlot(): number {
    const slot = this.next;
    this.next = (slot + 1) % SLOTS;
    this.uses[slot].take?.();
    this.wait(slot);
    return slot;
  }

  private record(slot: number, stream: number): void {
    this.driver.call("cuEventRecord", this.events[slot], stream);
    this.uses[slot].underWay = true;
    this.uses[slot].mark = stream === this.stream ? ++this.marks : 0;
  }

  private wait(slot: number): void {
    const use = this.uses[slot];
    if (!use.underWay) return;
    this.driver.call("cuEventSynchronize", this.events[slot]);
    use.underWay = false;
    this.reached = Math.max(this.reached, use.mark);
  }

  close(): void {
    for (const event of this.events) this.driver.giveBack("cuEventDestroy", event);
    for (const address of this.addresses) this.driver.giveBack("cuMemFreeHost", address);
  }
}
