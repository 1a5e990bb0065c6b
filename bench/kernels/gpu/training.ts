import { compositeOperations } from "../../../src/engine/composite.js";
import type { ClippingLogits, Engine, GroupGridOptions, WeightFactors } from "../../../src/engine/engine.js";
import type { F32 } from "../../../src/tensor/index.js";
import { type Bench, expected, largestError, type MakeCase, rowsOf, shareOff } from "./lab.js";

// What OmniQuant's training adds to a block.

const OPTIONS: GroupGridOptions = { bits: 3, group: 128, symmetric: false };
const CHAIN = "the chain of single operations";
/** Rows that are checked; they are independent but for the gradient of the columns' factors. */
const ROWS = 4;

interface Clipped {
  weights: F32;
  factors: Required<WeightFactors>;
  clipping: ClippingLogits;
}

function clippedInputs(bench: Bench, rows: number, columns: number): Clipped {
  const { engine, draw } = bench;
  const groups = Math.ceil(columns / OPTIONS.group);
  const near = (size: number) => engine.exp(draw([size], 0.1)); // factors near 1
  const logits = () => engine.scale(engine.exp(draw([rows, groups], 0.1)), 4);
  return {
    weights: draw([rows, columns], 0.02),
    factors: { rows: near(rows), columns: near(columns) },
    clipping: { upper: logits(), lower: logits() },
  };
}

/** The first rows of all that goes in, on the reference engine; `grad`, too, where there is one. */
async function firstRows(bench: Bench, { weights, factors, clipping }: Clipped, grad?: F32) {
  const columns = weights.shape[1];
  const count = Math.min(ROWS, weights.shape[0]);
  const groups = clipping.upper.shape[1];
  const host = {
    weights: await rowsOf(bench, weights, 0, count),
    grad: grad && (await rowsOf(bench, grad, 0, count)),
    rows: await rowsOf(bench, factors.rows, 0, count),
    columns: await bench.engine.read(factors.columns),
    upper: await rowsOf(bench, clipping.upper, 0, count),
    lower: await rowsOf(bench, clipping.lower, 0, count),
  };
  return {
    count,
    on: (f32: (data: Float32Array, shape: readonly number[]) => F32) => ({
      weights: f32(host.weights, [count, columns]),
      grad: host.grad && f32(host.grad, [count, columns]),
      factors: { rows: f32(host.rows, [count]), columns: f32(host.columns, [columns]) },
      clipping: { upper: f32(host.upper, [count, groups]), lower: f32(host.lower, [count, groups]) },
    }),
  };
}

const clippedFakeQuantize: MakeCase = (bench, { mlp, hidden }) => {
  const inputs = clippedInputs(bench, mlp, hidden);
  const { weights, factors, clipping } = inputs;
  const by = (engine: Pick<Engine, "clippedFakeQuantize">) => () =>
    engine.clippedFakeQuantize(weights, factors, clipping, OPTIONS);
  return {
    shape: `[${mlp}, ${hidden}], ${OPTIONS.bits} bits, groups of ${OPTIONS.group}`,
    work: { bytes: 8 * weights.size },
    versions: [
      { name: CHAIN, run: by(compositeOperations(bench.engine)) },
      { name: "product", run: by(bench.engine) },
    ],
    torch: { operation: "clippedFakeQuantize", shape: [mlp, hidden, OPTIONS.bits, OPTIONS.group] },
    tolerance: 1e-3,
    async check(run) {
      const { count, on } = await firstRows(bench, inputs);
      const got = await rowsOf(bench, (await run()) as F32, 0, count);
      const want = await expected(bench, (reference, f32) => {
        const { weights, factors, clipping } = on(f32);
        return reference.clippedFakeQuantize(weights, factors, clipping, OPTIONS);
      });
      return shareOff(got, want);
    },
  };
};

const clippedFakeQuantizeGrad: MakeCase = (bench, { mlp, hidden }) => {
  const inputs = clippedInputs(bench, mlp, hidden);
  const { weights, factors, clipping } = inputs;
  const grad = bench.draw([mlp, hidden]);
  const by = (engine: Pick<Engine, "clippedFakeQuantizeGrad">) => () =>
    engine.clippedFakeQuantizeGrad(weights, factors, clipping, grad, OPTIONS);
  let ofColumns: Float32Array | undefined; // as the first version has it
  return {
    shape: `[${mlp}, ${hidden}], ${OPTIONS.bits} bits, groups of ${OPTIONS.group}`,
    work: { bytes: 8 * weights.size },
    versions: [
      { name: CHAIN, run: by(compositeOperations(bench.engine)) },
      { name: "product", run: by(bench.engine) },
    ],
    torch: { operation: "clippedFakeQuantizeGrad", shape: [mlp, hidden, OPTIONS.bits, OPTIONS.group] },
    tolerance: 1e-3,
    /** Gradients of the first rows against the reference; of the columns against the version before. */
    async check(run) {
      const found = (await run()) as ReturnType<Engine["clippedFakeQuantizeGrad"]>;
      const { count, on } = await firstRows(bench, inputs, grad);
      const errors: number[] = [];
      for (const name of ["rows", "upper", "lower"] as const) {
        const want = await expected(bench, (reference, f32) => {
          const { weights, factors, clipping, grad } = on(f32);
          return reference.clippedFakeQuantizeGrad(weights, factors, clipping, grad as F32, OPTIONS)[name] as F32;
        });
        errors.push(largestError(await rowsOf(bench, found[name] as F32, 0, count), want));
      }
      const columns = await bench.engine.read(found.columns as F32);
      errors.push(largestError(columns, ofColumns ?? columns));
      ofColumns ??= columns;
      return Math.max(...errors);
    },
  };
};

const fakeRowsCase =
  (withGrad: boolean): MakeCase =>
  (bench, { tokens, hidden }) => {
    const { engine, draw } = bench;
    const bits = 4;
    const inputs = withGrad ? [draw([tokens, hidden]), draw([tokens, hidden])] : [draw([tokens, hidden])];
    const by = (on: Engine, [x, grad]: F32[]) =>
      withGrad ? on.fakeQuantizeRowsGrad(x, bits, grad) : on.fakeQuantizeRows(x, bits);
    const count = Math.min(ROWS, tokens);
    return {
      shape: `[${tokens}, ${hidden}], ${bits} bits`,
      work: { bytes: (withGrad ? 12 : 8) * tokens * hidden },
      versions: [{ name: "product", run: () => by(engine, inputs) }],
      torch: { operation: withGrad ? "fakeQuantizeRowsGrad" : "fakeQuantizeRows", shape: [tokens, hidden, bits] },
      tolerance: 1e-3,
      async check(run) {
        const got = await rowsOf(bench, (await run()) as F32, tokens - count, count);
        const host: Float32Array[] = [];
        for (const input of inputs) host.push(await rowsOf(bench, input, tokens - count, count));
        const want = await expected(bench, (on, f32) =>
          by(
            on,
            host.map((data) => f32(data, [count, hidden])),
          ),
        );
        return shareOff(got, want);
      },
    };
  };

const adamwStep: MakeCase = (bench, { hidden }) => {
  const { engine, draw } = bench;
  const shape = [hidden, hidden];
  const moment = engine.scope(() => {
    const x = draw(shape, 0.01);
    return engine.multiply(x, x);
  });
  const tensors = [draw(shape), draw(shape, 0.01), draw(shape, 0.01), moment] as const;
  const options = { rate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, decay: 0.01, step: 10 };
  const size = Math.min(4096, moment.size);
  const first = async () => {
    const host: Float32Array[] = [];
    for (const tensor of tensors) host.push(await engine.read(engine.view(tensor, [size])));
    return host;
  };
  return {
    shape: `[${hidden}, ${hidden}]`,
    work: { bytes: 28 * moment.size },
    versions: [{ name: "product", run: () => engine.adamwStep(...tensors, options) }],
    torch: { operation: "adamwStep", shape },
    tolerance: 1e-6,
    /** The first parameters, before and after a step. */
    async check(run) {
      const before = await first();
      await run();
      const [got] = await first();
      const want = await expected(bench, (on, f32) => {
        const [parameter, gradient, mean, square] = before.map((data) => f32(data, [size]));
        on.adamwStep(parameter, gradient, mean, square, options);
        return parameter;
      });
      return largestError(got, want);
    },
  };
};

export const TRAINING_CASES = {
  clippedFakeQuantize,
  clippedFakeQuantizeGrad,
  fakeQuantizeRows: fakeRowsCase(false),
  fakeQuantizeRowsGrad: fakeRowsCase(true),
  adamwStep,
} as const satisfies Record<string, MakeCase>;
