import { describe, expect, it } from "vitest";
import { onHost, wasmEngines } from "../../../test/wasm-engines.js";
import { createRandom } from "../../random.js";
import type { Engine } from "../engine.js";

const { engines, reference } = wasmEngines();

/** Normal numbers; with `grid`, multiples of 1 / grid, so that many distances are equal. */
function numbers(size: number, grid: number, ...seed: (number | string)[]): Float32Array {
  const random = createRandom(1, ...seed);
  return Float32Array.from({ length: size }, () => {
    const x = random.normal();
    return grid > 0 ? Math.round(x * grid) / grid : x;
  });
}

interface Search {
  x: Float32Array;
  codebook: Float32Array;
  v: number;
  previous?: Int32Array;
}

const search = (engine: Engine, { x, codebook, v, previous }: Search) =>
  onHost(engine, () =>
    engine.nearestCodeword(
      engine.upload(x, [x.length / v, v], "f32"),
      engine.upload(codebook, [codebook.length / v, v], "f32"),
      previous && engine.upload(previous, [previous.length], "i32"),
    ),
  );

describe("nearestCodeword", () => {
  for (const v of [1, 2, 3, 4, 5, 6, 7, 8, 9, 12])
    for (const [n, codewords] of [
      [1, 1],
      [7, 3],
      [9, 8],
      [300, 9],
      [523, 61],
    ])
      for (const grid of [0, 2])
        it(`${n} x ${v} into ${codewords}${grid ? ", with ties" : ""}`, async () => {
          const x = numbers(n * v, grid, "x");
          const codebook = numbers(codewords * v, grid, "c");
          const expected = await search(reference, { x, codebook, v });
          for (const engine of engines) expect(await search(engine, { x, codebook, v })).toEqual(expected);
        });

  for (const [v, codewords] of [
    [2, 320],
    [3, 201],
    [4, 152],
    [6, 131],
    [8, 140],
    [9, 300],
  ])
    for (const grid of [0, 2])
      it(`finds the same from any guess: v = ${v}, C = ${codewords}${grid ? ", with ties" : ""}`, async () => {
        const n = 5 * codewords + 3;
        const x = numbers(n * v, grid, "x");
        const codebook = numbers(codewords * v, grid, "c");
        codebook.copyWithin(v, 0, 2 * v); // equal codewords
        const expected = await search(reference, { x, codebook, v });
        const random = createRandom(3);
        const guesses = [
          Int32Array.from(expected.indices),
          Int32Array.from({ length: n }, () => random.integer(codewords)),
          new Int32Array(n).fill(5), // one guess for all: batches
          Int32Array.from(expected.indices, (index, i) => (i % 7 === 0 ? -1 : i % 11 === 0 ? codewords + 9 : index)),
        ];
        for (const previous of guesses)
          for (const engine of engines) expect(await search(engine, { x, codebook, v, previous })).toEqual(expected);
      });

  it("chooses as the reference where numbers are not finite", async () => {
    const v = 4;
    const codewords = 160;
    const n = 4 * codewords;
    const x = numbers(n * v, 0, "x");
    x.set([Number.NaN, Number.POSITIVE_INFINITY, 1e30, -3e38], 40);
    x.set([Number.NEGATIVE_INFINITY, 0, 1e25, 3e38, 1e-30, -1e-42, 1e-22, 0], 80);
    const codebook = numbers(codewords * v, 0, "c");
    codebook.set([Number.NaN, 1, 2, 3], 0);
    codebook.set([Number.POSITIVE_INFINITY, 1, 2, 3], 12);
    codebook.set([1e-30, 1e-30, 1e-22, 0, -1e-22, 1e-30, 1e-22, 0], 20);
    const expected = await search(reference, { x, codebook, v });
    const previous = Int32Array.from({ length: n }, (_, i) => i % codewords);
    for (const engine of engines) {
      expect(await search(engine, { x, codebook, v })).toEqual(expected);
      expect(await search(engine, { x, codebook, v, previous })).toEqual(expected);
    }
  });

  it("takes empty vectors and vectors of no elements", async () => {
    for (const engine of engines) {
      expect(await search(engine, { x: new Float32Array(0), codebook: numbers(8, 0), v: 4 })).toEqual({
        indices: [],
        distances: [],
      });
      const nothing = await onHost(engine, () =>
        engine.nearestCodeword(engine.create([3, 0]), engine.create([2, 0]), engine.create([3], "i32")),
      );
      expect(nothing).toEqual({ indices: [0, 0, 0], distances: [0, 0, 0] });
      expect(engine.liveBytes()).toBe(0);
    }
  });
});

describe("segmentSum", () => {
  const sum = (engine: Engine, n: number, v: number, segments: number) => {
    const random = createRandom(5, n, v);
    const x = numbers(n * v, 0, n, v);
    const weights = Float32Array.from({ length: n }, () => Math.exp(random.normal()));
    const indices = Int32Array.from({ length: n }, () => random.integer(segments));
    return onHost(engine, () =>
      engine.segmentSum(
        engine.upload(x, [n, v], "f32"),
        engine.upload(weights, [n], "f32"),
        engine.upload(indices, [n], "i32"),
        segments,
      ),
    );
  };
  for (const [n, v, segments] of [
    [0, 4, 3],
    [5, 1, 7],
    [1000, 4, 16],
    [1001, 3, 5],
    [50_021, 2, 64],
    [3000, 8, 2000],
  ])
    it(`${n} x ${v} into ${segments}: the reference's f64 sums to their last rounding, equal bytes for every thread count`, async () => {
      const expected = await sum(reference, n, v, segments);
      const first = await sum(engines[0], n, v, segments);
      for (const name of ["sums", "totals"] as const) {
        expect(first[name].length).toBe(expected[name].length);
        // sums of f64 rounding errors, n 2^-53 times the largest partial sum, plus one step of f32
        for (const [i, value] of expected[name].entries())
          expect(Math.abs(first[name][i] - value)).toBeLessThanOrEqual(2 ** -23 * Math.abs(value) + n * 2 ** -53 * 100);
      }
      for (const engine of engines.slice(1)) expect(await sum(engine, n, v, segments)).toEqual(first);
    });

  it("refuses an index outside", () => {
    const [engine] = engines;
    engine.scope(() => {
      const indices = engine.upload(Int32Array.of(0, 3), [2], "i32");
      expect(() => engine.segmentSum(engine.create([2, 4]), engine.create([2]), indices, 3)).toThrow(/got 3 at 1/);
    });
  });
});
