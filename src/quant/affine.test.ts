import { describe, expect, it } from "vitest";
import { permuted, syntheticLinear } from "../../test/synthetic.js";
import { createReferenceEngine } from "../engine/reference/index.js";
import { createRandom, shuffled } from "../random.js";
import type { AffineScheme } from "./affine-scheme.js";
import { dequantize } from "./dequantize.js";
import { quantizeGptq } from "./gptq.js";
import type { AffineRecord } from "./record.js";
import { quantizeRtn } from "./rtn.js";

const engine = createReferenceEngine();
const [O, I] = [24, 40];
const scheme: AffineScheme = {
  bits: 3,
  group: 16,
  symmetric: false,
  actOrder: false,
  asymmetric: 0.5,
  damping: 0.01,
};
const context = { engine, seed: 0, name: "model.a.linear" };
const affine = (record: unknown) => record as AffineRecord;

describe("GPTQ", () => {
  it("is rounding when the Hessian is diagonal", async () => {
    await engine.scope(async () => {
      const { weight } = syntheticLinear(engine, O, I);
      const hessian = engine.create([I, I]);
      engine.addDiagonal(hessian, 2);
      const rounded = await quantizeRtn(weight, undefined, scheme, context);
      for (const actOrder of [false, true]) {
        const { record } = await quantizeGptq(weight, { hessian, tokens: 1 }, { ...scheme, actOrder }, context);
        expect(record).toEqual(rounded.record);
      }
    });
  });

  it.each(["act-order", "order of the columns"])("lowers the proxy error of rounding, %s", async (which) => {
    await engine.scope(async () => {
      const { weight, statistics } = syntheticLinear(engine, O, I);
      const rounded = await quantizeRtn(weight, statistics, scheme, context);
      const fed = await quantizeGptq(weight, statistics, { ...scheme, actOrder: which === "act-order" }, context);
      expect(fed.metrics.proxyError).toBeLessThan(0.8 * rounded.metrics.proxyError);
      expect(fed.metrics.notes).toEqual([]);
    });
  });

  it("with act-order does not care how the columns were numbered", async () => {
    await engine.scope(async () => {
      const { weight, statistics } = syntheticLinear(engine, O, I);
      const order = shuffled(I, createRandom(5));
      const rows = Array.from({ length: O }, (_, i) => i);
      const channel: AffineScheme = { ...scheme, group: "channel", actOrder: true };
      const plain = await quantizeGptq(weight, statistics, channel, context);
      const turned = await quantizeGptq(
        permuted(engine, weight, rows, order),
        { hessian: permuted(engine, statistics.hessian, order, order), tokens: 1 },
        channel,
        context,
      );
      const [a, b] = [affine(plain.record), affine(turned.record)];
      expect(b.scale).toEqual(a.scale);
      for (let o = 0; o < O; o++)
        for (let i = 0; i < I; i++) expect(b.codes[o * I + i]).toBe(a.codes[o * I + order[i]]);
    });
  });

  it("measures the proxy error of the record that it returns", async () => {
    await engine.scope(async () => {
      const { weight, statistics } = syntheticLinear(engine, O, I);
      const { record, metrics } = await quantizeGptq(weight, statistics, scheme, context);
      const error = engine.subtract(weight, engine.upload(dequantize(record), [O, I], "f32"));
      const damped = engine.copy(statistics.hessian);
      const diagonal = await engine.read(engine.diagonal(damped));
      engine.addDiagonal(damped, (0.01 * diagonal.reduce((sum, value) => sum + value, 0)) / I);
      const loss = await engine.dot(error, engine.matmul(error, damped));
      const power = await engine.dot(weight, engine.matmul(weight, damped));
      expect(metrics.proxyError / (loss / power)).toBeCloseTo(1, 4);
    });
  });

  it("quantizes columns that were never active as zero, and counts them", async () => {
    await engine.scope(async () => {
      const { weight, statistics } = syntheticLinear(engine, O, I);
      const alive = Float32Array.from({ length: I }, (_, i) => (i === 3 || i === 20 ? 0 : 1));
      const mask = engine.upload(alive, [I], "f32");
      const hessian = engine.scaleRows(engine.multiply(statistics.hessian, mask), mask);
      for (const actOrder of [false, true]) {
        const { record, metrics } = await quantizeGptq(
          weight,
          { hessian, tokens: 1 },
          { ...scheme, actOrder },
          context,
        );
        expect(metrics.deadColumns).toBe(2);
        expect(metrics.notes.join()).toContain("2 input columns were never active");
        const decoded = dequantize(record);
        for (let o = 0; o < O; o++) {
          expect(decoded[o * I + 3]).toBe(0);
          expect(decoded[o * I + 20]).toBe(0);
        }
      }
    });
  });

  it("aims at the full-precision outputs when the statistics hold a correction", async () => {
    await engine.scope(async () => {
      // inputs shrunk to 80 %: D = E[(x_full - x) x^T] = H / 4, and undamped W' would be 1.25 W
      const { weight, statistics } = syntheticLinear(engine, O, I);
      const correction = engine.scale(statistics.hessian, 0.25);
      const fine: AffineScheme = { ...scheme, bits: 8, damping: 1e-6 };
      const decode = async (asymmetric: number) =>
        dequantize(
          (await quantizeGptq(weight, { ...statistics, correction }, { ...fine, asymmetric }, context)).record,
        );
      const [off, half, full] = [await decode(0), await decode(0.5), await decode(1)];
      const ratio = (a: Float32Array, b: Float32Array) =>
        a.reduce((sum, value, i) => sum + value * b[i], 0) / b.reduce((sum, value) => sum + value * value, 0);
      expect(ratio(half, off)).toBeCloseTo(1.125, 2);
      expect(ratio(full, off)).toBeCloseTo(1.25, 2);
    });
  });

  it("refuses what it cannot work with, by name", async () => {
    await engine.scope(async () => {
      const { weight, statistics } = syntheticLinear(engine, O, I);
      const refusal = (kind: string) => ({ kind, message: expect.stringContaining("model.a.linear") });
      await expect(quantizeGptq(weight, undefined, scheme, context)).rejects.toMatchObject(refusal("usage"));
      const small = syntheticLinear(engine, 1, 5).statistics;
      await expect(quantizeGptq(weight, small, scheme, context)).rejects.toMatchObject(refusal("usage"));
      const damaged = await engine.read(weight);
      damaged[7] = Number.NaN;
      const broken = engine.upload(damaged, [O, I], "f32");
      await expect(quantizeGptq(broken, statistics, scheme, context)).rejects.toMatchObject(refusal("numeric"));
      await expect(quantizeRtn(broken, undefined, scheme, context)).rejects.toMatchObject(refusal("numeric"));
      const hessian = engine.scale(statistics.hessian, Number.POSITIVE_INFINITY);
      const infinite = quantizeGptq(weight, { hessian, tokens: 1 }, scheme, context);
      await expect(infinite).rejects.toMatchObject(refusal("numeric"));
    });
  });
});

describe("RTN", () => {
  it("keeps every weight within half a step of its grid", async () => {
    await engine.scope(async () => {
      const { weight } = syntheticLinear(engine, O, I);
      const values = await engine.read(weight);
      // 16 does not divide 40: the last group is shorter
      const { record } = await quantizeRtn(weight, undefined, scheme, context);
      const { scale, group } = affine(record);
      expect(scale.length).toBe(O * 3);
      const decoded = dequantize(record);
      for (let o = 0; o < O; o++)
        for (let i = 0; i < I; i++) {
          const step = scale[o * 3 + Math.floor(i / group)];
          // both ends of the range may lie half a step outside of the grid, for the zero is a whole number
          expect(Math.abs(decoded[o * I + i] - values[o * I + i])).toBeLessThanOrEqual(step * 0.51);
        }
    });
  });

  it("is exact for weights on the grid", async () => {
    await engine.scope(async () => {
      const random = createRandom(3);
      const values = Float32Array.from({ length: O * I }, () => (random.integer(8) - 3) * 0.25);
      for (let o = 0; o < O; o++) {
        values[o * I] = -0.75;
        values[o * I + 1] = 1;
      }
      const weight = engine.upload(values, [O, I], "f32");
      const channel: AffineScheme = { ...scheme, group: "channel" };
      const { record, metrics } = await quantizeRtn(weight, undefined, channel, context);
      expect(dequantize(record)).toEqual(values);
      expect(metrics.proxyError).toBe(0);
    });
  });

  it("has room for a group larger than the linear, and none for nonsense", async () => {
    await engine.scope(async () => {
      const { weight } = syntheticLinear(engine, O, I);
      const { record } = await quantizeRtn(weight, undefined, { ...scheme, group: 1024 }, context);
      const channel = await quantizeRtn(weight, undefined, { ...scheme, group: "channel" }, context);
      expect(record).toEqual(channel.record);
      await expect(quantizeRtn(weight, undefined, { ...scheme, group: 0 }, context)).rejects.toMatchObject({
        kind: "usage",
      });
    });
  });
});
