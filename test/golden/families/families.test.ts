import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Engine } from "../../../src/engine/engine.js";
import { BitwrightError } from "../../../src/errors.js";
import { disposeCache } from "../../../src/model/cache.js";
import { type Decoder, openDecoder } from "../../../src/model/decoder.js";
import { FAMILIES } from "../../../src/model/families/index.js";
import { createEngine, type EngineChoice } from "../../../src/node/engines.js";
import type { F32 } from "../../../src/tensor/index.js";
import { FAMILY_LOGITS } from "../../tolerances.js";
import { expectedLogits, FIXTURES, fixtureConfig, fixtureWeights } from "./fixtures.js";

// Logits of every family against Hugging Face transformers, on every engine: whole, in chunks, and token by token.

/** The blas engine counts where the machine has a library. */
const available = async (choice: EngineChoice): Promise<EngineChoice[]> => {
  try {
    await (await createEngine(choice, { threads: 1 })).engine.close();
    return [choice];
  } catch (error) {
    if (error instanceof BitwrightError && error.kind === "unsupported") return [];
    throw error;
  }
};
const ENGINES: EngineChoice[] = ["reference", "wasm", ...(await available("blas"))];

it("has a fixture for every family", () => {
  const covered = new Set(FIXTURES.map((fixture) => fixtureConfig(fixture).family));
  expect([...covered].sort()).toEqual(FAMILIES.map(({ modelType }) => modelType).sort());
});

describe.each(ENGINES)("logits on the %s engine", (choice) => {
  let engine: Engine;
  beforeAll(async () => {
    engine = (await createEngine(choice, { threads: 2 })).engine;
  });
  afterAll(async () => {
    expect(engine.liveBytes()).toBe(0);
    await engine.close();
  });

  describe.each(FIXTURES)("%s", (fixture) => {
    const config = fixtureConfig(fixture);
    const { tokens, shape, logits } = expectedLogits(fixture);
    const [batch, length, vocabulary] = shape;
    const largest = logits.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

    /** Compares logits [rows, T', V] with positions begin .. begin + T' - 1 of the given rows. */
    const expectClose = async (got: F32, rows: number[], begin: number) => {
      const [gotRows, gotLength] = got.shape;
      expect([gotRows, got.shape[2]]).toEqual([rows.length, vocabulary]);
      const values = await engine.read(got);
      let worst = 0;
      for (const [index, row] of rows.entries()) {
        const offset = (row * length + begin) * vocabulary;
        for (let i = 0; i < gotLength * vocabulary; i++) {
          const difference = Math.abs(values[index * gotLength * vocabulary + i] - logits[offset + i]);
          if (!(difference <= worst)) worst = difference; // NaN counts
        }
      }
      expect(worst / largest).toBeLessThanOrEqual(FAMILY_LOGITS);
    };
    const withDecoder = async (body: (decoder: Decoder) => Promise<void>, weightBudget?: number) => {
      const decoder = await openDecoder(engine, config, fixtureWeights(fixture), { weightBudget });
      try {
        await engine.scope(() => body(decoder));
      } finally {
        decoder.close();
      }
    };
    /** Feeds the tokens in chunks through a cache that is too small at first. */
    const inChunks = (decoder: Decoder, rows: number[], chunks: number[], capacity: number) =>
      engine.scope(async () => {
        const cache = decoder.createCache({ batch: rows.length, capacity });
        try {
          let begin = 0;
          for (const chunk of chunks) {
            const part = rows.map((row) => tokens[row].slice(begin, begin + chunk));
            await engine.scope(async () => expectClose(await decoder.step(part, cache), rows, begin));
            begin += chunk;
          }
          expect(cache.length).toBe(begin);
        } finally {
          disposeCache(cache);
        }
      });

    it("whole, in a batch and row by row", () =>
      withDecoder(async (decoder) => {
        await expectClose(await decoder.logits(tokens), [0, 1], 0);
        for (let row = 0; row < batch; row++) await expectClose(await decoder.logits([tokens[row]]), [row], 0);
      }));

    it("token by token through the cache", () =>
      withDecoder((decoder) => inChunks(decoder, [1], new Array(length).fill(1), 4)));

    it("in chunks through the cache, in a batch", () =>
      withDecoder((decoder) => inChunks(decoder, [0, 1], [3, 1, 5, length - 9], 2)));

    it("with weights that are read again when they are needed", () =>
      withDecoder(async (decoder) => {
        await expectClose(await decoder.logits(tokens), [0, 1], 0);
        await inChunks(decoder, [0], [length - 2, 1, 1], length);
      }, 0));

    it("over windows of several lengths", () =>
      withDecoder(async (decoder) => {
        const windows = [tokens[0], tokens[1].slice(0, 7), tokens[1]].map((window) => Int32Array.from(window));
        const seen: number[] = [];
        await decoder.runWindows(windows, async (window, hidden) => {
          seen.push(window);
          await expectClose(await decoder.head(hidden), [window === 0 ? 0 : 1], 0);
        });
        expect(seen).toEqual([0, 1, 2]);
      }, 0));
  });
});
