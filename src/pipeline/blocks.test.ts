import { afterEach, describe, expect, it } from "vitest";
import { FIXTURES, fixtureConfig, fixtureWeights } from "../../test/golden/families/fixtures.js";
import { F16_STREAM } from "../../test/tolerances.js";
import { createReferenceEngine } from "../engine/reference/index.js";
import { createRandom } from "../random.js";
import { ActivationBudget } from "./activations.js";
import { modelBlocks } from "./block-source.js";
import { type BlockLoopOptions, runBlocks } from "./blocks.js";

const engine = createReferenceEngine();
afterEach(() => expect(engine.liveBytes()).toBe(0));

/** E[x x^T] of every linear's input, by block and slot, when nothing is quantized. */
async function hessians(fixture: string, loop: Pick<BlockLoopOptions, "propagate" | "correctionWindows">) {
  const config = fixtureConfig(fixture);
  const random = createRandom(9);
  const windows = Array.from({ length: 3 }, () =>
    Int32Array.from({ length: 11 }, () => random.integer(config.vocabulary)),
  );
  const source = modelBlocks(engine, config, fixtureWeights(fixture), windows);
  const found = new Map<string, Float32Array>();
  try {
    await runBlocks(
      source,
      {
        needsStatistics: () => true,
        async quantizeStage(block, slots, _weights, statistics) {
          if (!statistics) throw new Error("no statistics");
          for (const slot of slots) found.set(`${block} ${slot}`, await engine.read(statistics.hessian));
          if (statistics.correction) {
            const values = await engine.read(statistics.correction);
            for (const slot of slots) found.set(`correction ${block} ${slot}`, values);
          }
          return {};
        },
        onBlock: () => {},
        onWindow: () => {},
      },
      { engine, windows: windows.length, budget: new ActivationBudget(Number.POSITIVE_INFINITY), ...loop },
    );
  } finally {
    source.close();
  }
  return found;
}

describe("runBlocks", () => {
  // the full-precision pass runs each block at once; the other one stage by stage, through the stores
  it.each(FIXTURES)(
    "carries %s from stage to stage: both streams measure the same where nothing is quantized",
    async (fixture) => {
      const once = await hessians(fixture, { propagate: "full", correctionWindows: 0 });
      const staged = await hessians(fixture, { propagate: "quantized", correctionWindows: 2 });
      for (const [name, expected] of once) {
        const got = staged.get(name);
        const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
        const worst = expected.reduce(
          (most, value, at) => Math.max(most, Math.abs(value - (got?.[at] ?? Number.NaN))),
          0,
        );
        expect(worst / largest, name).toBeLessThan(F16_STREAM);
        const correction = staged.get(`correction ${name}`) ?? new Float32Array(1);
        expect(Math.max(...correction.map(Math.abs)) / largest, name).toBe(0);
      }
      expect(staged.size).toBeGreaterThan(once.size);
    },
  );
});

describe("modelBlocks", () => {
  it.each(FIXTURES)("embeds windows of %s in the engine's own memory, too, where it has some", async (fixture) => {
    const config = fixtureConfig(fixture);
    const windows = [Int32Array.of(1, 2, 3, 1), Int32Array.of(0, config.vocabulary - 1, 5, 4)];
    const embedded = async (room: number) => {
      const own = Object.assign(createReferenceEngine(), { roomBytes: () => room });
      const uploads: string[] = [];
      const { upload } = own;
      own.upload = (data, shape, dtype) => {
        uploads.push(`${shape}`);
        return upload.call(own, data, shape, dtype) as never;
      };
      const source = modelBlocks(own, config, fixtureWeights(fixture), windows);
      const hidden: number[][] = [];
      for (const [window] of windows.entries()) {
        await own.scope(async () => {
          hidden.push([...(await own.read(await source.embed(window)))]);
        });
      }
      expect(own.liveBytes()).toBe(0); // the last window is not followed by another
      await own.scope(async () => void (await source.embed(0)));
      source.close(); // whatever is not done
      expect(own.liveBytes()).toBe(0);
      return { hidden, table: uploads.includes(`${[config.vocabulary, config.embeddingWidth]}`) };
    };
    const bytes = 4 * config.vocabulary * config.embeddingWidth;
    const { hidden } = await embedded(0);
    expect(await embedded(4 * bytes)).toEqual({ hidden, table: true });
    expect(await embedded(4 * bytes - 1)).toEqual({ hidden, table: false });
  });
});
