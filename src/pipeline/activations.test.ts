import { afterAll, describe, expect, it } from "vitest";
import { createReferenceEngine } from "../engine/reference/index.js";
import { ActivationBudget, ActivationStore, type SpillFile } from "./activations.js";

/** A scratch file in memory. */
function memorySpill(): SpillFile & { readonly bytes: number } {
  let content = new Uint8Array(0);
  return {
    get bytes() {
      return content.length;
    },
    async write(offset, bytes) {
      if (offset + bytes.length > content.length) {
        const longer = new Uint8Array(offset + bytes.length);
        longer.set(content);
        content = longer;
      }
      content.set(bytes, offset);
    },
    read: async (offset, length) => content.slice(offset, offset + length),
    close: async () => {},
  };
}

describe("ActivationStore", () => {
  const engine = createReferenceEngine();
  afterAll(() => engine.close());
  const SIZE = 6;
  const values = (window: number, round: number) =>
    Float32Array.from({ length: SIZE }, (_, i) => window + round + i / 8);

  it.each(["f16", "f32"] as const)(
    "%s: fills the engine, then memory, then the disk, and gives back what it got",
    async (dtype) => {
      const bytes = SIZE * (dtype === "f16" ? 2 : 4);
      const spill = memorySpill();
      const budget = new ActivationBudget(bytes, async () => spill, undefined, bytes);
      const store = new ActivationStore(engine, 3, dtype, budget);
      const before = engine.liveBytes();
      for (const round of [0, 10])
        for (let window = 0; window < 3; window++)
          await engine.scope(() => store.put(window, engine.upload(values(window, round), [2, 3], "f32")));
      expect(engine.liveBytes() - before).toBe(bytes);
      expect(budget.peakBytes).toBe(bytes);
      expect(spill.bytes).toBe(bytes);
      for (let window = 0; window < 3; window++)
        await engine.scope(async () => {
          const got = await store.get(window);
          expect(got.shape).toEqual([2, 3]);
          expect(await engine.read(got)).toEqual(values(window, 10));
        });
      await store.close();
      expect(engine.liveBytes()).toBe(before);
    },
  );

  it("keeps what f16 cannot hold as f32, in the engine too", async () => {
    const store = new ActivationStore(engine, 1, "f16", new ActivationBudget(0, undefined, undefined, 1000));
    const large = Float32Array.of(1, 2, 3, 4, 5, 1e6);
    await engine.scope(async () => {
      const tensor = engine.upload(large, [6], "f32");
      await store.put(0, tensor);
      engine.write(tensor, Float32Array.of(7));
      expect(await engine.read(await store.get(0))).toEqual(large); // a copy of its own
    });
    await store.close();
  });
});
