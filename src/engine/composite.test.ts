import { afterAll, describe, expect, it } from "vitest";
import { normal } from "../../test/conformance/case.js";
import { FINITE_DIFFERENCES } from "../../test/tolerances.js";
import type { F32 } from "../tensor/index.js";
import type { GroupGridOptions } from "./engine.js";
import { createReferenceEngine } from "./reference/index.js";

const ROWS = 7;
const COLUMNS = 22;

/** Numbers that a factor has, between 1/2 and 2, of both signs. */
const factorsOf = (size: number, seed: string): Float32Array =>
  normal([size], seed).data.map((x) => Math.sign(x) * 2 ** Math.tanh(x));

describe("clippedFakeQuantize", () => {
  const engine = createReferenceEngine();
  afterAll(() => engine.close());
  const plans: GroupGridOptions[] = [2, 3, 4].flatMap((bits) =>
    [false, true].flatMap((symmetric) => [1, 5, 22].map((group) => ({ bits, symmetric, group }))),
  );
  const real = (shape: number[], data: ArrayLike<number>): F32 => engine.upload(Float32Array.from(data), shape, "f32");
  const read = async (tensor: F32) => [...(await engine.read(tensor))];

  // With every code and the straight-through rest c = round(v / h) - v / h held, a quantized weight is v + c h inside the grid
  // and (q - z) h outside of it: smooth in h and v, and so in factors and logits, while the extremes stay where they are.
  it("has the gradient that finite differences give for factors and logits", async () => {
    for (const options of plans) {
      const { bits, group, symmetric } = options;
      const groups = Math.ceil(COLUMNS / group);
      const levels = 2 ** bits - 1;
      const [{ data: w }, { data: grad }] = ["w", "grad"].map((seed) => normal([ROWS, COLUMNS], seed));
      const given = {
        rows: factorsOf(ROWS, "rows"),
        columns: factorsOf(COLUMNS, "columns"),
        upper: normal([ROWS, groups], "upper").data,
        lower: normal([ROWS, groups], "lower").data,
      };
      const weights = real([ROWS, COLUMNS], w);
      const factors = { rows: real([ROWS], given.rows), columns: real([COLUMNS], given.columns) };
      const logits = { upper: real([ROWS, groups], given.upper), lower: real([ROWS, groups], given.lower) };
      const scaled = engine.scaleRows(engine.multiply(weights, factors.columns), factors.rows);
      const v = await read(scaled);
      const grid = engine.clippedGrid(scaled, logits, options);
      const [scale, zero] = [await read(grid.scale), await read(grid.zero)];
      const found = engine.clippedFakeQuantizeGrad(weights, factors, logits, real([ROWS, COLUMNS], grad), options);

      const place = (at: number) => Math.floor(at / COLUMNS) * groups + Math.floor((at % COLUMNS) / group);
      const held = v.map((value, at) => {
        const step = scale[place(at)];
        const code = Math.round(Math.fround(value / step)) + zero[place(at)];
        return { code, clamped: Math.min(levels, Math.max(0, code)), rest: code - zero[place(at)] - value / step };
      });
      type Numbers = Record<keyof typeof given, Float64Array>;
      const numbers = (): Numbers => ({
        rows: Float64Array.from(given.rows),
        columns: Float64Array.from(given.columns),
        upper: Float64Array.from(given.upper),
        lower: Float64Array.from(given.lower),
      });
      const loss = ({ rows, columns, upper, lower }: Numbers): number => {
        const high = new Float64Array(ROWS * groups);
        const low = new Float64Array(ROWS * groups);
        const values = held.map((_, at) => rows[Math.floor(at / COLUMNS)] * columns[at % COLUMNS] * w[at]);
        for (const [at, value] of values.entries()) {
          high[place(at)] = Math.max(high[place(at)], value);
          low[place(at)] = Math.min(low[place(at)], value);
        }
        let sum = 0;
        for (const [at, { code, clamped, rest }] of held.entries()) {
          const on = place(at);
          const top = high[on] / (1 + Math.exp(-upper[on]));
          const bottom = low[on] / (1 + Math.exp(-lower[on]));
          const step = (symmetric ? 2 * Math.max(top, -bottom) : top - bottom) / levels;
          sum += grad[at] * (code === clamped ? values[at] + rest * step : (clamped - zero[on]) * step);
        }
        return sum;
      };
      for (const name of ["rows", "columns", "upper", "lower"] as const) {
        const own = await read(found[name] as F32);
        const expected = own.map((_, at) => {
          const moved = (by: number) => {
            const all = numbers();
            all[name][at] += by;
            return loss(all);
          };
          return (moved(1e-5) - moved(-1e-5)) / 2e-5;
        });
        const largest = Math.max(...expected.map(Math.abs));
        // the held codes are of products and ratios rounded to f32, which the differences do not have
        const allowed = 10 * (FINITE_DIFFERENCES.ofLargest ?? 0) * Math.max(1, largest);
        for (const [at, value] of own.entries())
          expect(Math.abs(value - expected[at]), `${name} ${at}, ${JSON.stringify(options)}`).toBeLessThan(allowed);
      }
    }
  });

  it("leaves out the gradients of what is not given", () => {
    const [weights, grad] = ["w", "grad"].map((seed) => real([3, 4], normal([3, 4], seed).data));
    const options: GroupGridOptions = { bits: 4, group: 2, symmetric: false };
    const names = (rows: boolean, columns: boolean, clipped: boolean) => {
      const factors = {
        rows: rows ? real([3], [1, 2, 3]) : undefined,
        columns: columns ? real([4], [1, 2, 3, 4]) : undefined,
      };
      const logits = clipped ? { upper: engine.create([3, 2]), lower: engine.create([3, 2]) } : undefined;
      const grads = engine.clippedFakeQuantizeGrad(weights, factors, logits, grad, options);
      return Object.entries(grads).flatMap(([name, tensor]) => (tensor ? [name] : []));
    };
    expect(names(true, true, true)).toEqual(["rows", "columns", "upper", "lower"]);
    expect(names(true, false, true)).toEqual(["rows", "upper", "lower"]);
    expect(names(false, true, false)).toEqual(["columns"]);
    expect(names(false, false, true)).toEqual(["upper", "lower"]);
    expect(names(false, false, false)).toEqual([]);
  });
});
