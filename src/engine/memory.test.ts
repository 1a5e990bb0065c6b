import { describe, expect, it } from "vitest";
import { unsupportedError } from "../errors.js";
import { EngineMemory, type MemoryBlock } from "./memory.js";

/** Memory in one buffer of 1000 bytes, handed out in order. */
class Arena extends EngineMemory {
  readonly released: number[] = [];
  private top = 8;
  private readonly memory = new ArrayBuffer(1000);

  protected override allocate(bytes: number): MemoryBlock {
    const address = this.top;
    if (address + bytes > 1000) throw unsupportedError("the arena is full");
    this.top += Math.ceil(bytes / 4) * 4;
    return { memory: this.memory, address, release: () => this.released.push(address) };
  }
}

describe("EngineMemory", () => {
  it("places tensors where the engine says", async () => {
    const arena = new Arena();
    const a = arena.upload(Float32Array.of(1, 2, 3), [3], "f32");
    const b = arena.upload(Uint16Array.of(4, 5, 6), [3], "f16");
    expect([arena.address(a), arena.address(b)]).toEqual([8, 20]);
    const view = arena.view(b, [2], 1);
    expect(arena.address(view)).toBe(22);
    expect([...arena.host(view)]).toEqual([5, 6]);
    arena.host(view)[0] = 9;
    expect([...(await arena.read(b))]).toEqual([4, 9, 6]);
  });

  it("releases each block once, with its last tensor", () => {
    const arena = new Arena();
    const a = arena.create([3]);
    const view = arena.view(a, [1]);
    a.dispose();
    expect(arena.released).toEqual([]);
    view.dispose();
    view.dispose();
    expect(arena.released).toEqual([8]);
  });

  it("counts nothing for an allocation that fails", () => {
    const arena = new Arena();
    arena.create([100]);
    expect(() => arena.create([1000])).toThrow("the arena is full");
    expect([arena.liveBytes(), arena.peakBytes()]).toEqual([400, 400]);
  });

  it("refuses tensors of another engine", () => {
    const [one, other] = [new Arena(), new Arena()];
    const tensor = other.create([2]);
    for (const use of [() => one.host(tensor), () => one.view(tensor, [1]), () => one.copy(tensor)])
      expect(use).toThrow(
        expect.objectContaining({ kind: "usage", message: expect.stringContaining("another engine") }),
      );
  });

  it("frees everything when it is closed, and refuses work afterwards", async () => {
    const arena = new Arena();
    const a = arena.create([2]);
    arena.scope(() => arena.keep(arena.create([3])));
    await arena.close();
    expect(arena.released).toEqual([8, 16]);
    expect(arena.liveBytes()).toBe(0);
    a.dispose();
    expect(arena.released).toEqual([8, 16]);
    for (const use of [() => arena.create([1]), () => arena.upload(new Float32Array(1), [1], "f32")])
      expect(use).toThrow(expect.objectContaining({ kind: "usage", message: expect.stringContaining("closed") }));
    await arena.close();
  });
});
