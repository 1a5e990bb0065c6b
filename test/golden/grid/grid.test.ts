import { readFileSync } from "node:fs";
import { afterAll, describe, expect, it } from "vitest";
import type { GroupGridOptions } from "../../../src/engine/engine.js";
import { createReferenceEngine } from "../../../src/engine/reference/index.js";
import type { F32, Tensor } from "../../../src/tensor/index.js";
import { collect } from "../../conformance/case.js";
import { expectClose } from "../../conformance/compare.js";
import { GRID_GRADIENT } from "../../tolerances.js";

// The reference against torch's autograd (make.py).

interface Plain {
  shape: number[];
  data: number[];
}
type Table<Key extends string> = Record<Key, Plain>;
type Quantized = Table<"weights" | "scale" | "zero" | "codes" | "quantized" | "grad"> & { bits: number; group: number };
type Logits = "upper" | "lower" | "gradUpper" | "gradLower" | "allUpper" | "allLower";
interface Numbers {
  grids: (Quantized &
    Table<"scaleGrad" | "gradWeights" | "allWeights"> &
    Record<Logits, Plain | null> & { symmetric: boolean })[];
  given: (Quantized & Table<"gradWeights" | "gradScale" | "gradZero">)[];
  rows: (Table<"x" | "out" | "grad" | "gradX"> & { bits: number; symmetric: boolean })[];
}

const numbers: Numbers = JSON.parse(readFileSync(new URL("grid.json", import.meta.url), "utf8"));

describe("grids and their gradients agree with torch", () => {
  const engine = createReferenceEngine();
  afterAll(() => engine.close());
  const real = ({ data, shape }: Plain): F32 => engine.upload(Float32Array.from(data), shape, "f32");
  const compare = async (value: Tensor, { data, shape }: Plain, where: string, exact: boolean) => {
    const [output] = await collect(engine, value);
    const expected = { ...output, shape, data: Float32Array.from(data) };
    expectClose(output, expected, exact ? undefined : GRID_GRADIENT, where);
  };
  const close = (value: Tensor, plain: Plain, where: string) => compare(value, plain, where, false);
  const equal = (value: Tensor, plain: Plain, where: string) => compare(value, plain, where, true);

  it("on the grid of weights, clipped and not", async () => {
    for (const one of numbers.grids) {
      const { bits, group, symmetric } = one;
      const options: GroupGridOptions = { bits, group, symmetric };
      const where = `${bits} bits, groups of ${group}${symmetric ? ", symmetric" : ""}${one.upper ? ", clipped" : ""}`;
      const weights = real(one.weights);
      const clipping = one.upper && one.lower ? { upper: real(one.upper), lower: real(one.lower) } : undefined;
      const grid = engine.clippedGrid(weights, clipping, options);
      await equal(grid.scale, one.scale, `${where}, scale`);
      await equal(grid.zero, one.zero, `${where}, zero`);
      const grads = engine.clippedGridGrad(weights, clipping, real(one.scaleGrad), options);
      await close(grads.weights as F32, one.gradWeights, `${where}, weights`);
      if (one.gradUpper) await close(grads.upper, one.gradUpper, `${where}, upper`);
      if (one.gradLower) await close(grads.lower, one.gradLower, `${where}, lower`);

      await equal(engine.affineCodes(weights, grid, options), one.codes, `${where}, codes`);
      await equal(engine.fakeQuantize(weights, grid, options), one.quantized, `${where}, quantized`);
      const through = engine.fakeQuantizeGrad(weights, grid, real(one.grad), options);
      const behind = engine.clippedGridGrad(weights, clipping, through.scale, options);
      const both = engine.add(through.weights as F32, behind.weights as F32);
      await close(both, one.allWeights, `${where}, weights through all`);
      if (one.allUpper) await close(behind.upper, one.allUpper, `${where}, upper through all`);
      if (one.allLower) await close(behind.lower, one.allLower, `${where}, lower through all`);
    }
  });

  it("on fake quantization on a grid that leaves weights and zeros outside", async () => {
    for (const one of numbers.given) {
      const { bits, group } = one;
      const options: GroupGridOptions = { bits, group, symmetric: false };
      const where = `${bits} bits, groups of ${group}`;
      const [weights, grid] = [real(one.weights), { scale: real(one.scale), zero: real(one.zero) }];
      await equal(engine.affineCodes(weights, grid, options), one.codes, `${where}, codes`);
      await equal(engine.fakeQuantize(weights, grid, options), one.quantized, `${where}, quantized`);
      const grads = engine.fakeQuantizeGrad(weights, grid, real(one.grad), options);
      await close(grads.weights as F32, one.gradWeights, `${where}, weights`);
      await close(grads.scale, one.gradScale, `${where}, scale`);
      await close(grads.zero, one.gradZero, `${where}, zero`);
      expect(one.gradZero.data.some((value) => value !== 0)).toBe(true);
    }
  });

  it("on rows of activations", async () => {
    for (const one of numbers.rows) {
      const where = `${one.bits} bits${one.symmetric ? ", symmetric" : ""}`;
      const [x, grad] = [real(one.x), real(one.grad)];
      await equal(engine.fakeQuantizeRows(x, one.bits, one.symmetric), one.out, where);
      await close(engine.fakeQuantizeRowsGrad(x, one.bits, grad, one.symmetric), one.gradX, `${where}, gradient`);
    }
  });
});
