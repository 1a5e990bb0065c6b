import { compositeOperations } from "../engine/composite.js";
import type { AffineGrid, Engine, MatmulOptions } from "../engine/engine.js";
import { usageError } from "../errors.js";
import { type DType, type F32, sizeOf, type Tensor } from "../tensor/index.js";
import type { Tape } from "./tape.js";

// The engine that records: each differentiable operation with its vector-Jacobian rule. `g` is the gradient of the result.

/** The base engine's operations, and the rules below in place of those that have one. */
export function differentiable(tape: Tape): Engine {
  return { ...delegate(tape), ...elementwise(tape), ...layout(tape), ...decoder(tape), ...grids(tape) };
}

/** Every method of the base engine; those that take tensors and have no rule refuse watched ones. */
function delegate(tape: Tape): Engine {
  const { base } = tape;
  const result: Record<string, unknown> = {};
  for (let object: object = base; object !== Object.prototype; object = Object.getPrototypeOf(object)) {
    for (const name of Object.getOwnPropertyNames(object)) {
      if (name === "constructor" || name in result) continue;
      const value: unknown = Reflect.get(base, name);
      result[name] = isMethod(value) ? guarded(tape, name, value) : value;
    }
  }
  return result as unknown as Engine;
}

type Method = (...args: unknown[]) => unknown;
const isMethod = (value: unknown): value is Method => typeof value === "function";

/** Operations that move no numbers, or whose results are only looked at. */
const FREE = new Set([
  "scope",
  "keep",
  "read",
  "dot",
  "allFinite",
  "argmax",
  "close",
  "liveBytes",
  "peakBytes",
  "roomBytes",
]);

function guarded(tape: Tape, name: string, method: Method): Method {
  if (FREE.has(name)) return method.bind(tape.base);
  return (...args: unknown[]) => {
    if (args.some((argument) => tape.isWatched(argument as Tensor | undefined))) {
      throw usageError(
        `${name} has no gradient rule, and an input of it is watched`,
        "take it out of the forward pass",
      );
    }
    return method.apply(tape.base, args);
  };
}

type Operations<Name extends keyof Engine> = Pick<Engine, Name>;

function elementwise(
  tape: Tape,
): Operations<
  "add" | "subtract" | "multiply" | "divide" | "scale" | "scaleRows" | "exp" | "relu" | "gelu" | "siluMultiply"
> {
  const { base } = tape;
  /** Gradient of b, which may have been repeated over the leading axes. */
  const folded = (g: F32, b: F32): F32 => (g.size === b.size ? base.view(g, b.shape) : base.sumRows(g));
  return {
    add: (a, b) => tape.record(base.add(a, b), [a, b], [], (g) => [g, tape.isWatched(b) ? folded(g, b) : undefined]),
    subtract: (a, b) =>
      tape.record(base.subtract(a, b), [a, b], [], (g) => [
        g,
        tape.isWatched(b) ? base.scale(folded(g, b), -1) : undefined,
      ]),
    multiply(a, b) {
      const [left, right] = [tape.isWatched(a), tape.isWatched(b)];
      return tape.record(base.multiply(a, b), [a, b], [a, b], (g, [x, y]) => [
        left ? base.multiply(g, y) : undefined,
        right ? folded(base.multiply(g, x), y) : undefined,
      ]);
    },
    divide(a, b) {
      const [left, right] = [tape.isWatched(a), tape.isWatched(b)];
      const output = base.divide(a, b);
      return tape.record(output, [a, b], [output, b], (g, [out, y]) => [
        left ? base.divide(g, y) : undefined,
        right ? base.scale(base.divide(folded(base.multiply(g, out), y), y), -1) : undefined,
      ]);
    },
    scale: (a, factor) => tape.record(base.scale(a, factor), [a], [], (g) => [base.scale(g, factor)]),
    scaleRows(a, factors) {
      const [left, right] = [tape.isWatched(a), tape.isWatched(factors)];
      return tape.record(base.scaleRows(a, factors), [a, factors], [a, factors], (g, [x, f]) => [
        left ? base.scaleRows(g, f) : undefined,
        right ? base.rowDots(g, x) : undefined,
      ]);
    },
    exp(a) {
      const output = base.exp(a);
      return tape.record(output, [a], [output], (g, [out]) => [base.multiply(g, out)]);
    },
    relu: (a) => tape.record(base.relu(a), [a], [a], (g, [x]) => [base.reluGrad(x, g)]),
    gelu: (a) => tape.record(base.gelu(a), [a], [a], (g, [x]) => [base.geluGrad(x, g)]),
    siluMultiply: (gate, up) =>
      tape.record(base.siluMultiply(gate, up), [gate, up], [gate, up], (g, [a, b]) => {
        const grads = base.siluMultiplyGrad(a, b, g);
        return [grads.gate, grads.up];
      }),
  };
}

function layout(tape: Tape): Operations<"view" | "copy" | "cast" | "transpose" | "gatherRows"> {
  const { base } = tape;
  return {
    view<D extends DType>(tensor: Tensor<D>, shape: readonly number[], offset = 0): Tensor<D> {
      return tape.record(base.view(tensor, shape, offset), [tensor], [], (g) => {
        if (sizeOf(shape) === tensor.size) return [base.view(g, tensor.shape)];
        const whole = base.create(tensor.shape);
        base.copyInto(whole, g, offset);
        return [whole];
      });
    },
    copy: (tensor) => tape.record(base.copy(tensor), [tensor], [], (g) => [g]),
    /** Rounding is straight-through. */
    cast<D extends DType>(tensor: Tensor, dtype: D): Tensor<D> {
      return tape.record(base.cast(tensor, dtype), [tensor], [], (g) => [g]);
    },
    transpose: (a) => tape.record(base.transpose(a), [a], [], (g) => [base.transpose(g)]),
    gatherRows(table, indices) {
      const { shape } = table;
      return tape.record(base.gatherRows(table, indices), [table], [indices], (g, [rows]) => {
        const count = rows.size;
        const ones = base.upload(new Float32Array(count).fill(1), [count], "f32");
        const each = base.view(g, [count, sizeOf(shape.slice(1))]);
        return [base.view(base.segmentSum(each, ones, base.view(rows, [count]), shape[0]).sums, shape)];
      });
    },
  };
}

function decoder(tape: Tape): Operations<"matmul" | "hadamard" | "rmsNorm" | "layerNorm" | "rope" | "attention"> {
  const { base } = tape;
  return {
    matmul(a, b, options: MatmulOptions = {}) {
      if (options.accumulate && [a, b, options.accumulate].some((tensor) => tape.isWatched(tensor))) {
        throw usageError("matmul: `accumulate` has no gradient rule", "add the product instead");
      }
      const { transposeA = false, transposeB = false, alpha } = options;
      const [left, right] = [tape.isWatched(a), tape.isWatched(b)];
      return tape.record(base.matmul(a, b, options), [a, b], [a, b], (g, [x, y]) => [
        !left
          ? undefined
          : transposeA
            ? base.matmul(y, g, { transposeA: transposeB, transposeB: true, alpha })
            : base.matmul(g, y, { transposeB: !transposeB, alpha }),
        !right
          ? undefined
          : transposeB
            ? base.matmul(g, x, { transposeA: true, transposeB: transposeA, alpha })
            : base.matmul(x, g, { transposeA: !transposeA, alpha }),
      ]);
    },
    /** Symmetric. */
    hadamard: (x) => tape.record(base.hadamard(x), [x], [], (g) => [base.hadamard(g)]),
    rmsNorm(x, weight, epsilon) {
      const wanted = { weight: tape.isWatched(weight) };
      return tape.record(base.rmsNorm(x, weight, epsilon), [x, weight], [x, weight], (g, [a, w]) => {
        const grads = base.rmsNormGrad(a, w, epsilon, g, wanted);
        return [grads.x, grads.weight];
      });
    },
    layerNorm(x, weight, bias, epsilon) {
      const wanted = { weight: tape.isWatched(weight) || tape.isWatched(bias) };
      return tape.record(base.layerNorm(x, weight, bias, epsilon), [x, weight, bias], [x, weight], (g, [a, w]) => {
        const grads = base.layerNormGrad(a, w, epsilon, g, wanted);
        return [grads.x, grads.weight, grads.bias];
      });
    },
    /** A rotation: the transpose turns back. */
    rope: (x, cos, sin, start) =>
      tape.record(base.rope(x, cos, sin, start), [x], [cos, sin], (g, [c, s]) => [
        base.rope(g, c, base.scale(s, -1), start),
      ]),
    attention(q, k, v, options) {
      const output = base.attention(q, k, v, options);
      const saved = options.slopes ? [q, k, v, output, options.slopes] : [q, k, v, output];
      return tape.record(output, [q, k, v], saved, (g, [query, key, value, out, slopes]) => {
        const grads = base.attentionGrad(query, key, value, out, g, { ...options, slopes });
        return [grads.q, grads.k, grads.v];
      });
    },
  };
}

function grids(tape: Tape): Operations<"clippedGrid" | "fakeQuantize" | "clippedFakeQuantize" | "fakeQuantizeRows"> {
  const { base } = tape;
  return {
    clippedGrid(weights, clipping, options): AffineGrid {
      const { scale, zero } = base.clippedGrid(weights, clipping, options);
      const saved = clipping ? [weights, clipping.upper, clipping.lower] : [weights];
      const wanted = { weights: tape.isWatched(weights) };
      tape.record(scale, [weights, clipping?.upper, clipping?.lower], saved, (g, [w, upper, lower]) => {
        const grads = base.clippedGridGrad(w, upper && lower ? { upper, lower } : undefined, g, options, wanted);
        return [grads.weights, grads.upper, grads.lower];
      });
      return { scale, zero };
    },
    fakeQuantize(weights, grid, options) {
      const { scale, zero } = grid;
      const wanted = { weights: tape.isWatched(weights) };
      return tape.record(
        base.fakeQuantize(weights, grid, options),
        [weights, scale, zero],
        [weights, scale, zero],
        (g, [w, s, z]) => {
          const grads = base.fakeQuantizeGrad(w, { scale: s, zero: z }, g, options, wanted);
          return [grads.weights, grads.scale, grads.zero];
        },
      );
    },
    clippedFakeQuantize(weights, factors, clipping, options) {
      // the fused rule takes the weights for constants
      if (tape.isWatched(weights))
        return compositeOperations(tape.engine).clippedFakeQuantize(weights, factors, clipping, options);
      const inputs = [factors.rows, factors.columns, clipping?.upper, clipping?.lower];
      const given = inputs.filter((input) => input !== undefined);
      const output = base.clippedFakeQuantize(weights, factors, clipping, options);
      return tape.record(output, inputs, [weights, ...given], (g, [w, ...saved]) => {
        const [rows, columns, upper, lower] = inputs.map((input) => input && saved[given.indexOf(input)]);
        const logits = upper && lower ? { upper, lower } : undefined;
        const grads = base.clippedFakeQuantizeGrad(w, { rows, columns }, logits, g, options);
        return [grads.rows, grads.columns, grads.upper, grads.lower];
      });
    },
    fakeQuantizeRows: (x, bits, symmetric) =>
      tape.record(base.fakeQuantizeRows(x, bits, symmetric), [x], [x], (g, [a]) => [
        base.fakeQuantizeRowsGrad(a, bits, g, symmetric),
      ]),
  };
}
