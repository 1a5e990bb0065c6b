import { afterAll, describe, expect, it } from "vitest";
import { normal } from "../../../test/conformance/case.js";
import type { F32 } from "../../tensor/index.js";
import type { AffineGrid, GroupGridOptions } from "../engine.js";
import { createReferenceEngine } from "./index.js";

const ROWS = 9;
const COLUMNS = 22;

describe("the grids of rows", () => {
  const engine = createReferenceEngine();
  afterAll(() => engine.close());
  const plans: GroupGridOptions[] = [2, 3, 4, 8].flatMap((bits) =>
    [false, true].flatMap((symmetric) => [1, 5, 22, 64].map((group) => ({ bits, symmetric, group }))),
  );
  const real = (shape: number[], data: ArrayLike<number>): F32 => engine.upload(Float32Array.from(data), shape, "f32");
  const read = async (tensor: F32) => [...(await engine.read(tensor))];

  /** Rows of unlike kinds: usual, all 0, positive only, negative only, below the least scale, beyond the largest. */
  const weightsOf = (): F32 => {
    const { data } = normal([ROWS, COLUMNS], "weights", 0.05);
    for (let at = 0; at < data.length; at++) {
      const row = Math.floor(at / COLUMNS);
      if (row === 2) data[at] = 0;
      if (row === 3) data[at] = Math.abs(data[at]);
      if (row === 4) data[at] = -Math.abs(data[at]);
      if (row === 5) data[at] *= 1e-7;
      if (row === 6) data[at] *= 1e8;
    }
    return real([ROWS, COLUMNS], data);
  };

  // `affineGrid` and `affineSweep` take columns first; both have tests of their own against numpy.
  it("are those of affineGrid, and decode to what affineSweep decodes to", async () => {
    for (const options of plans) {
      const weights = weightsOf();
      const groupOfColumn = Int32Array.from({ length: COLUMNS }, (_, i) => Math.floor(i / options.group));
      const groups = Math.ceil(COLUMNS / options.group);
      const turned = { ...options, groupOfColumn, groups };
      const grid = engine.clippedGrid(weights, undefined, options);
      const expected = engine.affineGrid(engine.transpose(weights), turned);
      expect(await read(grid.scale)).toEqual(await read(engine.transpose(expected.scale)));
      expect(await read(grid.zero)).toEqual(await read(engine.transpose(expected.zero)));

      const swept = engine.affineSweep(engine.transpose(weights), undefined, turned);
      const plain = (values: number[]) => values.map((value) => value + 0); // without -0
      const quantized = await read(engine.fakeQuantize(weights, grid, options));
      expect(plain(quantized)).toEqual(plain(await read(engine.transpose(swept.quantized))));
      const codes = engine.cast(engine.affineCodes(weights, grid, options), "f32");
      expect(await read(codes)).toEqual(await read(engine.transpose(engine.cast(swept.codes, "f32"))));
    }
  });

  // With every code and the straight-through rest c = round(w / h) - w / h held, a quantized weight is w + c h inside the grid
  // and (q - z) h outside of it: smooth in h, and so in the logits.
  it("have the gradient that finite differences give for the logits", async () => {
    for (const options of plans) {
      const { bits, group, symmetric } = options;
      const groups = Math.ceil(COLUMNS / group);
      const levels = 2 ** bits - 1;
      const { data: w } = normal([ROWS, COLUMNS], "smooth", 0.5);
      const { data: grad } = normal([ROWS, COLUMNS], "grad");
      const [upper, lower] = ["upper", "lower"].map((seed) => normal([ROWS, groups], seed).data);
      const weights = real([ROWS, COLUMNS], w);
      const clipping = { upper: real([ROWS, groups], upper), lower: real([ROWS, groups], lower) };
      const grid = engine.clippedGrid(weights, clipping, options);
      const [scale, zero] = [await read(grid.scale), await read(grid.zero)];
      const through = engine.fakeQuantizeGrad(weights, grid, real([ROWS, COLUMNS], grad), options);
      const found = engine.clippedGridGrad(weights, clipping, through.scale, options);
      const [ofUpper, ofLower] = [await read(found.upper), await read(found.lower)];

      for (let row = 0; row < ROWS; row++)
        for (let g = 0; g < groups; g++) {
          const on = row * groups + g;
          const ats = Array.from(
            { length: Math.min(group, COLUMNS - g * group) },
            (_, i) => row * COLUMNS + g * group + i,
          );
          const values = ats.map((at) => w[at]);
          const step = (u: number, l: number) => {
            const high = Math.max(0, ...values) / (1 + Math.exp(-u));
            const low = Math.min(0, ...values) / (1 + Math.exp(-l));
            return (symmetric ? 2 * Math.max(high, -low) : high - low) / levels;
          };
          const loss = (u: number, l: number) => {
            let sum = 0;
            for (const at of ats) {
              const code = Math.round(Math.fround(w[at] / scale[on])) + zero[on];
              const factor =
                code < 0 || code > levels
                  ? Math.min(levels, Math.max(0, code)) - zero[on]
                  : code - zero[on] - w[at] / scale[on];
              sum += grad[at] * factor * step(u, l);
            }
            return sum;
          };
          const e = 1e-4;
          const [u, l] = [upper[on], lower[on]];
          const size = 1e-5 * values.length; // of f32 in ratios times gradients of about 1
          expect(Math.abs(ofUpper[on] - (loss(u + e, l) - loss(u - e, l)) / (2 * e))).toBeLessThan(size);
          expect(Math.abs(ofLower[on] - (loss(u, l + e) - loss(u, l - e)) / (2 * e))).toBeLessThan(size);
        }
    }
  });

  it("stop the gradient where the scale does not follow the weights", async () => {
    const options: GroupGridOptions = { bits: 4, group: 3, symmetric: false };
    const weights = real([3, 3], [0, 0, 0, 1e-9, -1e-9, 0, 4e6, -1e6, 0]);
    const logits = () => real([3, 1], [1, 1, 1]);
    const grads = engine.clippedGridGrad(
      weights,
      { upper: logits(), lower: logits() },
      real([3, 1], [1, 1, 1]),
      options,
    );
    for (const grad of [grads.weights as F32, grads.upper, grads.lower])
      expect(new Set(await read(grad))).toEqual(new Set([0]));
  });

  it("give the first of equal extremes the gradient", async () => {
    const weights = real([1, 6], [0, 3, -2, 3, -2, 0]);
    const grads = engine.clippedGridGrad(weights, undefined, real([1, 1], [30]), {
      bits: 4,
      group: 6,
      symmetric: false,
    });
    expect(await read(grads.weights as F32)).toEqual([0, 2, -2, 0, 0, 0]);
    const symmetric = engine.clippedGridGrad(real([1, 4], [0, -3, 3, 1]), undefined, real([1, 1], [30]), {
      bits: 4,
      group: 4,
      symmetric: true,
    });
    expect(await read(symmetric.weights as F32)).toEqual([0, 0, 4, 0]);
  });

  it("keep a zero outside the codes out of the gradient", async () => {
    const grid: AffineGrid = { scale: real([3, 1], [1, 1, 1]), zero: real([3, 1], [-0.2, 1, 3.4]) };
    const options: GroupGridOptions = { bits: 2, group: 2, symmetric: false };
    const grads = engine.fakeQuantizeGrad(
      real([3, 2], [-9, 9, -9, 9, -9, 9]),
      grid,
      real([3, 2], [1, 2, 1, 2, 1, 2]),
      options,
    );
    expect(await read(grads.zero)).toEqual([0, -3, 0]);
    expect(await read(grads.scale)).toEqual([2 * 3, -1 + 2 * 2, -3]);
  });
});
