import { describe, expect, it } from "vitest";
import { NOT_RAISED } from "../../../test/tolerances.js";
import type { Engine } from "../../engine/engine.js";
import { createReferenceEngine } from "../../engine/reference/index.js";
import { createRandom } from "../../random.js";
import { trainCodebook } from "./codebook.js";
import { exchangeCodewords } from "./exchange.js";
import { kmeans } from "./kmeans.js";
import { seedCentroids } from "./seeding.js";

const engine = createReferenceEngine();

/** Vectors [n, v] with weights [n], a few of them 0. */
function cloud(count: number, length: number, seed: number, own: Engine = engine) {
  const random = createRandom(seed, "cloud");
  const vectors = Float32Array.from({ length: count * length }, () => random.normal() + 3 * random.integer(3));
  const weights = Float32Array.from({ length: count }, (_, i) => (i % 17 === 0 ? 0 : random.next()));
  return {
    vectors: own.upload(vectors, [count, length], "f32"),
    weights: own.upload(weights, [count], "f32"),
  };
}

describe("kmeans", () => {
  it.each([0, 1, 2, 3])("never raises its objective, empty clusters or not (seed %d)", async (seed) => {
    await engine.scope(async () => {
      const { vectors, weights } = cloud(300, 3, seed);
      // a start with equal and far-off centroids: most clusters are empty at first
      const start = new Float32Array(24 * 3);
      start.fill(1e3, 36);
      const initial = engine.upload(start, [24, 3], "f32");
      let last = Number.POSITIVE_INFINITY;
      let repaired = 0;
      for (let iterations = 1; iterations < 30; iterations++) {
        const result = await kmeans(engine, vectors, weights, 24, { iterations, initial, random: createRandom(0) });
        expect(result.objective).toBeLessThanOrEqual(last * (1 + NOT_RAISED));
        last = result.objective;
        repaired = result.repaired;
      }
      expect(repaired).toBeGreaterThan(10);
    });
  });

  it("serves every vector exactly with as many codewords as there are distinct vectors", async () => {
    await engine.scope(async () => {
      const points = Float32Array.from({ length: 40 * 2 }, (_, i) => Math.floor(i / 2) % 8);
      const vectors = engine.upload(points, [40, 2], "f32");
      const weights = engine.upload(new Float32Array(40).fill(1), [40], "f32");
      for (const codewords of [8, 16]) {
        const { objective, centroids } = await kmeans(engine, vectors, weights, codewords, {
          iterations: 50,
          random: createRandom(4),
        });
        expect(objective).toBe(0);
        expect(await engine.allFinite(centroids)).toBe(true);
      }
    });
  });

  it("gives a codeword to the heavier vectors", async () => {
    await engine.scope(async () => {
      const vectors = engine.upload(Float32Array.of(0, 1, 10, 11), [4, 1], "f32");
      const centresFor = async (weights: number[]) => {
        const factors = engine.upload(Float32Array.from(weights), [4], "f32");
        const initial = engine.upload(Float32Array.of(0, 10), [2, 1], "f32");
        const options = { iterations: 10, initial, random: createRandom(0) };
        return Array.from(await engine.read((await kmeans(engine, vectors, factors, 2, options)).centroids));
      };
      expect(await centresFor([1, 1, 1, 1])).toEqual([0.5, 10.5]);
      expect(await centresFor([3, 1, 1, 0])).toEqual([0.25, 10]);
    });
  });

  it("ignores what the guess says", async () => {
    await engine.scope(async () => {
      const { vectors, weights } = cloud(200, 2, 7);
      const initial = await seedCentroids(engine, vectors, weights, 8, createRandom(1));
      const guess = engine.upload(
        Int32Array.from({ length: 200 }, (_, i) => i % 8),
        [200],
        "i32",
      );
      const run = async (hint: typeof guess | undefined) =>
        engine.read(
          (
            await kmeans(engine, vectors, weights, 8, {
              iterations: 20,
              initial,
              guess: hint,
              random: createRandom(1),
            })
          ).centroids,
        );
      expect(await run(guess)).toEqual(await run(undefined));
      expect(guess.disposed).toBe(false);
    });
  });

  it.each([0, 1, 2])("finds the same on a machine that is given work ahead (seed %d)", async (seed) => {
    const ahead = Object.assign(createReferenceEngine(), { runsAhead: true });
    const run = async (own: Engine) => {
      const { vectors, weights } = cloud(300, 3, seed, own);
      const start = new Float32Array(24 * 3);
      start.fill(1e3, 36); // empty clusters at first
      const initial = seed < 2 ? own.upload(start, [24, 3], "f32") : undefined;
      const random = createRandom(seed);
      const before = own.liveBytes();
      const found = await kmeans(own, vectors, weights, 24, {
        iterations: 40,
        tolerance: 0.01 * seed,
        initial,
        random,
      });
      const { centroids, indices, distances, ...numbers } = found;
      const tensors = [await own.read(centroids), await own.read(indices), await own.read(distances)];
      for (const tensor of [centroids, indices, distances]) tensor.dispose();
      expect(own.liveBytes()).toBe(before);
      return { tensors, numbers };
    };
    expect(await run(ahead)).toEqual(await run(engine));
    await ahead.close();
  });

  it("refuses more codewords than vectors", async () => {
    const { vectors, weights } = cloud(5, 2, 0);
    const run = kmeans(engine, vectors, weights, 6, { iterations: 1, random: createRandom(0) });
    await expect(run).rejects.toMatchObject({ kind: "usage" });
  });

  it("stops when it is told to", async () => {
    const { vectors, weights } = cloud(50, 2, 0);
    const controller = new AbortController();
    controller.abort();
    const run = kmeans(engine, vectors, weights, 4, {
      iterations: 9,
      random: createRandom(0),
      signal: controller.signal,
    });
    await expect(run).rejects.toMatchObject({ kind: "aborted" });
  });
});

describe("seedCentroids", () => {
  it("draws vectors that have weight, each at most once", async () => {
    await engine.scope(async () => {
      const { vectors, weights } = cloud(120, 3, 2);
      const values = await engine.read(vectors);
      const factors = await engine.read(weights);
      const seeds = await engine.read(await seedCentroids(engine, vectors, weights, 64, createRandom(3)));
      const rowsOf = (from: Float32Array) =>
        Array.from({ length: from.length / 3 }, (_, i) => from.subarray(i * 3, i * 3 + 3).join());
      const heavy = new Set(rowsOf(values).filter((_, i) => factors[i] > 0));
      const drawn = rowsOf(seeds);
      expect(new Set(drawn).size).toBe(64);
      for (const seed of drawn) expect(heavy).toContain(seed);
    });
  });

  it("serves clusters that are far apart from the start", async () => {
    await engine.scope(async () => {
      const points = Float32Array.from({ length: 600 }, (_, i) => 100 * (i % 12) + Math.sin(i));
      const vectors = engine.upload(points, [600, 1], "f32");
      const weights = engine.upload(new Float32Array(600).fill(1), [600], "f32");
      const seeds = await engine.read(await seedCentroids(engine, vectors, weights, 12, createRandom(5)));
      expect(Array.from(seeds, (value) => Math.round(value / 100)).sort((a, b) => a - b)).toEqual(
        Array.from({ length: 12 }, (_, i) => i),
      );
    });
  });
});

describe("exchangeCodewords", () => {
  it("leaves a local minimum that Lloyd cannot leave", async () => {
    await engine.scope(async () => {
      // four tight clusters, three of the centroids in one of them
      const points = Float32Array.from({ length: 400 }, (_, i) => 50 * (i % 4) + 0.5 * Math.sin(7 * i));
      const vectors = engine.upload(points, [400, 1], "f32");
      const weights = engine.upload(new Float32Array(400).fill(1), [400], "f32");
      const start = [0, -0.3, 0.3, 100].flatMap((c) => [c, c + 1e-3, c + 2e-3, c - 1e-3]);
      const initial = engine.upload(Float32Array.from(start), [16, 1], "f32");
      const random = createRandom(2);
      const stuck = await kmeans(engine, vectors, weights, 16, { iterations: 100, initial, random });
      const freed = await exchangeCodewords(engine, vectors, weights, stuck, random);
      expect(freed.objective).toBeLessThan(0.2 * stuck.objective);
    });
  });

  it("never raises the objective, and keeps its books", async () => {
    const own = createReferenceEngine();
    await own.scope(async () => {
      const random = createRandom(9);
      const points = Float32Array.from({ length: 900 }, () => random.normal());
      const vectors = own.upload(points, [300, 3], "f32");
      const weights = own.upload(new Float32Array(300).fill(1), [300], "f32");
      const start = await kmeans(own, vectors, weights, 32, { iterations: 50, random });
      const before = own.liveBytes();
      await own.scope(async () => {
        const result = await exchangeCodewords(own, vectors, weights, start, random);
        expect(result.objective).toBeLessThanOrEqual(start.objective);
        const { distances } = own.nearestCodeword(vectors, result.centroids);
        expect(await own.dot(weights, distances)).toBeCloseTo(result.objective, 6);
      });
      expect(own.liveBytes()).toBe(before);
      expect(start.centroids.disposed).toBe(false);
    });
  });
});

describe("trainCodebook", () => {
  it("gives the same bytes for the same seed, and others for another", async () => {
    await engine.scope(async () => {
      const { vectors, weights } = cloud(500, 2, 3);
      const train = async (seed: number) =>
        engine.read(
          await trainCodebook(engine, vectors, weights, 16, { iterations: 20, random: createRandom(seed, "name") }),
        );
      expect(await train(1)).toEqual(await train(1));
      expect(await train(2)).not.toEqual(await train(1));
    });
  });
});
