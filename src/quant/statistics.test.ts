import { describe, expect, it } from "vitest";
import { createReferenceEngine } from "../engine/reference/index.js";
import { createRandom } from "../random.js";
import { accumulate, createStatistics, finishStatistics, shortfallOf } from "./statistics.js";

const engine = createReferenceEngine();
const inputs = (tokens: number, columns: number, seed: number) => {
  const random = createRandom(seed);
  return engine.upload(
    Float32Array.from({ length: tokens * columns }, () => random.normal()),
    [1, tokens, columns],
    "f32",
  );
};

describe("statistics", () => {
  it("have no correction where both streams are the same, and a symmetric Hessian", async () => {
    const before = engine.liveBytes();
    await engine.scope(async () => {
      const accumulator = createStatistics(engine, 5, true);
      const x = inputs(7, 5, 1);
      accumulate(engine, accumulator, x, shortfallOf(engine, x, x));
      const { hessian, correction, tokens } = await finishStatistics(engine, accumulator, "here");
      expect(tokens).toBe(7);
      expect(Array.from(await engine.read(correction ?? hessian))).toEqual(new Array(25).fill(0));
      expect(await engine.read(engine.transpose(hessian))).toEqual(await engine.read(hessian));
    });
    expect(engine.liveBytes()).toBe(before);
  });

  it("outlive the scope in which they were created", async () => {
    await engine.scope(async () => {
      const accumulator = engine.scope(() => createStatistics(engine, 3, false));
      engine.scope(() => accumulate(engine, accumulator, inputs(4, 3, 2)));
      const { hessian } = await finishStatistics(engine, accumulator, "here");
      expect(hessian.disposed).toBe(false);
      expect(accumulator.hessian.disposed).toBe(true);
    });
  });

  it("refuse what does not fit", async () => {
    await engine.scope(async () => {
      const accumulator = createStatistics(engine, 4, true);
      expect(() => accumulate(engine, accumulator, inputs(2, 3, 1))).toThrow(/expected inputs \[\.\., 4\]/);
      expect(() => shortfallOf(engine, inputs(2, 4, 1), inputs(3, 4, 1))).toThrow(/full-precision inputs/);
      await expect(finishStatistics(engine, accumulator, "block 3")).rejects.toMatchObject({ kind: "usage" });
    });
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY])("name where activations hold %d", async (value) => {
    await engine.scope(async () => {
      const accumulator = createStatistics(engine, 2, false);
      accumulate(engine, accumulator, engine.upload(Float32Array.of(1, value), [1, 2], "f32"));
      await expect(finishStatistics(engine, accumulator, "block 3, inputs of query")).rejects.toMatchObject({
        kind: "numeric",
        message: expect.stringContaining("block 3, inputs of query"),
      });
    });
  });
});
