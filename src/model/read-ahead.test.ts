import { describe, expect, it } from "vitest";
import { fixtureConfig, fixtureWeights } from "../../test/golden/families/fixtures.js";
import { createReferenceEngine } from "../engine/reference/index.js";
import { BitwrightError } from "../errors.js";
import { bf16ToF32, f32ToBF16 } from "../tensor/index.js";
import { loadBlock } from "./block.js";

import { readAhead } from "./read-ahead.js";
import { loadWeight } from "./weights.js";

const config = fixtureConfig("llama-mha");

/** The fixture's weights, with a list of what was read, and in how many reads at once. */
function counted(fail?: string) {
  const source = fixtureWeights("llama-mha");
  const reads: string[] = [];
  let running = 0;
  let most = 0;
  return {
    reads,
    most: () => most,
    source: {
      ...source,
      async read(name: string, shape: readonly number[]) {
        reads.push(name);
        most = Math.max(most, ++running);
        await new Promise((resolve) => setTimeout(resolve, 1));
        running--;
        if (name === fail) throw new Error("torn");
        return source.read(name, shape);
      },
    },
  };
}

const settled = () => new Promise((resolve) => setTimeout(resolve, 60));

describe("readAhead", () => {
  it("gives the weights that the source gives, read once and before they are asked for", async () => {
    const engine = createReferenceEngine();
    const { source, reads, most } = counted();
    const ahead = readAhead(engine, config, source);
    ahead.prefetch(1, false);
    await settled();
    const before = reads.length;
    expect(before).toBeGreaterThan(7);
    expect(most()).toBe(1);
    await engine.scope(async () => {
      const early = await loadBlock(engine, config, ahead, 1);
      expect(reads.length).toBe(before);
      const plain = await loadBlock(engine, config, fixtureWeights("llama-mha"), 1);
      for (const [slot, { weight }] of Object.entries(plain.linears))
        expect(await engine.read(early.linears[slot].weight)).toEqual(await engine.read(weight));
      await loadBlock(engine, config, ahead, 0); // not read ahead
      expect(reads.length).toBeGreaterThan(before);
    });
  });

  it("hands on what is stored in 16 bits as it is, and the rest as it is read", async () => {
    const { source, reads } = counted();
    const halves: string[] = [];
    const half = { dtype: "bf16", values: new Uint16Array(40 * 40) } as const;
    const ahead = readAhead(createReferenceEngine(), config, {
      ...source,
      async readHalf(name) {
        halves.push(name);
        return name.includes("q_proj") ? half : undefined;
      },
    });
    const [query, key] = ["q_proj", "k_proj"].map((name) => `model.layers.1.self_attn.${name}.weight`);
    ahead.prefetch(1, false);
    await settled();
    const before = reads.length;
    expect(reads).not.toContain(query);
    expect(await ahead.readHalf?.(query, [40, 40])).toBe(half);
    expect(await ahead.readHalf?.(key, [40, 40])).toBeUndefined();
    expect(await ahead.read(key, [40, 40])).toEqual(await source.read(key, [40, 40]));
    expect(reads.length).toBe(before + 1); // that was this line's own
    expect(await ahead.readHalf?.(query, [40, 40])).toBe(half); // once more, from the source
    expect(halves.filter((name) => name === query)).toHaveLength(2);
  });

  it("uploads what is stored in 16 bits where that is wanted, and drops what nobody took", async () => {
    const engine = createReferenceEngine();
    engine.roomBytes = () => 2 ** 30;
    const { source } = counted();
    const values = f32ToBF16(Float32Array.from({ length: 40 * 40 }, (_, i) => i - 7));
    const names: string[] = [];
    const ahead = readAhead(engine, config, {
      ...source,
      async readHalf(name) {
        names.push(name);
        return name.includes("self_attn") ? { dtype: "bf16", values } : undefined;
      },
    });
    const [query, key] = ["q_proj", "k_proj"].map((name) => `model.layers.1.self_attn.${name}.weight`);
    const load = (name: string) =>
      engine.scope(async () => {
        const before = names.length;
        expect(await engine.read(await loadWeight(engine, ahead, name, [40, 40]))).toEqual(bf16ToF32(values));
        expect(names.length).toBe(before); // not read again
      });
    const held = () => [engine.liveBytes(), ahead.earlyBytes()];
    await engine.scope(async () => {
      ahead.prefetch(1, true);
      await settled(); // within a scope, which does not own what waits
    });
    expect(held()).toEqual([4 * 2 * 40 * 40, 4 * 2 * 40 * 40]);
    await load(query);
    expect(held()).toEqual([3 * 2 * 40 * 40, 3 * 2 * 40 * 40]);
    ahead.prefetch(1, false);
    expect(held()).toEqual([0, 0]);
    await settled();
    expect(held()).toEqual([0, 0]);
    await load(key);
    ahead.prefetch(1, true);
    ahead.close(); // before the first is read
    await settled();
    expect(held()).toEqual([0, 0]);
  });

  it("keeps on the host what the engine has no room for, and frees what cannot be widened", async () => {
    const engine = createReferenceEngine();
    engine.roomBytes = () => 2 ** 30;
    const { source } = counted();
    const values = f32ToBF16(Float32Array.from({ length: 40 * 40 }, (_, i) => i - 7));
    const ahead = readAhead(engine, config, {
      ...source,
      readHalf: async (name) => (name.includes("self_attn") ? { dtype: "bf16", values } : undefined),
    });
    const name = "model.layers.1.self_attn.q_proj.weight";
    const { upload, cast } = engine;
    engine.upload = () => {
      throw new BitwrightError("memory", "no room", "buy some");
    };
    ahead.prefetch(1, true);
    await settled();
    engine.upload = upload;
    await engine.scope(async () => {
      expect(await engine.read(await loadWeight(engine, ahead, name, [40, 40]))).toEqual(bf16ToF32(values));
    });
    ahead.prefetch(1, true);
    await settled();
    engine.cast = () => {
      throw new BitwrightError("memory", "no room", "buy some");
    };
    await expect(engine.scope(() => loadWeight(engine, ahead, name, [40, 40]))).rejects.toThrow("no room");
    engine.cast = cast;
    ahead.close();
    expect(engine.liveBytes()).toBe(0);
  });

  it("throws what went wrong when that tensor is read, and not before", async () => {
    const engine = createReferenceEngine();
    const name = "model.layers.1.mlp.up_proj.weight";
    const ahead = readAhead(engine, config, counted(name).source);
    ahead.prefetch(1, false);
    await settled();
    await expect(loadBlock(engine, config, ahead, 1)).rejects.toThrow("torn");
  });

  it("has nothing to do behind the last block", async () => {
    const { source, reads } = counted();
    readAhead(createReferenceEngine(), config, source).prefetch(config.layers, true);
    await settled();
    expect(reads).toEqual([]);
  });
});
