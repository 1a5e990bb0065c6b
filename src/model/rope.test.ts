import { describe, expect, it } from "vitest";
import { fixtureConfig } from "../../test/golden/families/fixtures.js";
import { createReferenceEngine } from "../engine/reference/index.js";
import { alibiSlopes, createRopeTables, rotaryFrequencies } from "./rope.js";

describe("rotaryFrequencies", () => {
  const size = 16;
  const plain = rotaryFrequencies({ theta: 10000, scaling: { kind: "none" } }, size);

  it("falls geometrically from 1", () => {
    expect(plain).toHaveLength(8);
    expect(plain[0]).toBe(1);
    for (let pair = 1; pair < 8; pair++) expect(plain[pair] / plain[pair - 1]).toBeCloseTo(10000 ** (-1 / 8), 12);
  });

  it("divides all by the factor of linear scaling", () => {
    const scaled = rotaryFrequencies({ theta: 10000, scaling: { kind: "linear", factor: 4 } }, size);
    expect([...scaled]).toEqual([...plain].map((frequency) => frequency / 4));
  });

  it("keeps short waves, stretches long ones and ramps between for llama3", () => {
    const scaling = { kind: "llama3", factor: 8, lowFrequency: 1, highFrequency: 4, originalContext: 32 } as const;
    const scaled = rotaryFrequencies({ theta: 10000, scaling }, size);
    const ratio = [...scaled].map((frequency, pair) => frequency / plain[pair]);
    expect(ratio[0]).toBe(1); // 5.09 turns in 32 positions
    const kept = ((32 * plain[1]) / (2 * Math.PI) - 1) / 3; // 1.61 turns
    expect(ratio[1]).toBeCloseTo(kept + (1 - kept) / 8, 12);
    for (const long of ratio.slice(2)) expect(long).toBeCloseTo(1 / 8, 12); // 0.51 turns and fewer
  });
});

describe("createRopeTables", () => {
  it("holds the cosine and sine of position times frequency", async () => {
    const engine = createReferenceEngine();
    const config = fixtureConfig("llama-linear-bias");
    await engine.scope(async () => {
      const { cos, sin } = createRopeTables(engine, config, 5);
      expect(cos.shape).toEqual([5, 8]);
      const cosines = await engine.read(cos);
      const sines = await engine.read(sin);
      const angle = (3 * 500 ** (-4 / 16)) / 4; // position 3, pair 2, factor 4
      expect(cosines[3 * 8 + 2]).toBe(Math.fround(Math.cos(angle)));
      expect(sines[3 * 8 + 2]).toBe(Math.fround(Math.sin(angle)));
    });
    expect(engine.liveBytes()).toBe(0);
    await engine.close();
  });
});

describe("alibiSlopes", () => {
  it("are a geometric sequence, interleaved with the next one where heads are no power of two", () => {
    expect([...alibiSlopes(8)]).toEqual([1, 2, 3, 4, 5, 6, 7, 8].map((head) => 2 ** -head));
    expect([...alibiSlopes(6)]).toEqual([2 ** -2, 2 ** -4, 2 ** -6, 2 ** -8, 2 ** -1, 2 ** -3]);
    // rounded to bf16 as transformers has them: 2^-0.5 = 0.70710..
    expect(alibiSlopes(16)[0]).toBe(0.70703125);
  });
});
