import type { F32, Tensor } from "../../../src/tensor/index.js";
import { type Bench, type Case, expected, largestError, type MakeCase, normal, rowsOf, type Version } from "./lab.js";
import { ADD_FOURS, ATTEND_WARPS, RMS_NORM_THREADS, SILU_MULTIPLY_FOURS } from "./versions.js";

// What a decoder block is made of beside its products.

const THREADS = 256;
const EPSILON = 1e-5;

const ATTENTION_ERRORS = { f32: 2e-5, tf32: 3e-3, f16: 3e-3 } as const;

/** The product; on an engine that keeps tensors in f16 it converts them each time, as in a model, where they are new. */
function withFresh({ engine }: Bench, inputs: readonly F32[], run: () => unknown): Version {
  if (engine.precision !== "f16") return { name: "product", run };
  return {
    name: "product, operands converted anew",
    run: () => {
      for (const tensor of inputs) engine.noteWritten(engine.blockOf(tensor));
      return run();
    },
  };
}

const attention: MakeCase = (bench, extents) => {
  const { engine } = bench;
  const { tokens, heads, keyValueHeads: keyHeads, hidden } = extents;
  const size = hidden / heads;
  const [q, k, v] = attended(bench, extents);
  const options = { scale: size ** -0.5 };
  const versions = [withFresh(bench, [q, k, v], () => engine.attention(q, k, v, options))];
  if (bench.kind === "cuda" && engine.precision === "f32" && size <= 128)
    versions.unshift({
      name: "a warp a query",
      run: () => {
        const y = engine.empty(q.shape);
        engine.run(ATTEND_WARPS, {
          groups: heads * Math.ceil(tokens / (THREADS / 32)),
          tensors: [q, k, v, y],
          numbers: [tokens, heads, keyHeads, size, options.scale],
          constants: [Math.ceil(size / 32) * 32],
        });
        return y;
      },
    });
  const last = Math.min(2, tokens);
  return {
    shape: `${tokens} tokens, ${heads} heads of ${size}, ${keyHeads} of keys`,
    work: {
      bytes: 4 * (2 * q.size + 2 * k.size),
      operations: { [engine.precision]: 2 * tokens * tokens * hidden },
    },
    versions,
    torch: { operation: "attention", shape: [tokens, heads, keyHeads, size], precision: engine.precision },
    tolerance: ATTENTION_ERRORS[engine.precision],
    /** The last queries, which see all keys. */
    async check(run) {
      const got = await lastTokens(bench, (await run()) as F32, last);
      const [query, key, value] = [await lastTokens(bench, q, last), await engine.read(k), await engine.read(v)];
      const want = await expected(bench, (on, f32) =>
        on.attention(f32(query, [1, last, heads, size]), f32(key, k.shape), f32(value, v.shape), options),
      );
      return largestError(got, want);
    },
  };
};

const attended = (bench: Bench, { tokens, heads, keyValueHeads, hidden }: Parameters<MakeCase>[1]): [F32, F32, F32] => {
  const size = hidden / heads;
  const draw = (count: number) => bench.draw([1, tokens, count, size]);
  return [draw(heads), draw(keyValueHeads), draw(keyValueHeads)];
};

const lastTokens = (bench: Bench, x: F32, count: number) => {
  const [, tokens, ...rest] = x.shape;
  return rowsOf(bench, bench.engine.view(x, [tokens, ...rest]), tokens - count, count);
};

/** Tokens whose gradients of q are checked: those behind do not reach them. */
const LEADING = 64;

const attentionGrad: MakeCase = (bench, extents) => {
  const { engine, draw } = bench;
  const { tokens, heads, keyValueHeads: keyHeads, hidden } = extents;
  const size = hidden / heads;
  const [q, k, v] = attended(bench, extents);
  const grad = draw([1, tokens, heads, size]);
  const options = { scale: size ** -0.5 };
  const output = engine.attention(q, k, v, options);
  const leading = Math.min(LEADING, tokens);
  const first = (x: F32) => engine.read(engine.view(x, [leading * x.shape[2] * size]));
  const sumOfKeys = async (x: F32): Promise<Float64Array> => {
    const sums = await engine.read(engine.sumRows(engine.view(x, [tokens, x.shape[2] * size])));
    const result = new Float64Array(keyHeads * size);
    const sharing = x.shape[2] / keyHeads;
    for (const [i, sum] of sums.entries()) result[Math.floor(i / size / sharing) * size + (i % size)] += sum;
    return result;
  };
  return {
    shape: `${tokens} tokens, ${heads} heads of ${size}, ${keyHeads} of keys`,
    work: {
      bytes: 4 * (4 * q.size + 4 * k.size),
      operations: { [engine.precision]: 5 * tokens * tokens * hidden },
    },
    versions: [withFresh(bench, [q, k, v, grad], () => engine.attentionGrad(q, k, v, output, grad, options))],
    torch: { operation: "attentionGrad", shape: [tokens, heads, keyHeads, size], precision: engine.precision },
    tolerance: engine.precision === "f32" ? 1e-4 : 1e-2,
    /**
     * The gradient of the first queries; that the gradients of all values sum to those of all outputs, as weights of a query sum
     * to 1; and that q dq and k dk have the same sum.
     */
    async check(run) {
      const gradients = (await run()) as Record<"q" | "k" | "v", F32>;
      const host: Float32Array[] = [];
      for (const x of [q, k, v, output, grad]) host.push(await first(x));
      const want = await expected(bench, (on, f32) => {
        const [a, b, c, d, e] = host.map((data, i) => {
          return f32(data, [1, leading, i === 1 || i === 2 ? keyHeads : heads, size]);
        });
        return on.attentionGrad(a, b, c, d, e, options).q;
      });
      const ofValues = largestError(await sumOfKeys(gradients.v), await sumOfKeys(grad));
      const [ofQueries, ofKeys] = [await engine.dot(q, gradients.q), await engine.dot(k, gradients.k)];
      const spread = Math.sqrt((await engine.dot(gradients.q, gradients.q)) * q.size);
      return Math.max(
        largestError(await first(gradients.q), want),
        ofValues,
        Math.abs(ofQueries - ofKeys) / Math.max(spread, 1e-30),
      );
    },
  };
};

/** An operation whose last two rows depend on the last two rows of its [R, C] inputs alone. */
function rowCase(
  bench: Bench,
  inputs: readonly F32[],
  versions: Version[],
  on: (engine: Bench["reference"], inputs: F32[]) => Tensor<"f32" | "f16">,
  { tolerance, bytesPerElement, torch }: { tolerance: number; bytesPerElement: number; torch: string },
): Case {
  const [rows, width] = inputs[0].shape;
  const count = Math.min(2, rows);
  return {
    shape: `[${rows}, ${width}]`,
    work: { bytes: bytesPerElement * rows * width },
    versions,
    torch: { operation: torch, shape: [rows, width] },
    tolerance,
    async check(run) {
      const result = (await run()) as F32 | F32[];
      const results = Array.isArray(result) ? result : [result];
      const host: Float32Array[] = [];
      for (const input of inputs) host.push(await rowsOf(bench, input, rows - count, count));
      const got = await rowsOf(bench, results[0], rows - count, count);
      const want = await expected(bench, (engine, f32) =>
        on(
          engine,
          host.map((data) => f32(data, [count, width])),
        ),
      );
      return largestError(got, want);
    },
  };
}

const rmsNorm: MakeCase = (bench, { tokens, hidden }) => {
  const { engine, draw } = bench;
  const x = draw([tokens, hidden]);
  const factors = normal(hidden);
  const weight = engine.upload(factors, [hidden], "f32");
  const versions: Version[] = [{ name: "product", run: () => engine.rmsNorm(x, weight, EPSILON) }];
  if (bench.kind === "cuda")
    versions.unshift({
      name: "a thread a row",
      run: () => {
        const y = engine.empty(x.shape);
        const numbers = [tokens, hidden, EPSILON];
        engine.run(RMS_NORM_THREADS, { groups: Math.ceil(tokens / THREADS), tensors: [x, weight, y], numbers });
        return y;
      },
    });
  const on = (engine: Bench["reference"], [x]: F32[]) =>
    engine.rmsNorm(x, engine.upload(factors, [hidden], "f32"), EPSILON);
  return rowCase(bench, [x], versions, on, { tolerance: 5e-6, bytesPerElement: 8, torch: "rmsNorm" });
};

const rmsNormGrad: MakeCase = (bench, { tokens, hidden }) => {
  const { engine, draw } = bench;
  const [x, grad, weight] = [draw([tokens, hidden]), draw([tokens, hidden]), draw([hidden])];
  const call = (): F32[] => {
    const found = engine.rmsNormGrad(x, weight, EPSILON, grad);
    return found.weight ? [found.x, found.weight] : [found.x];
  };
  return {
    shape: `[${tokens}, ${hidden}]`,
    work: { bytes: 12 * x.size },
    versions: [{ name: "product", run: call }],
    torch: { operation: "rmsNormGrad", shape: [tokens, hidden] },
    tolerance: 1e-5,
    /** All of it. */
    async check(run) {
      const got = (await run()) as F32[];
      const host = [await engine.read(x), await engine.read(weight), await engine.read(grad)];
      const errors: number[] = [];
      for (const [i, name] of (["x", "weight"] as const).entries()) {
        const want = await expected(bench, (on, f32) => {
          const shape = [tokens, hidden];
          const found = on.rmsNormGrad(f32(host[0], shape), f32(host[1], [hidden]), EPSILON, f32(host[2], shape));
          return found[name] as F32;
        });
        errors.push(largestError(await engine.read(got[i]), want));
      }
      return Math.max(...errors);
    },
  };
};

/** One kernel of the laboratory over all elements, four a thread. */
const byFours = (bench: Bench, kernel: typeof ADD_FOURS, a: F32, b: F32): Version => ({
  name: "four numbers a load, aligned operands only",
  run: () => {
    const y = bench.engine.empty(a.shape);
    bench.engine.run(kernel, { groups: Math.ceil(a.size / (4 * THREADS)), tensors: [a, b, y], numbers: [a.size] });
    return y;
  },
});

const add: MakeCase = (bench, { tokens, hidden }) => {
  const { engine, draw } = bench;
  const [a, b] = [draw([tokens, hidden]), draw([tokens, hidden])];
  const versions: Version[] = [{ name: "product", run: () => engine.add(a, b) }];
  if (bench.kind === "cuda") versions.unshift(byFours(bench, ADD_FOURS, a, b));
  const on = (engine: Bench["reference"], [a, b]: F32[]) => engine.add(a, b);
  return rowCase(bench, [a, b], versions, on, { tolerance: 0, bytesPerElement: 12, torch: "add" });
};

const siluMultiply: MakeCase = (bench, { tokens, mlp }) => {
  const { engine, draw } = bench;
  const [gate, up] = [draw([tokens, mlp]), draw([tokens, mlp])];
  const versions: Version[] = [{ name: "product", run: () => engine.siluMultiply(gate, up) }];
  if (bench.kind === "cuda") versions.unshift(byFours(bench, SILU_MULTIPLY_FOURS, gate, up));
  const on = (engine: Bench["reference"], [gate, up]: F32[]) => engine.siluMultiply(gate, up);
  return rowCase(bench, [gate, up], versions, on, { tolerance: 2e-6, bytesPerElement: 12, torch: "siluMultiply" });
};

const siluMultiplyGrad: MakeCase = (bench, { tokens, mlp }) => {
  const { engine, draw } = bench;
  const inputs = [draw([tokens, mlp]), draw([tokens, mlp]), draw([tokens, mlp])] as const;
  const run = () => {
    const found = engine.siluMultiplyGrad(...inputs);
    return [found.gate, found.up];
  };
  const on = (engine: Bench["reference"], [gate, up, grad]: F32[]) => engine.siluMultiplyGrad(gate, up, grad).gate;
  const facts = { tolerance: 5e-6, bytesPerElement: 20, torch: "siluMultiplyGrad" };
  return rowCase(bench, inputs, [{ name: "product", run }], on, facts);
};

const cast: MakeCase = (bench, { mlp, hidden }) => {
  const { engine, draw } = bench;
  const x = draw([mlp, hidden]);
  const run = () => engine.cast(x, "f16");
  const on = (engine: Bench["reference"], [x]: F32[]) => engine.cast(x, "f16");
  return rowCase(bench, [x], [{ name: "product", run }], on, { tolerance: 0, bytesPerElement: 6, torch: "cast" });
};

const dot: MakeCase = (bench, { tokens, hidden }) => {
  const { engine, draw } = bench;
  const [a, b] = [draw([tokens, hidden]), draw([tokens, hidden])];
  return {
    shape: `[${tokens}, ${hidden}], with the wait for it`,
    work: { bytes: 8 * a.size, operations: { f64: 2 * a.size } },
    versions: [{ name: "product", run: () => engine.dot(a, b) }],
    torch: { operation: "dot", shape: [a.size] },
    tolerance: 1e-9,
    async check(run) {
      const [x, y] = [await engine.read(a), await engine.read(b)];
      let [want, size] = [0, 0];
      for (let i = 0; i < x.length; i++) {
        want += x[i] * y[i];
        size += Math.abs(x[i] * y[i]);
      }
      return Math.abs(((await run()) as number) - want) / size;
    },
  };
};

export const ATTENTION_CASES = { attention, attentionGrad } as const satisfies Record<string, MakeCase>;

export const LAYER_CASES = {
  ...ATTENTION_CASES,
  rmsNorm,
  rmsNormGrad,
  siluMultiply,
  siluMultiplyGrad,
  add,
  cast,
  dot,
} as const satisfies Record<string, MakeCase>;
