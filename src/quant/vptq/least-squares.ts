import type { CodebookSegment, Engine } from "../../engine/engine.js";
import type { F32, I32 } from "../../tensor/index.js";
import { breathe } from "../../turns.js";
import { type Codes, decodeCodes, vectorsOf } from "./codes.js";

export interface LeastSquaresProblem {
  /** W^T [I, P] in sweep order. */
  weights: F32;
  /** H [I, I], positive definite. */
  hessian: F32;
  /** Weight of each row of W, [P]: 0 for padding. Default all 1. */
  rowWeights?: F32;
}

export interface LeastSquaresOptions {
  /** Most steps of conjugate gradients. Default 20. */
  iterations?: number;
  /** Stop when a step gains less than this share of the gain so far. Default 1e-3. */
  tolerance?: number;
  signal?: AbortSignal;
}

/**
 * The centroids that minimise tr(E H E^T), E = W - Q, for the codewords already chosen: all stages of all segments at
 * once.
 *
 * The normal equations A x = A (H E) have the operator x -> adjoint(H decode(x)), where decode sums codewords and its
 * adjoint sums vectors over the codewords that they chose. Conjugate gradients from the present centroids,
 * preconditioned by A's diagonal; the algebra of the (few) centroids is f64 on the host, the products run on the
 * engine. Codewords that nobody chose stay as they are. Residual stages make A singular (a shift may move between
 * stages), which conjugate gradients bear.
 */
export async function leastSquaresCentroids(
  engine: Engine,
  problem: LeastSquaresProblem,
  codes: Codes,
  options: LeastSquaresOptions = {},
): Promise<CodebookSegment[]> {
  const { iterations = 20, tolerance = 5e-2, signal } = options;
  return engine.scope(async () => {
    const system = normalEquations(engine, problem, codes);
    const start = await system.readCentroids();
    const step = new Float64Array(start.length);
    const residual = await system.gradient();
    const inverse = (await system.diagonal()).map((value) => (value > 0 ? 1 / value : 0));
    let z = multiply(inverse, residual);
    const direction = Float64Array.from(z);
    let rz = dot(residual, z);
    let gained = 0;
    for (let iteration = 0; iteration < iterations && rz > 0; iteration++) {
      await breathe(signal);
      const product = await system.apply(direction);
      const curvature = dot(direction, product);
      if (!(curvature > 0)) break;
      const length = rz / curvature;
      for (let i = 0; i < step.length; i++) {
        step[i] += length * direction[i];
        residual[i] -= length * product[i];
      }
      const gain = length * rz;
      gained += gain;
      if (gain < tolerance * gained) break;
      z = multiply(inverse, residual);
      const next = dot(residual, z);
      const turn = next / rz;
      for (let i = 0; i < direction.length; i++) direction[i] = z[i] + turn * direction[i];
      rz = next;
    }
    return system.segmentsOf(start.map((value, i) => value + step[i]));
  });
}

const multiply = (a: Float64Array, b: Float64Array): Float64Array => a.map((value, i) => value * b[i]);

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/** The linear algebra of one problem; centroids of all segments and stages are one long vector on the host. */
function normalEquations(engine: Engine, problem: LeastSquaresProblem, codes: Codes) {
  const { weights, hessian, rowWeights } = problem;
  const [columns, paddedRows] = weights.shape;
  const books = codes.segments.flatMap(({ stages }) => stages);
  const size = books.reduce((sum, book) => sum + book.size, 0);

  const segmentsOf = (values: Float64Array): CodebookSegment[] => {
    let offset = 0;
    return codes.segments.map((segment) => ({
      ...segment,
      stages: segment.stages.map((book) => {
        const part = Float32Array.from(values.subarray(offset, offset + book.size));
        offset += book.size;
        return engine.upload(part, book.shape, "f32");
      }),
    }));
  };

  const ones = codes.segments.map(({ begin, end, stages }) => {
    const vectors = ((end - begin) * paddedRows) / stages[0].shape[1];
    return engine.upload(new Float32Array(vectors).fill(1), [vectors], "f32");
  });
  /** Sums of the vectors of y [I, P] over the codewords that they chose, rows weighted. */
  const adjoint = async (y: F32): Promise<Float64Array> => {
    const weighted = rowWeights ? engine.multiply(y, rowWeights) : y;
    const result = new Float64Array(size);
    let offset = 0;
    for (const [s, { begin, end, stages }] of codes.segments.entries()) {
      for (const [stage, book] of stages.entries()) {
        const vectors = vectorsOf(engine, weighted, begin, end, book.shape[1]);
        const chosen = flat(engine, codes.indices[s][stage]);
        result.set(await engine.read(engine.segmentSum(vectors, ones[s], chosen, book.shape[0]).sums), offset);
        offset += book.size;
      }
    }
    return result;
  };

  return {
    segmentsOf,
    readCentroids: async (): Promise<Float64Array> => {
      const values = new Float64Array(size);
      let offset = 0;
      for (const book of books) {
        values.set(await engine.read(book), offset);
        offset += book.size;
      }
      return values;
    },
    /** adjoint(H (W - Q)): minus half the gradient at the present centroids. */
    gradient: (): Promise<Float64Array> =>
      engine.scope(() => {
        const error = engine.subtract(weights, decodeCodes(engine, codes, columns, paddedRows));
        return adjoint(engine.matmul(hessian, error, { exact: true }));
      }),
    /** adjoint(H decode(x)). */
    apply: (x: Float64Array): Promise<Float64Array> =>
      engine.scope(() => {
        const decoded = decodeCodes(engine, { segments: segmentsOf(x), indices: codes.indices }, columns, paddedRows);
        return adjoint(engine.matmul(hessian, decoded, { exact: true }));
      }),
    /** The diagonal of A but for pairs of columns that chose the same codeword: sums of H_ii. */
    diagonal: (): Promise<Float64Array> =>
      engine.scope(() => {
        const ofColumns = engine.view(engine.diagonal(hessian), [columns, 1]);
        const acrossRows = engine.upload(new Float32Array(paddedRows).fill(1), [1, paddedRows], "f32");
        return adjoint(engine.matmul(ofColumns, acrossRows, { exact: true }));
      }),
  };
}

/** Indices [columns, P / v] as one row. */
const flat = (engine: Engine, indices: I32): I32 => engine.view(indices, [indices.size]);
