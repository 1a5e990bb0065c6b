import { afterEach, describe, expect, it } from "vitest";
import { expectedLogits, fixtureConfig, fixtureWeights } from "../../test/golden/families/fixtures.js";
import { FAMILY_LOGITS } from "../../test/tolerances.js";
import { createReferenceEngine } from "../engine/reference/index.js";
import { BitwrightError } from "../errors.js";
import type { ActivationScheme } from "./activation-scheme.js";
import { disposeCache } from "./cache.js";
import { type DecoderOptions, openDecoder } from "./decoder.js";
import { packTokens } from "./embedding.js";
import { planResidency } from "./residency.js";
import { blockParameters } from "./tensors.js";

// What the logits are is checked in test/golden/families; here: what stays in memory, what is read, what is refused.

const engine = createReferenceEngine();
afterEach(() => expect(engine.liveBytes()).toBe(0));

/** Runs `body` and drops what it returns. */
const run = (body: () => Promise<unknown>): Promise<void> =>
  engine.scope(async () => {
    await body();
  });

const open = async (fixture: string, options?: DecoderOptions) => {
  const source = fixtureWeights(fixture);
  const decoder = await openDecoder(engine, fixtureConfig(fixture), source, options);
  return { decoder, source, tokens: expectedLogits(fixture).tokens };
};

describe("planResidency", () => {
  const config = { ...fixtureConfig("qwen2-window"), layers: 10 }; // untied
  const block = blockParameters(config) * 4;
  const table = config.vocabulary * config.hidden * 4;

  it("keeps the head, then the embedding, then as many blocks as leave room for one at work", () => {
    expect(planResidency(config, Number.POSITIVE_INFINITY)).toEqual({ embedding: true, blocks: 10 });
    expect(planResidency(config, 2 * table + 10 * block)).toEqual({ embedding: true, blocks: 10 });
    expect(planResidency(config, 2 * table + 10 * block - 1)).toEqual({ embedding: true, blocks: 8 });
    expect(planResidency(config, 2 * table + block)).toEqual({ embedding: true, blocks: 0 });
    expect(planResidency(config, 2 * table + block - 1)).toEqual({ embedding: false, blocks: 0 });
    expect(planResidency(config, 0)).toEqual({ embedding: false, blocks: 0 });
  });

  it("counts a tied table once", () => {
    const tied = { ...config, tieEmbeddings: true };
    expect(planResidency(tied, table + 10 * block)).toEqual({ embedding: true, blocks: 10 });
  });
});

describe("what is read and what stays", () => {
  it("reads each tensor once when everything fits, a tied table included", async () => {
    for (const fixture of ["qwen2-window", "llama-gqa-llama3-tied", "mistral-full-unprefixed"]) {
      const { decoder, source, tokens } = await open(fixture);
      for (let time = 0; time < 2; time++) await run(() => decoder.logits(tokens));
      expect([...source.reads.values()].every((count) => count === 1)).toBe(true);
      decoder.close();
      expect(engine.liveBytes()).toBe(0);
    }
  });

  it("reads the blocks beyond the budget again, once a call", async () => {
    const config = fixtureConfig("qwen2-window"); // 3 blocks
    const budget = 2 * config.vocabulary * config.hidden * 4 + 2 * blockParameters(config) * 4;
    const { decoder, source, tokens } = await open("qwen2-window", { weightBudget: budget });
    for (let time = 0; time < 3; time++) await run(() => decoder.logits(tokens));
    const reads = (layer: number) => source.reads.get(`model.layers.${layer}.mlp.up_proj.weight`);
    expect([reads(0), reads(1), reads(2)]).toEqual([1, 3, 3]);
    decoder.close();
  });

  it("pushes as many windows through a block as the activation budget holds", async () => {
    const { decoder, source, tokens } = await open("mistral-window", { weightBudget: 0 });
    const bytes = tokens[0].length * decoder.config.hidden * 4;
    const windows = [0, 1, 0, 1, 0].map((row) => tokens[row]);
    const reads = () => source.reads.get("model.layers.1.mlp.up_proj.weight");
    await decoder.runWindows(windows, async () => {});
    expect(reads()).toBe(1);
    await decoder.runWindows(windows, async () => {}, { activationBudget: 2 * bytes });
    expect(reads()).toBe(1 + 3);
    await decoder.runWindows(windows, async () => {}, { activationBudget: 1 });
    expect(reads()).toBe(4 + 5);
    decoder.close();
  });

  it("holds one block at a time: the peak does not grow with the layers", async () => {
    const peakOf = async (layers: number) => {
      const source = fixtureWeights("llama-mha");
      const first = (name: string) => name.replace(/layers\.\d+/, "layers.0");
      const deep = {
        has: (name: string) => source.has(first(name)),
        shape: (name: string) => source.shape(first(name)),
        read: (name: string, shape: readonly number[]) => source.read(first(name), shape),
      };
      const config = {
        ...fixtureConfig("llama-mha"),
        layers,
        slidingWindow: new Array<undefined>(layers).fill(undefined),
      };
      const decoder = await openDecoder(engine, config, deep, { weightBudget: 0 });
      engine.resetPeak();
      await run(() => decoder.logits([[1, 2, 3]]));
      decoder.close();
      return engine.peakBytes();
    };
    expect(await peakOf(64)).toBe(await peakOf(2));
  });
});

describe("step", () => {
  it("gives the last position's logits alone when asked", async () => {
    const { decoder, tokens } = await open("qwen3");
    const cache = decoder.createCache({ batch: 2 });
    await engine.scope(async () => {
      const all = await engine.read(await decoder.logits(tokens));
      const last = await decoder.step(tokens, cache, { lastOnly: true });
      const { vocabulary } = decoder.config;
      expect(last.shape).toEqual([2, 1, vocabulary]);
      const values = await engine.read(last);
      const length = tokens[0].length;
      for (const row of [0, 1]) {
        const end = (row + 1) * length * vocabulary;
        const expected = all.subarray(end - vocabulary, end);
        const got = values.subarray(row * vocabulary, (row + 1) * vocabulary);
        for (const [i, value] of got.entries()) expect(value).toBeCloseTo(expected[i], 5);
      }
    });
    disposeCache(cache);
    decoder.close();
  });

  it("can go back: a shorter length forgets the later positions", async () => {
    const { decoder, tokens } = await open("qwen2-window");
    const cache = decoder.createCache({ capacity: 3 });
    await engine.scope(async () => {
      await decoder.step([tokens[0]], cache);
      const once = await engine.read(await decoder.step([[7, 8]], cache));
      cache.length -= 2;
      await decoder.step([[50, 60]], cache);
      cache.length -= 2;
      expect(await engine.read(await decoder.step([[7, 8]], cache))).toEqual(once);
    });
    disposeCache(cache);
    decoder.close();
  });

  it("leaves the cache as it was when the head cannot be read", async () => {
    const { decoder, source, tokens } = await open("llama-mha");
    const cache = decoder.createCache();
    const { read } = source;
    source.read = (name, shape) => (name === "lm_head.weight" ? Promise.reject(new Error("torn")) : read(name, shape));
    await expect(decoder.step([tokens[0]], cache)).rejects.toThrow("torn");
    expect(cache.length).toBe(0);
    disposeCache(cache);
    decoder.close();
  });

  it("leaves the cache as it was when a block cannot be read", async () => {
    const { decoder, source, tokens } = await open("llama-mha", { weightBudget: 0 });
    const cache = decoder.createCache();
    await run(() => decoder.step([tokens[0]], cache));
    const length = cache.length;
    const { read } = source;
    source.read = (name, shape) => (name.includes("layers.1") ? Promise.reject(new Error("torn")) : read(name, shape));
    await expect(decoder.step([[3]], cache)).rejects.toThrow("torn");
    expect(cache.length).toBe(length);
    disposeCache(cache);
    decoder.close();
  });

  it("takes no tokens", async () => {
    const { decoder } = await open("llama-mha");
    await engine.scope(async () => expect((await decoder.logits([[], []])).shape).toEqual([2, 0, 97]));
    decoder.close();
  });
});

describe("what is refused", () => {
  it.each([
    ["no rows", [], "at least one row"],
    ["rows of different lengths", [[1, 2], [3]], "equal lengths"],
    ["a token outside the vocabulary", [[1, 97]], "token 97 (row 0, position 1)"],
    ["a negative token", [[-1]], "token -1"],
    ["a fraction", [[1.5]], "token 1.5"],
  ])("%s", (_, tokens, expected) => {
    expect(() => packTokens(tokens, 97)).toThrow(expected);
    expect(() => packTokens(tokens, 97)).toThrow(BitwrightError);
  });

  it("a batch that is not the cache's, a cache of no positions", async () => {
    const { decoder } = await open("llama-mha");
    const cache = decoder.createCache({ batch: 2 });
    await expect(decoder.step([[1]], cache)).rejects.toThrow("2 rows");
    expect(() => decoder.createCache({ capacity: 0 })).toThrow("capacity");
    disposeCache(cache);
    decoder.close();
  });

  it("work after the signal has fired", async () => {
    const { decoder, tokens } = await open("llama-mha");
    const controller = new AbortController();
    const seen: number[] = [];
    const onHidden = async (window: number) => {
      seen.push(window);
      controller.abort();
    };
    await expect(
      decoder.runWindows([...tokens, ...tokens], onHidden, { signal: controller.signal }),
    ).rejects.toMatchObject({
      kind: "aborted",
    });
    expect(seen).toEqual([0]);
    decoder.close();
  });
});

describe("learned positions", () => {
  it("end where the table does, whole and through the cache", async () => {
    const { decoder } = await open("opt-pre-norm"); // 64 positions
    const tokens = (count: number) => [new Int32Array(count).fill(5)];
    await run(() => decoder.logits(tokens(64)));
    await expect(run(() => decoder.logits(tokens(65)))).rejects.toThrow("64 positions");
    const cache = decoder.createCache({ capacity: 4 });
    await run(() => decoder.step(tokens(60), cache));
    await expect(run(() => decoder.step(tokens(5), cache))).rejects.toMatchObject({ kind: "usage" });
    expect(cache.length).toBe(60);
    disposeCache(cache);
    decoder.close();
  });
});

describe("quantized activations", () => {
  const logitsOf = async (fixture: string, activations?: ActivationScheme) => {
    const { decoder, tokens } = await open(fixture, { activations });
    const whole = await engine.scope(async () => engine.read(await decoder.logits([tokens[0]])));
    const cache = decoder.createCache({ capacity: 2 });
    const steps: number[] = [];
    for (const token of tokens[0]) {
      steps.push(...(await engine.scope(async () => engine.read(await decoder.step([[token]], cache)))));
    }
    disposeCache(cache);
    decoder.close();
    return { whole, steps: Float32Array.from(steps) };
  };
  const distance = (a: Float32Array, b: Float32Array): number =>
    Math.hypot(...a.map((value, at) => value - b[at])) / Math.hypot(...b);

  it.each(["llama-gqa-llama3-tied", "opt-pre-norm", "falcon-7b"])(
    "move the logits of %s the less, the more bits",
    async (fixture) => {
      const { whole: exact } = await logitsOf(fixture);
      const distances: number[] = [];
      for (const bits of [2, 4, 8]) {
        distances.push(
          distance((await logitsOf(fixture, { input: bits, query: bits, key: bits, value: bits })).whole, exact),
        );
      }
      expect(distances[0]).toBeGreaterThan(distances[1]);
      expect(distances[1]).toBeGreaterThan(distances[2]);
      expect(distances[2]).toBeGreaterThan(1e-4);
      expect(distances[2]).toBeLessThan(0.1);
    },
  );

  it("go through the cache as they go whole: what is cached was quantized", async () => {
    for (const fixture of ["llama-gqa-llama3-tied", "falcon-7b"]) {
      for (const activations of [{ key: 3 }, { value: 3 }, { input: 8, key: 4, value: 4, symmetric: true }]) {
        const { whole, steps } = await logitsOf(fixture, activations);
        expect(distance(steps, whole)).toBeLessThan(FAMILY_LOGITS);
      }
    }
  });
});
