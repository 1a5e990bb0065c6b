import { describe, expect, it } from "vitest";
import { createSampler } from "./sampler.js";

const logits = Float32Array.from([0.5, 0.1, 0.3, 0.06, 0.04], Math.log);

function frequencies(options: Parameters<typeof createSampler>[0], draws = 20_000): number[] {
  const sample = createSampler(options);
  const counts = [0, 0, 0, 0, 0];
  for (let i = 0; i < draws; i++) counts[sample(logits)]++;
  return counts.map((count) => count / draws);
}

describe("createSampler", () => {
  it("is greedy at temperature 0, and takes the first of equals", () => {
    expect(createSampler()(Float32Array.of(1, 3, 3, 2))).toBe(1);
    expect(createSampler({ temperature: 0, seed: 9 })(logits)).toBe(0);
  });

  it("draws with the probabilities of the softmax", () => {
    // 4 standard deviations of a share of 0.5 in 20,000 draws are 0.014
    frequencies({ temperature: 1 }).forEach((share, token) => {
      expect(Math.abs(share - Math.exp(logits[token]))).toBeLessThan(0.015);
    });
  });

  it("sharpens and flattens by the temperature", () => {
    const squares = [0.25, 0.01, 0.09, 0.0036, 0.0016];
    const total = squares.reduce((a, b) => a + b);
    frequencies({ temperature: 0.5 }).forEach((share, token) => {
      expect(Math.abs(share - squares[token] / total)).toBeLessThan(0.015);
    });
  });

  it("keeps the likeliest tokens up to top-p", () => {
    const shares = frequencies({ temperature: 1, topP: 0.75 });
    expect(shares[0]).toBeCloseTo(0.5 / 0.8, 1);
    expect(shares[2]).toBeCloseTo(0.3 / 0.8, 1);
    expect([shares[1], shares[3], shares[4]]).toEqual([0, 0, 0]);
    expect(frequencies({ temperature: 1, topP: 1e-9 }, 10)[0]).toBe(1);
  });

  it("repeats with the seed", () => {
    const run = (seed: number) => {
      const sample = createSampler({ temperature: 1, seed });
      return Array.from({ length: 30 }, () => sample(logits));
    };
    expect(run(1)).toEqual(run(1));
    expect(run(1)).not.toEqual(run(2));
  });

  it("never draws a token whose probability is 0", () => {
    const sample = createSampler({ temperature: 1 });
    for (let i = 0; i < 100; i++) expect(sample(Float32Array.of(-Infinity, 0, -Infinity))).toBe(1);
  });

  it("refuses numbers out of range", () => {
    expect(() => createSampler({ temperature: -1 })).toThrow(/temperature/);
    expect(() => createSampler({ temperature: Number.NaN })).toThrow(/temperature/);
    expect(() => createSampler({ topP: 0 })).toThrow(/top-p/);
    expect(() => createSampler({ topP: 1.1 })).toThrow(/top-p/);
  });
});
