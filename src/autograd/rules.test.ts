import { describe, expect, it } from "vitest";
import { AUTOGRAD_RULES } from "../../test/tolerances.js";
import type { Engine } from "../engine/engine.js";
import { createReferenceEngine } from "../engine/reference/index.js";
import { createRandom } from "../random.js";
import { type F32, sizeOf } from "../tensor/index.js";
import { Tape } from "./tape.js";

// Each rule against central differences of a plain f64 version of its operation.

type Numbers = Float64Array;
interface Rule {
  name: string;
  shapes: number[][];
  /** On the recording engine. */
  run(engine: Engine, inputs: F32[]): F32;
  /** The same in f64. */
  plain(inputs: Numbers[]): Numbers;
  /** Keeps inputs away from 0. */
  positive?: boolean;
}

const map = (a: Numbers, f: (value: number, index: number) => number): Numbers => a.map(f);
const product = (a: Numbers, b: Numbers, m: number, k: number, n: number): Numbers => {
  const out = new Float64Array(m * n);
  for (let i = 0; i < m; i++)
    for (let j = 0; j < n; j++) for (let l = 0; l < k; l++) out[i * n + j] += a[i * k + l] * b[l * n + j];
  return out;
};
const turned = (a: Numbers, rows: number, columns: number): Numbers =>
  Float64Array.from({ length: a.length }, (_, at) => a[(at % rows) * columns + Math.floor(at / rows)]);

const binary = (name: "add" | "subtract" | "multiply" | "divide", f: (a: number, b: number) => number): Rule[] =>
  [
    [
      [3, 4],
      [3, 4],
    ],
    [[3, 4], [4]],
  ].map((shapes) => ({
    name: `${name} [${shapes[0]}] and [${shapes[1]}]`,
    shapes,
    run: (engine, [a, b]) => engine[name](a, b),
    plain: ([a, b]) => map(a, (value, i) => f(value, b[i % b.length])),
    positive: name === "divide",
  }));

const matmuls: Rule[] = [false, true].flatMap((transposeA) =>
  [false, true].map((transposeB) => ({
    name: `matmul${transposeA ? " a transposed" : ""}${transposeB ? " b transposed" : ""}`,
    shapes: [transposeA ? [4, 3] : [3, 4], transposeB ? [5, 4] : [4, 5]],
    run: (engine: Engine, [a, b]: F32[]) => engine.matmul(a, b, { transposeA, transposeB, alpha: 0.7 }),
    plain: ([a, b]: Numbers[]) =>
      map(product(transposeA ? turned(a, 4, 3) : a, transposeB ? turned(b, 5, 4) : b, 3, 4, 5), (x) => 0.7 * x),
  })),
);

const RULES: Rule[] = [
  ...binary("add", (a, b) => a + b),
  ...binary("subtract", (a, b) => a - b),
  ...binary("multiply", (a, b) => a * b),
  ...binary("divide", (a, b) => a / b),
  ...matmuls,
  {
    name: "scale",
    shapes: [[5]],
    run: (engine, [a]) => engine.scale(a, -1.5),
    plain: ([a]) => map(a, (x) => -1.5 * x),
  },
  {
    name: "scaleRows",
    shapes: [[3, 4], [3]],
    run: (engine, [a, f]) => engine.scaleRows(a, f),
    plain: ([a, f]) => map(a, (x, i) => x * f[Math.floor(i / 4)]),
  },
  { name: "exp", shapes: [[5]], run: (engine, [a]) => engine.exp(a), plain: ([a]) => map(a, Math.exp) },
  {
    name: "siluMultiply",
    shapes: [
      [2, 3],
      [2, 3],
    ],
    run: (engine, [g, u]) => engine.siluMultiply(g, u),
    plain: ([g, u]) => map(g, (x, i) => (x / (1 + Math.exp(-x))) * u[i]),
  },
  {
    name: "part of a view",
    shapes: [[4, 3]],
    run: (engine, [a]) => engine.view(a, [2, 3], 3),
    plain: ([a]) => a.slice(3, 9),
  },
  {
    name: "transpose",
    shapes: [[4, 3]],
    run: (engine, [a]) => engine.transpose(a),
    plain: ([a]) => turned(a, 4, 3),
  },
  {
    name: "gatherRows with a row taken twice",
    shapes: [[3, 2]],
    run: (engine, [a]) => engine.gatherRows(a, engine.upload(Int32Array.of(2, 0, 2, 1), [4], "i32")),
    plain: ([a]) => Float64Array.from([2, 0, 2, 1].flatMap((row) => [a[2 * row], a[2 * row + 1]])),
  },
  {
    name: "hadamard",
    shapes: [[3, 4]],
    run: (engine, [a]) => engine.hadamard(a),
    plain: ([a]) =>
      product(
        a,
        Float64Array.of(1, 1, 1, 1, 1, -1, 1, -1, 1, 1, -1, -1, 1, -1, -1, 1).map((x) => x / 2),
        3,
        4,
        4,
      ),
  },
  {
    name: "rmsNorm",
    shapes: [[3, 4], [4]],
    run: (engine, [x, w]) => engine.rmsNorm(x, w, 1e-5),
    plain: ([x, w]) =>
      map(x, (value, i) => {
        const row = x.subarray(i - (i % 4), i - (i % 4) + 4);
        return (value / Math.sqrt(row.reduce((sum, y) => sum + y * y, 0) / 4 + 1e-5)) * w[i % 4];
      }),
  },
  {
    name: "layerNorm",
    shapes: [[3, 4], [4], [4]],
    run: (engine, [x, w, b]) => engine.layerNorm(x, w, b, 1e-5),
    plain: ([x, w, b]) =>
      map(x, (value, i) => {
        const row = x.subarray(i - (i % 4), i - (i % 4) + 4);
        const mean = row.reduce((sum, y) => sum + y, 0) / 4;
        const variance = row.reduce((sum, y) => sum + (y - mean) ** 2, 0) / 4;
        return ((value - mean) / Math.sqrt(variance + 1e-5)) * w[i % 4] + b[i % 4];
      }),
  },
  {
    name: "a tensor used twice",
    shapes: [[3, 3]],
    run: (engine, [a]) => engine.add(engine.matmul(a, a), engine.multiply(a, a)),
    plain: ([a]) => map(product(a, a, 3, 3, 3), (x, i) => x + a[i] ** 2),
  },
];

describe("vector-Jacobian rules against central differences in f64", () => {
  for (const rule of RULES) {
    it(rule.name, async () => {
      const engine = createReferenceEngine();
      const random = createRandom(7, rule.name);
      const data = rule.shapes.map((shape) =>
        Float32Array.from({ length: sizeOf(shape) }, () => (rule.positive ? 0.5 + random.next() : random.normal())),
      );
      const tape = new Tape(engine);
      const inputs = rule.shapes.map((shape, i) => tape.watch(engine.upload(data[i], shape, "f32")));
      const output = rule.run(tape.engine, inputs);
      const seed = Float32Array.from({ length: output.size }, () => random.normal());
      const grads = tape.backward(output, engine.upload(seed, output.shape, "f32"), inputs);
      const value = (values: Numbers[]) => rule.plain(values).reduce((sum, y, i) => sum + y * seed[i], 0);
      for (const [index, grad] of grads.entries()) {
        const got = await engine.read(grad);
        const expected = got.map((_, at) => {
          const moved = (by: number) =>
            data.map((one, i) => Float64Array.from(one, (x, j) => (i === index && j === at ? x + by : x)));
          return (value(moved(1e-6)) - value(moved(-1e-6))) / 2e-6;
        });
        const largest = Math.max(1, ...expected.map(Math.abs));
        for (const [at, x] of got.entries()) {
          expect(Math.abs(x - expected[at]), `input ${index}, element ${at}`).toBeLessThanOrEqual(
            AUTOGRAD_RULES * largest,
          );
        }
      }
    });
  }
});
