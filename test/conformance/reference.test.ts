import { afterAll, describe, expect, it } from "vitest";
import type { CodebookSegment } from "../../src/engine/engine.js";
import { createReferenceEngine } from "../../src/engine/reference/index.js";
import type { F32, I32, Tensor } from "../../src/tensor/index.js";
import { GOLDEN, IDENTITY } from "../tolerances.js";
import { collect, f32, type Input, i32, normal, positiveDefinite, whole } from "./case.js";
import { expectClose } from "./compare.js";
import { conformance } from "./suite.js";

conformance("reference", createReferenceEngine);

// What the reference computes, written down a second time: f64, whole matrices, no thought for speed.

type Matrix = number[][];
const matrix = ({ data, shape: [rows, columns] }: Input<"f32">): Matrix =>
  Array.from({ length: rows }, (_, row) => [...data.slice(row * columns, (row + 1) * columns)]);
const transposed = (a: Matrix): Matrix => a[0].map((_, column) => a.map((row) => row[column]));
const times = (a: Matrix, b: Matrix): Matrix => {
  const columns = transposed(b);
  return a.map((row) => columns.map((column) => dot(row, column)));
};
const dot = (a: number[], b: number[]): number => a.reduce((sum, value, i) => sum + value * b[i], 0);
const softmax = (row: number[]): number[] => {
  const powers = row.map((value) => Math.exp(value - Math.max(...row)));
  return powers.map((power) => power / powers.reduce((sum, one) => sum + one));
};
const identity = (n: number): Matrix =>
  Array.from({ length: n }, (_, i) => Array.from({ length: n }, (_, j) => +(i === j)));
const trace = (a: Matrix): number => a.reduce((sum, row, i) => sum + row[i], 0);

describe("the reference engine", () => {
  const engine = createReferenceEngine();
  afterAll(() => engine.close());
  const up = ({ data, shape, dtype }: Input): Tensor => engine.upload(data, shape, dtype);
  const real = (input: Input<"f32">) => up(input) as F32;
  const close = async (value: F32, expected: Matrix | number[], tolerance = GOLDEN) => {
    const [output] = await collect(engine, value);
    expectClose(output, { ...output, data: expected.flat() }, tolerance, "formula");
  };
  const read = async (tensor: F32): Promise<Matrix> => matrix(f32([...tensor.shape], await engine.read(tensor)));

  it("multiplies", async () => {
    const [a, b] = [normal([9, 13], "a"), normal([13, 5], "b")];
    const product = times(matrix(a), matrix(b));
    await close(engine.matmul(real(a), real(b)), product);
    const [turnedA, turnedB] = [engine.transpose(real(a)), engine.transpose(real(b))];
    await close(engine.matmul(turnedA, real(b), { transposeA: true }), product);
    await close(engine.matmul(real(a), turnedB, { transposeB: true }), product);
    await close(
      engine.matmul(turnedA, turnedB, { transposeA: true, transposeB: true, alpha: -2 }),
      product.map((row) => row.map((value) => -2 * value)),
    );
  });

  it("attends: softmax of a matrix of scores, masked", async () => {
    const [tokens, length, size, window] = [5, 8, 4, 3];
    const [q, k, v] = [
      normal([1, tokens, 1, size], "q"),
      normal([1, length, 1, size], "k"),
      normal([1, length, 1, size], "v"),
    ];
    const flat = ({ data, shape }: Input<"f32">) => matrix(f32([shape[1], size], data));
    const scores = times(flat(q), transposed(flat(k))).map((row, t) =>
      row.map((score, s) => {
        const position = length - tokens + t;
        return s <= position && s > position - window ? score / 2 : Number.NEGATIVE_INFINITY;
      }),
    );
    await close(
      engine.attention(real(q), real(k), real(v), { scale: 0.5, window }),
      times(scores.map(softmax), flat(v)),
    );
  });

  it("shares a key-value head between neighboring query heads", async () => {
    const [q, k, v] = [normal([2, 3, 6, 4], "q"), normal([2, 5, 2, 4], "k"), normal([2, 5, 2, 4], "v")];
    const repeat = ({ data, shape }: Input<"f32">) => {
      const heads = matrix(f32([shape[0] * shape[1] * 2, 4], data));
      return f32([2, 5, 6, 4], heads.flatMap((head) => [head, head, head]).flat());
    };
    const grouped = engine.attention(real(q), real(k), real(v), { scale: 0.5 });
    const full = engine.attention(real(q), real(repeat(k)), real(repeat(v)), { scale: 0.5 });
    expect([...(await engine.read(grouped))]).toEqual([...(await engine.read(full))]);
  });

  it("normalizes to a mean square of one", async () => {
    const x = normal([4, 9], "x");
    const rows = matrix(x).map((row) => row.map((value) => value / Math.sqrt(dot(row, row) / 9)));
    await close(engine.rmsNorm(real(x), real(f32([9], new Array(9).fill(1))), 0), rows);
  });

  it("rotates pairs as complex numbers", async () => {
    const [x, angles] = [normal([1, 3, 1, 4], "x"), normal([5, 2], "angles")];
    const [cos, sin] = [f32([5, 2], angles.data.map(Math.cos)), f32([5, 2], angles.data.map(Math.sin))];
    const turned = await engine.read(engine.rope(real(x), real(cos), real(sin), 2));
    for (let t = 0; t < 3; t++)
      for (let i = 0; i < 2; i++) {
        const [before, after] = [x.data, turned].map((data) => [data[4 * t + i], data[4 * t + i + 2]]);
        const angle = Math.atan2(after[1], after[0]) - Math.atan2(before[1], before[0]);
        expect(Math.cos(angle - angles.data[2 * (t + 2) + i])).toBeCloseTo(1, 6);
        expect(Math.hypot(...after)).toBeCloseTo(Math.hypot(...before), 6);
      }
  });

  it("computes losses from probabilities", async () => {
    const [p, q] = [normal([5, 7], "p", 2), normal([5, 7], "q", 2)];
    const targets = [0, 6, 3, 3, 1];
    const [fromP, fromQ] = [p, q].map((logits) => matrix(logits).map(softmax));
    await close(
      engine.crossEntropy(real(q), up(i32([5], targets)) as I32),
      fromQ.map((row, t) => -Math.log(row[targets[t]])),
    );
    await close(
      engine.klDivergence(real(p), real(q)),
      fromP.map((row, t) => row.reduce((sum, one, i) => sum + one * Math.log(one / fromQ[t][i]), 0)),
    );
  });

  it("sums Gram matrices", async () => {
    const [x, start] = [normal([11, 6], "x"), positiveDefinite(6)];
    const weights = normal([11], "weights");
    const accumulator = real(start);
    engine.gram(accumulator, real(x), real(weights));
    const weighted = matrix(x).map((row, t) => row.map((value) => value * weights.data[t]));
    const sum = times(transposed(matrix(x)), weighted);
    await close(
      accumulator,
      sum.map((row, i) => row.map((value, j) => value + start.data[6 * i + j])),
    );
  });

  it("factors and inverts: L L^T = A, L^-1 L = 1", async () => {
    for (const n of [1, 2, 7, 40]) {
      const a = positiveDefinite(n, 0.01);
      const lower = await engine.cholesky(real(a));
      await close(engine.matmul(lower, lower, { transposeB: true }), matrix(a), IDENTITY);
      const inverse = engine.triangularInverse(lower);
      await close(engine.matmul(inverse, lower), identity(n), IDENTITY);
    }
  });

  it("assigns and sums as an exhaustive search does", async () => {
    const [x, c] = [normal([40, 3], "x"), normal([9, 3], "c")];
    const distances = matrix(x).map((row) =>
      matrix(c).map((center) => row.reduce((sum, value, t) => sum + (value - center[t]) ** 2, 0)),
    );
    const found = engine.nearestCodeword(real(x), real(c));
    const nearest = distances.map((row) => row.indexOf(Math.min(...row)));
    expect([...(await engine.read(found.indices))]).toEqual(nearest);
    await close(
      found.distances,
      distances.map((row) => Math.min(...row)),
    );
    const weights = normal([40], "weights");
    const member = Array.from({ length: 9 }, (_, s) => nearest.map((index, i) => (index === s ? weights.data[i] : 0)));
    const { sums, totals } = engine.segmentSum(real(x), real(weights), found.indices, 9);
    await close(sums, times(member, matrix(x)));
    await close(
      totals,
      member.map((row) => row.reduce((sum, value) => sum + value)),
    );
  });

  // With H^-1 = U^T U and feedback = U with each row over its diagonal, the objective tr(E H E^T) of a swept matrix is the sum
  // over columns of their own squared errors at their own turn, each over U_ii^2: what the sweeps are for.
  it("sweeps so that feedback turns the objective into a sum of columns", async () => {
    const [columns, rows] = [12, 8];
    const [hessian, weights] = [positiveDefinite(columns, 0.02), normal([columns, rows], "weights")];
    // U is the upper Cholesky factor of H^-1; H = L L^T of the reversed H gives it by reversing L^-1
    const reversed = f32([columns, columns], [...hessian.data].reverse());
    const inverse = await read(engine.triangularInverse(await engine.cholesky(real(reversed))));
    const upper = inverse.map((row) => [...row].reverse()).reverse();
    const check = times(times(transposed(upper), upper), matrix(hessian));
    expect(Math.max(...check.flatMap((row, i) => row.map((value, j) => Math.abs(value - +(i === j)))))).toBeLessThan(
      1e-4,
    );
    const feedback = real(
      f32(
        [columns, columns],
        upper.flatMap((row, i) => row.map((value) => value / row[i])),
      ),
    );
    const objective = (quantized: Matrix) => {
      const error = matrix(weights).map((row, i) => row.map((value, p) => value - quantized[i][p]));
      return trace(times(times(transposed(error), matrix(hessian)), error));
    };

    const stages = [real(normal([16, 4], "codebook"))];
    const swept = engine.vectorSweep(real(weights), feedback, [{ begin: 0, end: columns, stages }]);
    const [compensated, quantized] = [await read(swept.compensated), await read(swept.quantized)];
    const sum = compensated.reduce((total, row, i) => {
      const error = row.map((value, p) => value - quantized[i][p]);
      return total + dot(error, error) / upper[i][i] ** 2;
    }, 0);
    expect(objective(quantized) / sum).toBeCloseTo(1, 4);
    const plain = engine.vectorSweep(real(weights), undefined, [{ begin: 0, end: columns, stages }]);
    expect(objective(quantized)).toBeLessThan(objective(await read(plain.quantized)));

    const options = {
      bits: 3,
      symmetric: false,
      groups: 3,
      groupOfColumn: Int32Array.from({ length: columns }, (_, i) => i >> 2),
    };
    const [rounded, nearest] = [
      engine.affineSweep(real(weights), feedback, options),
      engine.affineSweep(real(weights), undefined, options),
    ];
    expect(objective(await read(rounded.quantized))).toBeLessThan(objective(await read(nearest.quantized)));
  });

  it("descends by coordinates as trying every codeword does", async () => {
    const [columns, rows, v, codewords] = [5, 6, 2, 7];
    const [hessian, weights] = [matrix(positiveDefinite(columns, 0.05)), matrix(normal([columns, rows], "weights"))];
    const codebook = normal([codewords, v], "codebook");
    const start = whole([columns, rows / v], codewords, "start");
    const decode = (indices: number[][]): Matrix =>
      indices.map((row) => row.flatMap((index) => [...codebook.data.slice(index * v, (index + 1) * v)]));
    const objective = (indices: number[][]) => {
      const error = decode(indices).map((row, i) => row.map((value, p) => weights[i][p] - value));
      return trace(times(times(transposed(error), hessian), error));
    };
    const best = matrix(f32(start.shape, start.data));
    for (const row of best)
      for (let vector = 0; vector < row.length; vector++) {
        const scores = Array.from({ length: codewords }, (_, index) => {
          row[vector] = index;
          return objective(best);
        });
        row[vector] = scores.indexOf(Math.min(...scores));
      }
    const segments: CodebookSegment[] = [{ begin: 0, end: columns, stages: [real(codebook)] }];
    const result = engine.coordinateSweep(
      real(f32([columns, rows], weights.flat())),
      real(f32([columns, columns], hessian.flat())),
      real(f32([columns, rows], decode(matrix(f32(start.shape, start.data))).flat())),
      segments,
      [[up(start) as I32]],
    );
    expect([...(await engine.read(result.indices[0][0]))]).toEqual(best.flat());
    await close(result.quantized, decode(best), {});
  });

  it("finds the best of all pairs with a full beam over two stages", async () => {
    const [x, first, second] = [normal([10, 4], "x"), normal([6, 2], "first"), normal([5, 2], "second", 0.4)];
    const sweep = (beam: number) =>
      engine.vectorSweep(real(x), undefined, [{ begin: 0, end: 10, stages: [real(first), real(second)] }], { beam });
    const quantized = await read(sweep(6).quantized);
    const error = (vector: number[], other: number[]) =>
      vector.reduce((sum, value, t) => sum + (value - other[t]) ** 2, 0);
    for (const [row, values] of matrix(x).entries())
      for (const at of [0, 2]) {
        const vector = values.slice(at, at + 2);
        const sums = matrix(first).flatMap((a) => matrix(second).map((b) => error(vector, [a[0] + b[0], a[1] + b[1]])));
        expect(error(vector, quantized[row].slice(at, at + 2))).toBeCloseTo(Math.min(...sums), 6);
      }
    const total = async (beam: number) => {
      const chosen = await read(sweep(beam).quantized);
      return matrix(x).reduce((sum, row, i) => sum + error(row, chosen[i]), 0);
    };
    const [greedy, two, all] = [await total(1), await total(2), await total(6)];
    expect(two).toBeLessThanOrEqual(greedy);
    expect(all).toBeLessThan(two);
  });
});
