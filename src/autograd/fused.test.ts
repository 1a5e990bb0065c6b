import { describe, expect, it } from "vitest";
import { normal } from "../../test/conformance/case.js";
import { wasmEngines } from "../../test/wasm-engines.js";
import type { ClippingLogits, Engine, GroupGridOptions, WeightFactors } from "../engine/engine.js";
import { createReferenceEngine } from "../engine/reference/index.js";
import type { F32 } from "../tensor/index.js";
import { Tape } from "./tape.js";

// The rule of clippedFakeQuantize against the rules of what it is made of.

const [ROWS, COLUMNS] = [37, 75];
const PLANS: GroupGridOptions[] = [
  { bits: 2, group: 16, symmetric: false },
  { bits: 3, group: 20, symmetric: true },
  { bits: 4, group: COLUMNS, symmetric: false },
];

type Forward = (
  engine: Engine,
  weights: F32,
  factors: WeightFactors,
  logits: ClippingLogits,
  options: GroupGridOptions,
) => F32;

const fused: Forward = (engine, weights, factors, logits, options) =>
  engine.clippedFakeQuantize(weights, factors, logits, options);

const chained: Forward = (engine, weights, { rows, columns }, logits, options) => {
  const wide = columns ? engine.multiply(weights, columns) : weights;
  const scaled = rows ? engine.scaleRows(wide, rows) : wide;
  return engine.fakeQuantize(scaled, engine.clippedGrid(scaled, logits, options), options);
};

/** The output and the gradients of all that is watched. */
async function trace(engine: Engine, forward: Forward, options: GroupGridOptions, given: string[]) {
  const before = engine.liveBytes();
  const result = await engine.scope(async () => {
    const up = (shape: number[], seed: string) => engine.upload(normal(shape, seed).data, shape, "f32");
    const logits = [ROWS, Math.ceil(COLUMNS / options.group)];
    const tensors: Record<string, F32> = {
      weights: up([ROWS, COLUMNS], "weights"),
      rows: up([ROWS], "rows"),
      columns: up([COLUMNS], "columns"),
      upper: up(logits, "upper"),
      lower: up(logits, "lower"),
    };
    const { weights, upper, lower } = tensors;
    const factors: WeightFactors = {};
    for (const name of ["rows", "columns"] as const) if (given.includes(name)) factors[name] = tensors[name];
    const tape = new Tape(engine);
    const leaves = given.map((name) => tape.watch(tensors[name]));
    const output = forward(tape.engine, weights, factors, { upper, lower }, options);
    const grads = tape.backward(output, up([ROWS, COLUMNS], "grad"), leaves);
    tape.clear();
    return Promise.all([output, ...grads].map((tensor) => engine.read(tensor)));
  });
  expect(engine.liveBytes()).toBe(before);
  return result;
}

describe("clippedFakeQuantize on the tape", () => {
  const { engines, reference } = wasmEngines();
  for (const given of [
    ["upper", "lower"],
    ["rows", "columns", "upper", "lower"],
    ["columns", "upper"],
    ["rows"],
    ["weights", "rows", "columns", "upper", "lower"],
    ["weights"],
  ])
    it(`gives the bits of the operations it is made of: ${given.join(", ")}`, async () => {
      for (const engine of [reference, ...engines])
        for (const options of PLANS) {
          const [one, other] = [
            await trace(engine, fused, options, given),
            await trace(engine, chained, options, given),
          ];
          expect(one).toEqual(other);
          for (const gradient of one.slice(1)) expect(gradient.some((value) => value !== 0)).toBe(true);
        }
    });
});

describe("gradients that nobody wants", () => {
  it("are not computed", async () => {
    const engine = createReferenceEngine();
    const asked: unknown[] = [];
    const { rmsNormGrad, fakeQuantizeGrad } = engine;
    engine.rmsNormGrad = (x, weight, epsilon, grad, wanted) => {
      asked.push(wanted);
      return rmsNormGrad(x, weight, epsilon, grad, wanted);
    };
    engine.fakeQuantizeGrad = (weights, grid, grad, options, wanted) => {
      asked.push(wanted);
      return fakeQuantizeGrad(weights, grid, grad, options, wanted);
    };
    const tape = new Tape(engine);
    const [x, y, weight] = [engine.create([4, 6]), engine.create([4, 6]), engine.create([6])];
    const grid = { scale: engine.create([4, 2]), zero: engine.create([4, 2]) };
    const wantedOf = (watched: F32, run: () => F32) => {
      tape.watch(watched);
      const output = run();
      tape.backward(output, engine.create(output.shape), [watched]);
      return asked.pop();
    };
    const norm = () => tape.engine.rmsNorm(x, weight, 0.1);
    expect(wantedOf(x, norm)).toEqual({ weight: false });
    expect(wantedOf(weight, norm)).toEqual({ weight: true });
    const quantized = () => tape.engine.fakeQuantize(y, grid, { bits: 4, group: 3, symmetric: false });
    expect(wantedOf(grid.scale, quantized)).toEqual({ weights: false });
    expect(wantedOf(y, quantized)).toEqual({ weights: true });
    await engine.close();
  });
});
