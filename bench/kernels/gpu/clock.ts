import type { CudaDevice } from "../../../src/engine/cuda/device.js";
import type { DeviceMemory } from "../../../src/engine/device/memory.js";
import type { Engine } from "../../../src/engine/engine.js";
import type { F32, I32 } from "../../../src/tensor/index.js";
import { kernelNamed } from "./versions.js";

export interface Clock {
  /** Median milliseconds of a call. */
  time(run: () => unknown): Promise<number>;
  close(): void;
}

const ROUNDS = 9;
/** Milliseconds after which no more rounds begin. */
const ENOUGH = 150;
/** Numbers that are read to push everything else out of the card's caches: 128 MiB. */
const FLUSH = 2 ** 25;
const PARTS = 1024;
/** Of a batch of calls by the host's clock: milliseconds at least, and calls at most. */
const [LONG_ENOUGH, MOST_CALLS] = [10, 1024];

const median = (times: number[]): number => times.sort((a, b) => a - b)[times.length >> 1];

/**
 * By events on the card's own clock, each call with caches that hold none of its operands. They are emptied by reading, since
 * what was written would have to be written back during the call.
 */
export class CudaClock implements Clock {
  private readonly flushed: F32;
  private readonly flags: I32;
  private readonly events: [number, number];

  constructor(
    private readonly engine: Engine & DeviceMemory,
    private readonly device: CudaDevice,
  ) {
    this.flushed = engine.keep(engine.create([FLUSH]));
    this.flags = engine.keep(engine.create([PARTS], "i32"));
    this.events = [device.driver.handle("cuEventCreate", 0), device.driver.handle("cuEventCreate", 0)];
  }

  async time(run: () => unknown): Promise<number> {
    const { engine } = this;
    const { driver, stream } = this.device;
    const [begin, end] = this.events;
    const elapsed = new Float32Array(1);
    const times: number[] = [];
    const since = performance.now();
    while (times.length < ROUNDS && (times.length === 0 || performance.now() - since < ENOUGH))
      await engine.scope(async () => {
        const tensors = [this.flushed, this.flags];
        engine.run(kernelNamed("finiteParts"), { groups: PARTS, tensors, numbers: [FLUSH, FLUSH / PARTS] });
        driver.call("cuEventRecord", begin, stream);
        const done = run();
        if (done instanceof Promise) await done;
        driver.call("cuEventRecord", end, stream);
        driver.call("cuEventSynchronize", end);
        driver.call("cuEventElapsedTime", elapsed, begin, end);
        times.push(elapsed[0]);
      });
    return median(times);
  }

  close(): void {
    for (const event of this.events) this.device.driver.call("cuEventDestroy", event);
  }
}

/** By the host's clock: many calls and a wait for the last, less a wait for nothing. Caches stay as they are. */
export class HostClock implements Clock {
  private readonly probe: F32;

  constructor(private readonly engine: Engine) {
    this.probe = engine.keep(engine.create([1]));
  }

  async time(run: () => unknown): Promise<number> {
    const batch = async (calls: number): Promise<number> => {
      const since = performance.now();
      for (let call = 0; call < calls; call++)
        await this.engine.scope(async () => {
          await run();
        });
      await this.engine.read(this.probe);
      return performance.now() - since;
    };
    await batch(0);
    const waits: number[] = [];
    for (let round = 0; round < 5; round++) waits.push(await batch(0));
    const wait = median(waits);
    // so many that what they take shows beside the wait
    let calls = 1;
    let taken = await batch(calls);
    while (taken - wait < LONG_ENOUGH && calls < MOST_CALLS) {
      calls *= 4;
      taken = await batch(calls);
    }
    if (taken > ENOUGH) return (taken - wait) / calls;
    const times: number[] = [];
    const since = performance.now();
    while (times.length < ROUNDS && (times.length === 0 || performance.now() - since < ENOUGH))
      times.push((await batch(calls)) - wait);
    return Math.max(0, median(times)) / calls;
  }

  close(): void {}
}
