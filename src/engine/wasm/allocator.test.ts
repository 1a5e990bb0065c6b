import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ALIGNMENT, Allocator } from "./allocator.js";

const LIMIT = 2 ** 20;

/** Allocate so many bytes, or release the block at this place among the live ones. */
const steps = fc.array(
  fc.oneof(
    { weight: 3, arbitrary: fc.record({ bytes: fc.nat({ max: LIMIT / 16 }) }) },
    { weight: 2, arbitrary: fc.record({ release: fc.nat() }) },
  ),
  { maxLength: 200 },
);

describe("Allocator", () => {
  it("hands out aligned blocks that do not overlap, and takes all of them back", () => {
    fc.assert(
      fc.property(steps, (actions) => {
        let end = 0;
        const allocator = new Allocator(100, LIMIT, (needed) => {
          end = Math.max(end, needed);
        });
        const live: { address: number; bytes: number }[] = [];
        for (const action of actions) {
          if ("bytes" in action) {
            let address: number;
            try {
              address = allocator.allocate(action.bytes);
            } catch (error) {
              expect(String(error)).toMatch(/memory is full/);
              continue;
            }
            expect(address % ALIGNMENT).toBe(0);
            expect(address).toBeGreaterThanOrEqual(100);
            expect(address + action.bytes).toBeLessThanOrEqual(Math.min(end, LIMIT));
            for (const other of live)
              expect(address + action.bytes <= other.address || other.address + other.bytes <= address).toBe(true);
            live.push({ address, bytes: action.bytes });
          } else if (live.length > 0) {
            const [{ address }] = live.splice(action.release % live.length, 1);
            allocator.release(address);
          }
          const sum = live.reduce(
            (total, { bytes }) => total + Math.max(1, Math.ceil(bytes / ALIGNMENT)) * ALIGNMENT,
            0,
          );
          expect(allocator.liveBytes).toBe(sum);
        }
        for (const { address } of live) allocator.release(address);
        expect(allocator.liveBytes).toBe(0);
        expect(allocator.freeBlocks).toBeLessThanOrEqual(1); // all pieces have become one
      }),
      { numRuns: 200 },
    );
  });

  it("takes the smallest free piece that fits, and the lowest of equals", () => {
    const allocator = new Allocator(0, LIMIT);
    const sizes = [640, 64, 128, 64, 640, 64, 192, 64, 128, 64];
    const blocks = sizes.map((size) => allocator.allocate(size));
    for (const index of [0, 2, 4, 6, 8]) allocator.release(blocks[index]);
    expect(allocator.allocate(100)).toBe(blocks[2]);
    expect(allocator.allocate(128)).toBe(blocks[8]);
    expect(allocator.allocate(65)).toBe(blocks[6]);
    expect(allocator.allocate(193)).toBe(blocks[0]);
    expect(allocator.allocate(64)).toBe(blocks[6] + 128); // what was left of it
    expect(allocator.allocate(64)).toBe(blocks[0] + 256);
  });

  it("joins a freed piece with both neighbors", () => {
    const allocator = new Allocator(0, LIMIT);
    const [a, b, c] = [allocator.allocate(1000), allocator.allocate(1000), allocator.allocate(1000)];
    const wall = allocator.allocate(64);
    allocator.release(a);
    allocator.release(c);
    expect(allocator.freeBlocks).toBe(2);
    allocator.release(b);
    expect(allocator.freeBlocks).toBe(1);
    expect(allocator.allocate(3072)).toBe(a);
    allocator.release(wall);
  });

  it("extends the last free piece instead of beginning behind it", () => {
    const ends: number[] = [];
    const allocator = new Allocator(0, LIMIT, (end) => ends.push(end));
    allocator.release(allocator.allocate(LIMIT / 2));
    expect(allocator.allocate(LIMIT)).toBe(0);
    expect(ends).toEqual([LIMIT / 2, LIMIT]);
  });

  it("says what is in use when nothing fits", () => {
    const allocator = new Allocator(0, LIMIT);
    const block = allocator.allocate(LIMIT / 2);
    allocator.allocate(LIMIT / 4);
    allocator.release(block);
    expect(() => allocator.allocate(0.75 * LIMIT)).toThrow(/0\.75 MB were asked for, 0\.25 MB of 1 MB .* 0\.50 MB/);
    expect(allocator.allocate(LIMIT / 2)).toBe(block);
  });

  it("refuses to release what it did not hand out", () => {
    const allocator = new Allocator(0, LIMIT);
    const block = allocator.allocate(1);
    allocator.release(block);
    expect(() => allocator.release(block)).toThrow(/released twice/);
  });
});
