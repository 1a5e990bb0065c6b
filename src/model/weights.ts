import type { Engine } from "../engine/engine.js";
import { formatError, numericError } from "../errors.js";
import { viewBytes } from "../files/dtypes.js";
import type { TensorReader } from "../files/tensors.js";
import type { F32, Tensor } from "../tensor/index.js";
import type { ModelConfig } from "./config.js";
import { FAMILIES, findFamily } from "./families/index.js";

/**
 * Weights of a model as f32, by canonical Hugging Face name, with the family's prefix
 * ("model.layers.0.self_attn.q_proj.weight"); the checkpoint may store them without it.
 */
export interface WeightSource {
  has(name: string): boolean;
  /** Shape in the checkpoint, undefined when there is no such tensor. */
  shape(name: string): readonly number[] | undefined;
  /**
   * All values, row-major. Throws "format" when the tensor is missing or its shape is not `shape`, "numeric" when it holds
   * NaN or infinity.
   */
  read(name: string, shape: readonly number[]): Promise<Float32Array>;
  /** The same values as they are stored, where that is in 16 bits, else undefined; NaN and infinity come through. */
  readHalf?(name: string, shape: readonly number[]): Promise<HalfValues | undefined>;
  /** Hands over the values of `readHalf` where they are in the engine already (readAhead): the caller disposes of them. */
  uploaded?(name: string): Promise<HalfTensor | undefined>;
}

export type HalfTensor = Tensor<"f16"> | Tensor<"bf16">;

/** 16-bit floats, row-major. */
export interface HalfValues {
  dtype: "f16" | "bf16";
  values: Uint16Array;
}

/**
 * A tensor of the model, in the current scope. An engine with memory of its own gets 16-bit values as they are, to widen and check
 * them there: on the host that takes longer than to pass text through a block. Throws what `read` throws.
 */
export async function loadWeight(
  engine: Engine,
  source: WeightSource,
  name: string,
  shape: readonly number[],
): Promise<F32> {
  const early = await source.uploaded?.(name);
  const half = early || engine.roomBytes() === 0 ? undefined : await source.readHalf?.(name, shape);
  if (!early && !half) return engine.upload(await source.read(name, shape), shape, "f32");
  return engine.scope(async () => {
    const stored = early ?? uploadHalf(engine, half as HalfValues, shape);
    let tensor: F32;
    try {
      tensor = engine.cast(stored, "f32");
    } finally {
      stored.dispose();
    }
    if (!(await engine.allFinite(tensor))) checkFinite(name, await engine.read(tensor), shape);
    return tensor;
  });
}

/** In the current scope. */
export const uploadHalf = (engine: Engine, { dtype, values }: HalfValues, shape: readonly number[]): HalfTensor =>
  engine.upload(values, shape, dtype) as HalfTensor;

/** Prefixes of canonical names that a checkpoint may leave out, see `TensorNames.prefix`. */
const PREFIXES = [...new Set(FAMILIES.map(({ names }) => names.prefix))];

/** The key under which a checkpoint stores a canonical name: the name, or the name without its prefix. */
export function findKey(name: string, has: (key: string) => boolean): string | undefined {
  if (has(name)) return name;
  const prefix = PREFIXES.find((candidate) => name.startsWith(candidate));
  if (prefix === undefined) return undefined;
  const bare = name.slice(prefix.length);
  return has(bare) ? bare : undefined;
}

/** A module's name as it is, with each prefix that a family has, and without. */
export const spellings = (module: string): string[] => [
  module,
  ...PREFIXES.map((prefix) => `${prefix}${module}`),
  ...PREFIXES.filter((prefix) => module.startsWith(prefix)).map((prefix) => module.slice(prefix.length)),
];

/** The canonical name of a key of a checkpoint. */
export function canonicalName(config: ModelConfig, key: string): string {
  const { prefix, head } = findFamily(config.family).names;
  return key.startsWith(prefix) || key === head || key.startsWith(`${head}.`) ? key : `${prefix}${key}`;
}

/** Weights of a checkpoint that holds them as plain f32, f16 or bf16 tensors. */
export function plainWeights(tensors: TensorReader): WeightSource {
  const find = (name: string) => findKey(name, (key) => tensors.info(key) !== undefined);
  const keyOf = (name: string, shape: readonly number[]) => {
    const key = find(name);
    if (key === undefined) throw missingTensor(name, tensors.name);
    checkShape(name, tensors.info(key)?.shape ?? [], shape);
    return key;
  };
  return {
    has: (name) => find(name) !== undefined,
    shape: (name) => {
      const key = find(name);
      return key === undefined ? undefined : tensors.info(key)?.shape;
    },
    async read(name, shape) {
      const values = await tensors.readF32(keyOf(name, shape));
      checkFinite(name, values, shape);
      return values;
    },
    async readHalf(name, shape) {
      const key = keyOf(name, shape);
      const dtype = tensors.info(key)?.dtype;
      if (dtype !== "f16" && dtype !== "bf16") return undefined;
      return { dtype, values: viewBytes(dtype, await tensors.readRaw(key)) };
    },
  };
}

export const missingTensor = (name: string, where: string) =>
  formatError(
    `tensor ${name} is missing from ${where}`,
    "the checkpoint may be incomplete, or config.json may describe another model",
  );

/** Throws "format" unless the tensor has the shape that the model's configuration asks for. */
export function checkShape(name: string, got: readonly number[], expected: readonly number[]): void {
  if (got.length === expected.length && got.every((size, axis) => size === expected[axis])) return;
  throw formatError(
    `tensor ${name}: expected shape [${expected.join(", ")}] from config.json, the checkpoint has [${got.join(", ")}]`,
    "config.json and the weights belong to different models",
  );
}

/** Throws "numeric" at the first NaN or infinity, with its position. */
export function checkFinite(name: string, values: Float32Array, shape: readonly number[]): void {
  for (let i = 0; i < values.length; i++) {
    if (Number.isFinite(values[i])) continue;
    const position: number[] = [];
    let rest = i;
    for (const size of shape.toReversed()) {
      position.unshift(rest % size);
      rest = Math.floor(rest / size);
    }
    const what = Number.isNaN(values[i]) ? "NaN" : "infinity";
    throw numericError(
      `tensor ${name} holds ${what} at [${position.join(", ")}]`,
      "the checkpoint is damaged, or its values overflowed when it was converted",
    );
  }
}
