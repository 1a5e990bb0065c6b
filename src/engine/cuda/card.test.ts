import { afterAll, describe, expect, it } from "vitest";
import { HALF_MATMUL } from "../../../test/tolerances.js";
import { createRandom } from "../../random.js";
import type { F32 } from "../../tensor/index.js";
import type { Engine, Precision } from "../engine.js";
import { createCudaEngine } from "./engine.js";

// What the conformance suite does not reach on a card: large searches on the tensor cores, products in lower precision.

const found = await createCudaEngine();

function normal(length: number, seed: string, factor: (index: number) => number = () => 1): Float32Array {
  const random = createRandom(0, seed);
  return Float32Array.from({ length }, (_, i) => factor(i) * random.normal());
}

if ("engine" in found) {
  const { engine } = found;
  afterAll(() => engine.close());

  describe("the search on the tensor cores chooses as the contract says", () => {
    const COUNT = 40_000;
    const CODEWORDS = 4_096; // above 2^27 pairs together, below it in quarters
    const searches: [string, number, (length: number, seed: string) => Float32Array][] = [
      ["normal, v 8", 8, (length, seed) => normal(length, seed)],
      ["normal, v 6", 6, (length, seed) => normal(length, seed)],
      ["normal, v 4", 4, (length, seed) => normal(length, seed)],
      ["normal, v 3", 3, (length, seed) => normal(length, seed)],
      ["normal, v 12", 12, (length, seed) => normal(length, seed)],
      ["whole numbers, nearly all ties", 8, (length, seed) => normal(length, seed).map((x) => Math.round(2 * x))],
      ["sizes from 1e-6 to 1", 8, (length, seed) => normal(length, seed, (i) => 10 ** -(Math.floor(i / 8) % 7))],
      ["huge", 8, (length, seed) => normal(length, seed, () => 1e17)],
      ["tiny", 8, (length, seed) => normal(length, seed, () => 1e-17)],
      ["all zero", 4, (length) => new Float32Array(length)],
      [
        "with NaN and infinity",
        4,
        (length, seed) => {
          const values = normal(length, seed);
          values[5] = Number.NaN;
          values[77] = Number.POSITIVE_INFINITY;
          return values;
        },
      ],
    ];
    it.each(searches)("%s", (_, v, make) =>
      engine.scope(async () => {
        const vectors = engine.upload(make(COUNT * v, "vectors"), [COUNT, v], "f32");
        const book = engine.upload(make(CODEWORDS * v, "book"), [CODEWORDS, v], "f32");
        const whole = engine.nearestCodeword(vectors, book);
        const [indices, distances] = [await engine.read(whole.indices), await engine.read(whole.distances)];
        for (let part = 0; part < 4; part++) {
          const count = COUNT / 4;
          const own = engine.nearestCodeword(engine.view(vectors, [count, v], part * count * v), book);
          const range = [part * count, (part + 1) * count] as const;
          expect(await engine.read(own.indices)).toEqual(indices.slice(...range));
          expect(await engine.read(own.distances)).toEqual(distances.slice(...range));
        }
      }),
    );
  });

  describe("products in lower precision", () => {
    const withPrecision = async (precision: Precision, body: (on: Engine) => Promise<void>) => {
      const made = await createCudaEngine({ precision });
      if ("reason" in made) throw new Error(made.reason);
      try {
        await made.engine.scope(() => body(made.engine));
      } finally {
        await made.engine.close();
      }
    };
    const [m, k, n] = [70, 130, 50];
    const [a, b] = [normal(m * k, "a"), normal(k * n, "b")];
    const product = async (on: Engine, left: F32, right: F32, exact = false) =>
      on.read(on.matmul(left, right, { exact }));
    const expected = engine.scope(() =>
      product(engine, engine.upload(a, [m, k], "f32"), engine.upload(b, [k, n], "f32")),
    );

    it.each(["tf32", "f16"] as const)("%s: close to f32, exact where asked for", (precision) =>
      withPrecision(precision, async (on) => {
        const [left, right] = [on.upload(a, [m, k], "f32"), on.upload(b, [k, n], "f32")];
        const [want, got] = [await expected, await product(on, left, right)];
        const largest = want.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
        const worst = got.reduce((most, x, i) => Math.max(most, Math.abs(x - want[i])), 0);
        expect(worst).toBeGreaterThan(0);
        expect(worst).toBeLessThan((HALF_MATMUL.ofLargest ?? 0) * largest);
        expect(await product(on, left, right, true)).toEqual(want);
        expect(await on.overflowed()).toBe(false);
      }),
    );

    it("converts a tensor again when its elements have changed", () =>
      withPrecision("f16", async (on) => {
        const [left, right] = [on.upload(a, [m, k], "f32"), on.upload(b, [k, n], "f32")];
        const first = await product(on, left, right);
        on.addInto(left, left, 1);
        expect(await product(on, left, right)).toEqual(first.map((x) => 2 * x));
        on.write(left, a);
        expect(await product(on, left, right)).toEqual(first);
        on.copyInto(left, on.scale(left, -1));
        expect(await product(on, left, right)).toEqual(first.map((x) => -x));
        const scratch = on.create([m, n]);
        on.matmul(left, right, { accumulate: scratch });
        const square = await product(on, scratch, on.transpose(scratch));
        on.matmul(left, right, { accumulate: scratch });
        const doubled = await product(on, scratch, on.transpose(scratch));
        expect(doubled).toEqual(square.map((x) => 4 * x));
      }));

    it("tells of operands that f16 cannot hold, once", () =>
      withPrecision("f16", async (on) => {
        const left = on.upload(a, [m, k], "f32");
        on.matmul(on.scale(left, 1e6), on.upload(b, [k, n], "f32"));
        expect(await on.overflowed()).toBe(true);
        expect(await on.overflowed()).toBe(false);
      }));
  });
} else
  it("says what is missing where there is no card", () => {
    expect(found.reason).toMatch(/NVIDIA|koffi|CUDA|libnvrtc|libcublas/);
  });
