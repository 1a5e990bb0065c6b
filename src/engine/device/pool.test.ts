import { describe, expect, it } from "vitest";
import { type Device, type DeviceBlock, DeviceOutOfMemory } from "./device.js";
import { BlockPool, blockBytes } from "./pool.js";

/** A device that only has memory: `capacity` bytes of it. */
function memoryOnly(capacity: number, reserveBytes?: number) {
  const state = { used: 0, allocations: 0 };
  const device = {
    reserveBytes,
    freeBytes: () => capacity - state.used,
    allocate(bytes: number): DeviceBlock {
      if (state.used + bytes > capacity) throw new DeviceOutOfMemory(bytes);
      state.used += bytes;
      state.allocations++;
      return { bytes };
    },
    release: ({ bytes }: DeviceBlock) => {
      state.used -= bytes;
    },
  };
  return { state, device: device as unknown as Device };
}

describe("blockBytes", () => {
  it("is at least what was asked for, at most a quarter more, and one of few sizes", () => {
    const sizes = new Set<number>();
    for (let bytes = 1; bytes < 100_000; bytes += 37) {
      const size = blockBytes(bytes);
      expect(size).toBeGreaterThanOrEqual(bytes);
      if (bytes > 512) expect(size).toBeLessThanOrEqual(1.25 * bytes + 4);
      expect(blockBytes(size)).toBe(size);
      sizes.add(size);
    }
    expect(sizes.size).toBeLessThan(40);
    expect(blockBytes(0)).toBe(512);
  });
});

describe("BlockPool", () => {
  it("serves a request by a freed block of its size", () => {
    const { state, device } = memoryOnly(1e6);
    const pool = new BlockPool(device);
    const first = pool.take(10_000);
    pool.give(first);
    expect(pool.take(9_900)).toBe(first);
    expect(state.allocations).toBe(1);
  });

  it("serves an upload by a block on which no work is under way, by a new one where there is room, or by any", () => {
    const { state, device } = memoryOnly(4608);
    const done = new Set<DeviceBlock>();
    const pool = new BlockPool({ ...device, isIdle: (block: DeviceBlock) => done.has(block) } as Device);
    const [first, second] = [pool.take(1024), pool.take(1024)];
    pool.give(first);
    pool.give(second);
    done.add(first);
    expect(pool.take(1024)).toBe(second); // freed last: work runs in order
    pool.give(second);
    expect(pool.take(1024, true)).toBe(first);
    const third = pool.take(1024, true);
    expect(third).not.toBe(second);
    expect(state.allocations).toBe(3);
    pool.take(1024 + 512); // the rest
    expect(pool.take(1024, true)).toBe(second);
    expect(state.used).toBe(4608);
  });

  it("does not fill a device with blocks for uploads, none of which is known to be idle", () => {
    const { state, device } = memoryOnly(100 * 1024);
    const pool = new BlockPool({ ...device, isIdle: () => false } as Device);
    for (let window = 0; window < 200; window++) pool.give(pool.take(1024, true));
    expect(state.used).toBeGreaterThan(10 * 1024);
    expect(state.used).toBeLessThanOrEqual(50 * 1024);
  });

  it("lets go of its reserve before it refuses, and says what is in use and free", () => {
    const { state, device } = memoryOnly(8192);
    const pool = new BlockPool(device);
    pool.give(pool.take(4096));
    const large = pool.take(8192); // only where the reserve went
    expect(state.used).toBe(8192);
    expect(() => pool.take(512)).toThrow(/no room for 0 MB more: 0 MB are in use by this run and 0 MB are free/);
    pool.give(large);
    pool.trim();
    expect(state.used).toBe(0);
  });

  it("keeps to a bound of the user and of the device's reserve", () => {
    const bounded = memoryOnly(1e6);
    const pool = new BlockPool(bounded.device, 4096);
    pool.take(2048);
    expect(() => pool.take(4096)).toThrow(/no room/);
    expect(pool.roomBytes()).toBe(2048);
    const silent = { ...bounded.device, freeBytes: () => undefined };
    expect(new BlockPool(silent, 4096).roomBytes()).toBe(4096); // the bound is all that is known
    const unknown = new BlockPool(silent);
    unknown.give(unknown.take(512));
    expect(unknown.roomBytes()).toBe(0); // though a block waits
    const reserved = memoryOnly(1e6, 4096);
    const small = new BlockPool(reserved.device);
    const blocks = [small.take(4096), small.take(2048)];
    for (const block of blocks) small.give(block);
    expect(reserved.state.used).toBe(2048); // the first went back to the device
    small.give(small.take(4097)); // more than the reserve
    expect(reserved.state.used).toBe(2048);
  });

  it("reserves the sizes in use, whatever was freed before", () => {
    const { state, device } = memoryOnly(1e6, 4096);
    const pool = new BlockPool(device);
    for (const block of [pool.take(512), pool.take(1024), pool.take(2048)]) pool.give(block);
    pool.give(pool.take(512)); // no longer the one that waited longest
    const { allocations } = state;
    for (let i = 0; i < 3; i++) for (const block of [pool.take(1536), pool.take(1536)]) pool.give(block);
    expect(state.allocations).toBe(allocations + 2);
    expect(state.used).toBe(512 + 2 * 1536);
    pool.take(512);
    expect(state.allocations).toBe(allocations + 2);
    pool.trim();
    expect([state.used, pool.roomBytes()]).toEqual([512, 1e6 - 512]);
  });
});
