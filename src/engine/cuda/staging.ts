import type { CudaDriver } from "./driver.js";

/** Bytes of a slot, and how many there are. */
const SLOT = 2 ** 22;
const SLOTS = 8;

/** What lies in a slot. */
interface Use {
  /** An event for the copy was recorded, and nobody has waited for it. */
  underWay: boolean;
  /** A download's bytes that were not taken out yet. */
  take?: () => void;
}

/**
 * Copies between the host and the card through pinned memory: only from there does the card copy while the host goes on.
 * Slots are used in turn; one is used again when its copy is done.
 */
export class Staging {
  private readonly addresses: number[] = [];
  private readonly views: Uint8Array[] = [];
  private readonly events: number[] = [];
  private readonly uses: Use[] = [];
  private next = 0;

  constructor(
    private readonly driver: CudaDriver,
    private readonly stream: number,
  ) {
    for (let slot = 0; slot < SLOTS; slot++) {
      const address = driver.handle("cuMemHostAlloc", SLOT, 0);
      this.addresses.push(address);
      this.views.push(new Uint8Array(driver.koffi.view(BigInt(address), SLOT)));
      this.events.push(driver.handle("cuEventCreate", 2)); // without times
      this.uses.push({ underWay: false });
    }
  }

  /** `to` is an address on the card. The data may be changed when it returns. */
  upload(to: number, data: Uint8Array): void {
    for (let at = 0; at < data.length; at += SLOT) {
      const bytes = Math.min(SLOT, data.length - at);
      const slot = this.freeSlot();
      this.views[slot].set(data.subarray(at, at + bytes));
      this.driver.call("cuMemcpyHtoDAsync", to + at, this.addresses[slot], bytes, this.stream);
      this.record(slot);
    }
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
      this.record(slot);
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

  private record(slot: number): void {
    this.driver.call("cuEventRecord", this.events[slot], this.stream);
    this.uses[slot].underWay = true;
  }

  private wait(slot: number): void {
    if (!this.uses[slot].underWay) return;
    this.driver.call("cuEventSynchronize", this.events[slot]);
    this.uses[slot].underWay = false;
  }

  close(): void {
    for (const event of this.events) this.driver.giveBack("cuEventDestroy", event);
    for (const address of this.addresses) this.driver.giveBack("cuMemFreeHost", address);
  }
}
