import type { Engine } from "../../src/engine/engine.js";
import { createRandom } from "../../src/random.js";
import { type DType, type HostArray, hostArray, sizeOf, Tensor } from "../../src/tensor/index.js";
import type { Tolerance } from "../tolerances.js";

// A case is data: inputs on the host, what to do with them on an engine, and what the result must be.

export interface Input<D extends DType = DType> {
  dtype: D;
  shape: number[];
  data: HostArray<D>;
}

export type Numbers = ArrayLike<number> & Iterable<number>;

/** One tensor or number of a result, on the host. */
export interface Output {
  /** Where in the result it was, "indices.0.1". */
  path: string;
  shape: readonly number[];
  dtype: DType | "number" | "boolean";
  data: Numbers;
}

export interface Case {
  /** Name of the operation in engine.ts. */
  operation: keyof Engine;
  label: string;
  inputs: readonly Input[];
  /** Indices of the inputs that it changes in place. */
  changes?: readonly number[];
  run(engine: Engine, inputs: Tensor[]): unknown;
  /** How far the reference may be; exactly equal by default. One for all outputs, or by the first name in the path. */
  tolerance?: Tolerance | Readonly<Record<string, Tolerance>>;
  /** Replaces the comparison with the reference: throws when the outputs are not what they must be. */
  verify?(outputs: Output[], inputs: readonly Input[], reference: Engine): void | Promise<void>;
}

// ---- inputs

export const f32 = (shape: number[], data: ArrayLike<number>): Input<"f32"> => ({
  dtype: "f32",
  shape,
  data: Float32Array.from(data),
});

export const i32 = (shape: number[], data: ArrayLike<number>): Input<"i32"> => ({
  dtype: "i32",
  shape,
  data: Int32Array.from(data),
});

/** Standard normal numbers; the seed and the shape decide. */
export function normal(shape: number[], seed: number | string = 0, factor = 1): Input<"f32"> {
  const random = createRandom(1, seed, shape.join("x"));
  return f32(
    shape,
    Array.from({ length: sizeOf(shape) }, () => factor * random.normal()),
  );
}

/** Whole numbers 0 .. bound - 1. */
export function whole(shape: number[], bound: number, seed: number | string = 0): Input<"i32"> {
  const random = createRandom(2, seed, shape.join("x"));
  return i32(
    shape,
    Array.from({ length: sizeOf(shape) }, () => random.integer(bound)),
  );
}

/** A symmetric positive definite [n, n]: the Gram matrix of 2n normal rows over 2n, plus `ridge` on the diagonal. */
export function positiveDefinite(n: number, ridge = 0.1, seed: number | string = 0): Input<"f32"> {
  const x = normal([2 * n, n], seed).data;
  const data = new Float32Array(n * n);
  for (let i = 0; i < n; i++)
    for (let j = 0; j <= i; j++) {
      let sum = 0;
      for (let t = 0; t < 2 * n; t++) sum += x[t * n + i] * x[t * n + j];
      data[i * n + j] = sum / (2 * n) + (i === j ? ridge : 0);
      data[j * n + i] = data[i * n + j];
    }
  return f32([n, n], data);
}

/** Upper triangular [n, n] with a unit diagonal, as the sweeps take it. */
export function unitUpper(n: number, seed: number | string = 0): Input<"f32"> {
  const upper = normal([n, n], seed, 0.5 / Math.sqrt(Math.max(1, n)));
  for (let i = 0; i < n; i++) for (let j = 0; j <= i; j++) upper.data[i * n + j] = i === j ? 1 : 0;
  return upper;
}

// ---- running

export interface Placed {
  tensor: Tensor;
  /** The tensor around it, and where it begins there. */
  around: Tensor;
  offset: number;
}

/** Elements around a view that must not be read (NaN, or an index far outside) or written. */
const BEFORE = 3;
const AFTER = 5;
const GUARD: Readonly<Record<DType, number>> = {
  f32: Number.NaN,
  f16: 0x7e00,
  bf16: 0x7fc0,
  i32: 0x7ffffff0,
  u32: 0xfffffff0,
  u16: 0xfff0,
  u8: 0xf5,
};

/** Uploads an input: as its own buffer, or as a view in the middle of a larger one, 3 elements after its beginning. */
export function place(engine: Engine, input: Input, asView: boolean): Placed {
  if (!asView) {
    const tensor = engine.upload(input.data, input.shape, input.dtype);
    return { tensor, around: tensor, offset: 0 };
  }
  const data = hostArray(input.dtype, BEFORE + input.data.length + AFTER).fill(GUARD[input.dtype]);
  data.set(input.data, BEFORE);
  const around = engine.upload(data, [data.length], input.dtype);
  return { tensor: engine.view(around, input.shape, BEFORE), around, offset: BEFORE };
}

/** Brings every tensor and number within a result to the host, in a fixed order. */
export async function collect(engine: Engine, value: unknown, path = "result"): Promise<Output[]> {
  if (value instanceof Tensor) {
    const { shape, dtype } = value;
    return [{ path, shape, dtype, data: await engine.read(value) }];
  }
  if (typeof value === "number") return [{ path, shape: [], dtype: "number", data: [value] }];
  if (typeof value === "boolean") return [{ path, shape: [], dtype: "boolean", data: [Number(value)] }];
  if (value === undefined || value === null) return [];
  const within = (key: string) => (path === "result" ? key : `${path}.${key}`);
  const parts: Output[] = [];
  for (const [key, item] of Object.entries(value)) parts.push(...(await collect(engine, item, within(key))));
  return parts;
}

/** Runs a case within a scope of its own. `unchanged` gets every input as it is afterwards, with what lies around it. */
export function runCase(
  engine: Engine,
  { inputs, run }: Case,
  asView: boolean,
  after?: (index: number, around: ArrayLike<number>, offset: number) => void,
): Promise<Output[]> {
  return engine.scope(async () => {
    const placed = inputs.map((input) => place(engine, input, asView));
    const outputs = await collect(
      engine,
      await run(
        engine,
        placed.map(({ tensor }) => tensor),
      ),
    );
    for (const [index, { around, offset }] of placed.entries()) after?.(index, await engine.read(around), offset);
    return outputs;
  });
}
