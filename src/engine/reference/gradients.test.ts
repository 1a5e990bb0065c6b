import { afterAll, describe, it } from "vitest";
import { collect, normal } from "../../../test/conformance/case.js";
import { expectClose } from "../../../test/conformance/compare.js";
import { FINITE_DIFFERENCES } from "../../../test/tolerances.js";
import type { F32 } from "../../tensor/index.js";
import { createReferenceEngine } from "./index.js";

// Each gradient against central differences of the operation, written here in f64 from its definition in engine.ts.

type Numbers = number[];
type Plain = (inputs: Numbers[]) => Numbers;

const STEP = 1e-4;

/** Of sum grad * operation(inputs), for input `which`. */
function differences(operation: Plain, inputs: Numbers[], grad: Numbers, which: number): Numbers {
  const loss = (at: number, shift: number): number => {
    const moved = inputs.map((input, index) => (index === which ? input.with(at, input[at] + shift) : input));
    return operation(moved).reduce((sum, value, index) => sum + grad[index] * value, 0);
  };
  // of fourth order: (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h
  return inputs[which].map(
    (_, at) => (8 * (loss(at, STEP) - loss(at, -STEP)) - (loss(at, 2 * STEP) - loss(at, -2 * STEP))) / (12 * STEP),
  );
}

/** The normal distribution function by Simpson's rule: an integral of the density from 0. */
function distribution(x: number): number {
  const pieces = 400;
  const density = (t: number) => Math.exp((-t * t) / 2) / Math.sqrt(2 * Math.PI);
  let sum = density(0) + density(x);
  for (let i = 1; i < pieces; i++) sum += (i % 2 === 1 ? 4 : 2) * density((i * x) / pieces);
  return 0.5 + (sum * x) / (3 * pieces);
}

/** Applies `each` to rows of x of the width of the weight. */
const byRows = (x: Numbers, width: number, each: (row: Numbers) => Numbers): Numbers =>
  Array.from({ length: x.length / width }, (_, row) => each(x.slice(row * width, (row + 1) * width))).flat();

const meanOf = (row: Numbers): number => row.reduce((sum, value) => sum + value, 0) / row.length;

interface Attending {
  batch: number;
  tokens: number;
  heads: number;
  keyHeads: number;
  size: number;
  scale: number;
  window?: number;
  slopes?: Numbers;
}

/** The definition with whole score matrices: -infinity where a key is not seen. */
function attend([q, k, v]: Numbers[], extents: Attending): Numbers {
  const { batch, tokens, heads, keyHeads, size, scale, window = tokens, slopes } = extents;
  const out = new Array<number>(q.length).fill(0);
  for (let b = 0; b < batch; b++)
    for (let h = 0; h < heads; h++)
      for (let t = 0; t < tokens; t++) {
        const row = ((b * tokens + t) * heads + h) * size;
        const keyRow = (s: number) => ((b * tokens + s) * keyHeads + Math.floor(h / (heads / keyHeads))) * size;
        const weights = Array.from({ length: tokens }, (_, s) => {
          if (s > t || s <= t - window) return 0;
          let score = 0;
          for (let i = 0; i < size; i++) score += q[row + i] * k[keyRow(s) + i];
          return Math.exp(score * scale + (slopes ? slopes[h] * (s - t) : 0));
        });
        const total = weights.reduce((sum, weight) => sum + weight, 0);
        for (let s = 0; s < tokens; s++)
          for (let i = 0; i < size; i++) out[row + i] += (weights[s] / total) * v[keyRow(s) + i];
      }
  return out;
}

describe("gradients are those of finite differences", () => {
  const engine = createReferenceEngine();
  afterAll(() => engine.close());

  /** Inputs of the shapes, then a gradient of the shape `result`: on the engine and as numbers. */
  function given(shapes: number[][], result: number[], factor = 1) {
    const hosts = [...shapes.map((shape, index) => normal(shape, index, factor)), normal(result, "grad")];
    const tensors = hosts.map(({ data, shape }) => engine.upload(data, shape, "f32"));
    const numbers = hosts.map(({ data }) => [...data]);
    return { tensors, grad: tensors[shapes.length], inputs: numbers.slice(0, -1), gradNumbers: numbers[shapes.length] };
  }

  /** Compares gradients of the first inputs, in order. */
  async function check(found: F32[], operation: Plain, inputs: Numbers[], grad: Numbers): Promise<void> {
    for (const [which, tensor] of found.entries()) {
      const [output] = await collect(engine, tensor);
      const data = differences(operation, inputs, grad, which);
      expectClose(output, { ...output, data }, FINITE_DIFFERENCES, `input ${which}`);
    }
  }

  it("siluMultiplyGrad", async () => {
    const { tensors, grad, inputs, gradNumbers } = given(
      [
        [5, 7],
        [5, 7],
      ],
      [5, 7],
      2,
    );
    const { gate, up } = engine.siluMultiplyGrad(tensors[0], tensors[1], grad);
    await check([gate, up], ([g, u]) => g.map((x, i) => (x / (1 + Math.exp(-x))) * u[i]), inputs, gradNumbers);
  });

  it("reluGrad and geluGrad", async () => {
    const { tensors, grad, inputs, gradNumbers } = given([[60]], [60], 2);
    await check([engine.reluGrad(tensors[0], grad)], ([a]) => a.map((x) => Math.max(0, x)), inputs, gradNumbers);
    await check([engine.geluGrad(tensors[0], grad)], ([a]) => a.map((x) => x * distribution(x)), inputs, gradNumbers);
  });

  it("rmsNormGrad", async () => {
    const { tensors, grad, inputs, gradNumbers } = given([[2, 3, 7], [7]], [2, 3, 7]);
    const { x, weight } = engine.rmsNormGrad(tensors[0], tensors[1], 0.1, grad);
    const operation: Plain = ([input, factor]) =>
      byRows(input, 7, (row) => {
        const size = Math.sqrt(meanOf(row.map((value) => value * value)) + 0.1);
        return row.map((value, i) => (value / size) * factor[i]);
      });
    await check([x, weight as F32], operation, inputs, gradNumbers);
  });

  it("layerNormGrad", async () => {
    const { tensors, grad, inputs, gradNumbers } = given([[2, 3, 7], [7], [7]], [2, 3, 7]);
    const { x, weight, bias } = engine.layerNormGrad(tensors[0], tensors[1], 0.1, grad);
    const operation: Plain = ([input, factor, shift]) =>
      byRows(input, 7, (row) => {
        const mean = meanOf(row);
        const size = Math.sqrt(meanOf(row.map((value) => (value - mean) ** 2)) + 0.1);
        return row.map((value, i) => ((value - mean) / size) * factor[i] + shift[i]);
      });
    await check([x, weight as F32, bias as F32], operation, inputs, gradNumbers);
  });

  const plans: Attending[] = [
    { batch: 2, tokens: 5, heads: 4, keyHeads: 2, size: 3, scale: 0.6 },
    { batch: 1, tokens: 7, heads: 3, keyHeads: 1, size: 4, scale: 0.5, window: 3 },
    { batch: 1, tokens: 6, heads: 2, keyHeads: 2, size: 3, scale: 0.5, slopes: [0.5, 0.125] },
    { batch: 1, tokens: 6, heads: 2, keyHeads: 1, size: 3, scale: 0.5, window: 4, slopes: [0.5, 0.125] },
  ];
  for (const plan of plans)
    it(`attentionGrad, ${JSON.stringify(plan)}`, async () => {
      const { batch, tokens, heads, keyHeads, size, scale, window } = plan;
      const [shape, keyShape] = [
        [batch, tokens, heads, size],
        [batch, tokens, keyHeads, size],
      ];
      const { tensors, grad, inputs, gradNumbers } = given([shape, keyShape, keyShape], shape);
      const [q, k, v] = tensors;
      const slopes = plan.slopes && engine.upload(Float32Array.from(plan.slopes), [heads], "f32");
      const options = { scale, window, slopes };
      const found = engine.attentionGrad(q, k, v, engine.attention(q, k, v, options), grad, options);
      await check([found.q, found.k, found.v], (moved) => attend(moved, plan), inputs, gradNumbers);
    });
});
