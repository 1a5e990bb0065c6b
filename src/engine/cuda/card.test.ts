import { afterAll, describe, expect, it } from "vitest";
import { HALF_ATTENTION, HALF_ATTENTION_GRAD, HALF_MATMUL, type Tolerance } from "../../../test/tolerances.js";
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

async function withPrecision(precision: Precision, body: (on: Engine) => Promise<void>): Promise<void> {
  const made = await createCudaEngine({ precision });
  if ("reason" in made) throw new Error(made.reason);
  try {
    await made.engine.scope(() => body(made.engine));
  } finally {
    await made.engine.close();
  }
}

/** The largest difference as a share of the largest value that was wanted. */
function shareOfLargest(got: Float32Array, want: Float32Array): number {
  let [worst, largest] = [0, 0];
  for (const [i, x] of want.entries()) {
    worst = Math.max(worst, Math.abs(got[i] - x)); // NaN stays
    largest = Math.max(largest, Math.abs(x));
  }
  return worst / largest;
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
        expect(shareOfLargest(got, want)).toBeGreaterThan(0);
        expect(shareOfLargest(got, want)).toBeLessThan(HALF_MATMUL.ofLargest ?? 0);
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

    it("takes both operands from views of one tensor", () =>
      withPrecision("f16", async (on) => {
        const both = on.upload(Float32Array.from([...a, ...b]), [m * k + k * n], "f32");
        const [left, right] = [on.view(both, [m, k]), on.view(both, [k, n], m * k)];
        const apart = await product(on, on.copy(left), on.copy(right));
        expect(await product(on, left, right)).toEqual(apart);
      }));

    it("tells of operands that f16 cannot hold, once", () =>
      withPrecision("f16", async (on) => {
        const left = on.upload(a, [m, k], "f32");
        on.matmul(on.scale(left, 1e6), on.upload(b, [k, n], "f32"));
        expect(await on.overflowed()).toBe(true);
        expect(await on.overflowed()).toBe(false);
      }));
  });

  describe("attention in f16 is close to f32", () => {
    interface Shape {
      batch?: number;
      tokens: number;
      heads?: number;
      keyHeads?: number;
      size: number;
      window?: number;
      sloped?: boolean;
      /** Positions before the tokens, and room behind them. */
      before?: number;
      room?: number;
    }
    const shapes: Shape[] = [
      ...[1, 5, 17, 63, 64, 65, 200, 333].flatMap((tokens) => [
        { tokens, size: 128 },
        { tokens, size: 64, heads: 4, keyHeads: 2 },
      ]),
      { tokens: 130, size: 96, heads: 2, batch: 2 },
      { tokens: 130, size: 80, heads: 6, keyHeads: 2, sloped: true },
      { tokens: 70, size: 32, heads: 3, batch: 3 },
      { tokens: 333, size: 128, heads: 4, keyHeads: 1, window: 95 },
      { tokens: 200, size: 64, batch: 2, window: 20, sloped: true },
      { tokens: 70, size: 128, before: 83, room: 17 },
      { tokens: 129, size: 64, heads: 4, keyHeads: 2, batch: 2, before: 100, room: 5, window: 64, sloped: true },
    ];
    /** Views, none of which begins at a multiple of 16 bytes; q, k and v are of one tensor. */
    async function attend(on: Engine, shape: Shape, factor: number) {
      const { batch = 1, tokens, heads = 2, keyHeads = heads, size, window, sloped, before = 0, room = 0 } = shape;
      const capacity = before + tokens + room;
      const whole = capacity === tokens;
      const queries = [batch, tokens, heads, size];
      const keys = [batch, capacity, keyHeads, size];
      const [ofQueries, ofKeys] = [queries, keys].map((extents) => extents.reduce((x, y) => x * y));
      const values = on.upload(normal(3 + ofQueries + 2 * ofKeys, "qkv"), [3 + ofQueries + 2 * ofKeys], "f32");
      const q = on.view(values, queries, 3);
      const k = on.view(values, keys, 3 + ofQueries);
      const v = on.view(values, keys, 3 + ofQueries + ofKeys);
      const given = on.upload(
        normal(1 + ofQueries, "grad", () => factor),
        [1 + ofQueries],
        "f32",
      );
      const grad = on.view(given, queries, 1);
      const slopes = sloped
        ? on.upload(
            normal(heads, "slopes", () => 0.05),
            [heads],
            "f32",
          )
        : undefined;
      const options = { scale: 1.5 / Math.sqrt(size), window, slopes };
      const output = on.attention(q, k, v, whole ? options : { ...options, keyLength: before + tokens });
      const results = [output];
      if (whole) {
        const made = on.attentionGrad(q, k, v, output, grad, options);
        results.push(made.q, made.k, made.v);
      }
      return Promise.all(results.map((result) => on.read(result)));
    }
    const share = ({ ofLargest = 0 }: Tolerance) => ofLargest;

    it.each([1, 1e-8, 1e5])("the output's gradient times %s", (factor) =>
      withPrecision("f16", async (on) => {
        for (const shape of shapes) {
          const want = await engine.scope(() => attend(engine, shape, factor));
          const got = await on.scope(() => attend(on, shape, factor));
          for (const [index, values] of want.entries()) {
            const what = `${["output", "q", "k", "v"][index]} of ${JSON.stringify(shape)}`;
            const difference = shareOfLargest(got[index], values);
            expect(difference, what).toBeLessThan(share(index === 0 ? HALF_ATTENTION : HALF_ATTENTION_GRAD));
            if (shape.tokens > 16) expect(difference, what).toBeGreaterThan(0); // it was the tensor cores
          }
          expect(await on.scope(() => attend(on, shape, factor)), JSON.stringify(shape)).toEqual(got);
        }
        expect(await on.overflowed()).toBe(false);
      }),
    );

    it("tells of operands that f16 cannot hold", () =>
      withPrecision("f16", async (on) => {
        const q = on.upload(normal(40 * 64, "q"), [1, 40, 1, 64], "f32");
        on.attention(q, q, on.scale(q, 1e6), { scale: 0.1 });
        expect(await on.overflowed()).toBe(true);
      }));
  });
} else
  it("says what is missing where there is no card", () => {
    expect(found.reason).toMatch(/NVIDIA|koffi|CUDA|libnvrtc|libcublas/);
  });
