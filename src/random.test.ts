import { describe, expect, it } from "vitest";
import { createRandom, shuffled } from "./random.js";

const draw = (count: number, ...seed: Parameters<typeof createRandom>): number[] => {
  const random = createRandom(...seed);
  return Array.from({ length: count }, () => random.next());
};

describe("createRandom", () => {
  // an independent implementation (Python integers), itself checked against the published sequence from state 1, 2, 3, 4
  it("gives the sequence of xoshiro128**, seeded by splitmix32", () => {
    expect(draw(4, 0)).toEqual([0.8868539502021594, 0.012474988946590604, 0.032522145755498943, 0.024408060085556516]);
    expect(draw(4, 1)).toEqual([0.5686059948349658, 0.8893939367683266, 0.4705824180198359, 0.35296769838967534]);
    expect(draw(2, 4294967295)).toEqual([0.19461841469507213, 0.5485967281391287]);
    expect(draw(3, 0, "model.layers.0.self_attn.q_proj", 3)).toEqual([
      0.8452878589974301, 0.9465555562107931, 0.6460072252958157,
    ]);
    expect(draw(2, 7, "größe")).toEqual([0.5910888896606799, 0.6639987999355285]);
    const random = createRandom(5, "integers");
    expect(Array.from({ length: 6 }, () => random.integer(1000))).toEqual([350, 990, 223, 372, 687, 627]);
  });

  it("repeats itself for the same seed and parts and for no others", () => {
    expect(draw(8, 3, "a", 1)).toEqual(draw(8, 3, "a", 1));
    const firsts = [[3], [4], [3, "a"], [3, "b"], [3, "a", 1], [3, "a", 2], [3, "ab"], [3, "a", "b"], [3, "a1"]].map(
      ([seed, ...parts]) => draw(1, Number(seed), ...parts)[0],
    );
    expect(new Set(firsts).size).toBe(firsts.length);
  });

  it("fills an array with the numbers that come one by one, and goes on behind them", () => {
    const [filled, single] = [createRandom(4, "x"), createRandom(4, "x")];
    for (const count of [0, 1, 70]) {
      const numbers = new Float64Array(80);
      filled.fill(numbers, count);
      const expected = Array.from(numbers, (_, i) => (i < count ? single.next() : 0));
      expect(Array.from(numbers)).toEqual(expected);
    }
    expect(filled.next()).toBe(single.next());
  });

  it("is uniform: chi-squared over 64 cells within its 99.9 % range", () => {
    for (const seed of [0, 1, 12345]) {
      const cells = new Array<number>(64).fill(0);
      const count = 64_000;
      for (const value of draw(count, seed)) cells[Math.floor(value * 64)]++;
      const chi = cells.reduce((sum, have) => sum + (have - 1000) ** 2 / 1000, 0);
      expect(chi).toBeGreaterThan(31); // 63 degrees of freedom
      expect(chi).toBeLessThan(108);
    }
  });

  it("draws neighbors that are independent", () => {
    const values = draw(50_000, 9);
    let sum = 0;
    for (let i = 1; i < values.length; i++) sum += (values[i] - 0.5) * (values[i - 1] - 0.5) * 12;
    expect(Math.abs(sum / values.length)).toBeLessThan(4 / Math.sqrt(values.length)); // 4 standard errors
  });

  it("draws integers in range, all of them", () => {
    const random = createRandom(2);
    const seen = new Array<number>(7).fill(0);
    for (let i = 0; i < 7000; i++) seen[random.integer(7)]++;
    expect(seen.length).toBe(7);
    expect(Math.min(...seen)).toBeGreaterThan(850);
  });

  it("draws standard normal numbers", () => {
    const random = createRandom(4, "normal");
    const count = 40_000;
    const moments = [0, 0, 0, 0];
    for (let i = 0; i < count; i++) {
      const value = random.normal();
      for (let power = 1; power <= 4; power++) moments[power - 1] += value ** power / count;
    }
    const error = 4 / Math.sqrt(count); // 4 standard errors, times the deviation of each power
    expect(Math.abs(moments[0])).toBeLessThan(error);
    expect(Math.abs(moments[1] - 1)).toBeLessThan(error * Math.sqrt(2));
    expect(Math.abs(moments[2])).toBeLessThan(error * Math.sqrt(15));
    expect(Math.abs(moments[3] - 3)).toBeLessThan(error * Math.sqrt(96));
  });
});

describe("shuffled", () => {
  it("is the Fisher-Yates permutation of its generator", () => {
    expect([...shuffled(12, createRandom(5, "shuffle"))]).toEqual([6, 9, 3, 10, 5, 2, 4, 1, 11, 0, 8, 7]);
  });

  it("is a permutation at any length", () => {
    for (const count of [0, 1, 2, 100])
      expect([...shuffled(count, createRandom(count))].sort((a, b) => a - b)).toEqual(
        Array.from({ length: count }, (_, i) => i),
      );
  });

  it("gives every order its share", () => {
    const random = createRandom(6);
    const orders = new Map<string, number>();
    for (let i = 0; i < 6000; i++) {
      const order = shuffled(3, random).join("");
      orders.set(order, (orders.get(order) ?? 0) + 1);
    }
    expect(orders.size).toBe(6);
    for (const count of orders.values()) expect(Math.abs(count - 1000)).toBeLessThan(4 * Math.sqrt(1000 * (5 / 6)));
  });
});
