import type { CudaDriver } from "./driver.js";

/** Bytes of a slot, and how many there are. */
const SLOT = 2 ** 22;
const SLOTS = 8;

/**
 * Copies between the host and the card through pinned memory: only from there does the card copy while the host goes on.
 * Slots are used in turn; one is used again when its copy is done.
 */
export class Staging {
  private readonly addresses: number[] = [];
  private readonly views: Uint8Array[] = [];
  private readonly events: number[] = [];
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
    }
  }

  /** `to` is an address on the card. The data may be changed when it returns. */
  upload(to: number, data: Uint8Array): void {
    for (let at = 0; at < data.length; at += SLOT) {
      const bytes = Math.min(SLOT, data.length - at);
      const slot = this.next;
      this.next = (slot + 1) % SLOTS;
      this.driver.call("cuEventSynchronize", this.events[slot]); // at once for an event that was never recorded
      this.views[slot].set(data.subarray(at, at + bytes));
      this.driver.call("cuMemcpyHtoDAsync", to + at, this.addresses[slot], bytes, this.stream);
      this.driver.call("cuEventRecord", this.events[slot], this.stream);
    }
  }

  /** Waits for all work before it. */
  download(from: number, bytes: number): Uint8Array<ArrayBuffer> {
    const result = new Uint8Array(bytes);
    // two slots in turn: one is filled while the other is emptied
    let pending: { slot: number; at: number; bytes: number } | undefined;
    const finish = () => {
      if (!pending) return;
      this.driver.call("cuEventSynchronize", this.events[pending.slot]);
      result.set(this.views[pending.slot].subarray(0, pending.bytes), pending.at);
    };
    for (let at = 0; at < bytes; at += SLOT) {
      const slot = this.next;
      this.next = (slot + 1) % SLOTS;
      const part = Math.min(SLOT, bytes - at);
      this.driver.call("cuEventSynchronize", this.events[slot]);
      this.driver.call("cuMemcpyDtoHAsync", this.addresses[slot], from + at, part, this.stream);
      this.driver.call("cuEventRecord", this.events[slot], this.stream);
      finish();
      pending = { slot, at, bytes: part };
    }
    finish();
    return result;
  }

  close(): void {
    for (const event of this.events) this.driver.giveBack("cuEventDestroy", event);
    for (const address of this.addresses) this.driver.giveBack("cuMemFreeHost", address);
  }
}
