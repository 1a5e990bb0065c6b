import type { Engine } from "../engine/engine.js";
import { usageError } from "../errors.js";
import type { F32 } from "../tensor/index.js";
import type { ModelConfig } from "./config.js";
import { findFamily } from "./families/index.js";
import { loadWeight, type WeightSource } from "./weights.js";

// What stands before and after the blocks: the embedding, the final norm and the head.

/** Token ids [B][T], rows of equal length. */
export type TokenRows = readonly (Int32Array | readonly number[])[];

/** Token ids as one array, checked: rows of equal length, every id in the vocabulary. Throws "usage". */
export function packTokens(tokens: TokenRows, vocabulary: number): { ids: Int32Array; shape: [number, number] } {
  if (tokens.length === 0) throw usageError("expected at least one row of tokens, got none");
  const length = tokens[0].length;
  const ids = new Int32Array(tokens.length * length);
  for (const [row, values] of tokens.entries()) {
    if (values.length !== length) {
      throw usageError(
        `rows of tokens must have equal lengths: row 0 has ${length}, row ${row} has ${values.length}`,
        "run rows of other lengths on their own",
      );
    }
    for (let position = 0; position < length; position++) {
      const id = values[position];
      if (!Number.isInteger(id) || id < 0 || id >= vocabulary) {
        throw usageError(
          `token ${id} (row ${row}, position ${position}) is not in the vocabulary of 0 .. ${vocabulary - 1}`,
          "the tokens belong to another model's tokenizer",
        );
      }
      ids[row * length + position] = id;
    }
  }
  return { ids, shape: [tokens.length, length] };
}

/** What stands outside the blocks. */
export type OuterPart = "embedding" | "positions" | "projectIn" | "finalNorm" | "finalNormBias" | "projectOut" | "head";

/** Full names and shapes of the tensors outside the blocks, in the order in which they are used. */
export function outerTensors(config: ModelConfig): Partial<Record<OuterPart, { name: string; shape: number[] }>> {
  const { names, positionOffset = 0 } = findFamily(config.family);
  const { hidden, embeddingWidth: width, vocabulary } = config;
  const of = (name: string | undefined, shape: number[], kind = "weight") => ({ name: `${name}.${kind}`, shape });
  const projects = width !== hidden;
  const hasNorm = config.finalNorm && config.normWeights;
  return {
    embedding: of(names.embedding, [vocabulary, width]),
    ...(config.positions === "learned" && {
      positions: of(names.positions, [config.contextLength + positionOffset, hidden]),
    }),
    ...(projects && { projectIn: of(names.projectIn, [hidden, width]) }),
    ...(hasNorm && { finalNorm: of(names.finalNorm, [hidden]) }),
    ...(hasNorm && config.norm === "layer" && { finalNormBias: of(names.finalNorm, [hidden], "bias") }),
    ...(projects && { projectOut: of(names.projectOut, [width, hidden]) }),
    ...(!config.tieEmbeddings && { head: of(names.head, [vocabulary, width]) }),
  };
}

/** Name of the embedding's tensor. Where it is tied to the head, a checkpoint may hold it under the head's name alone. */
export function embeddingName(config: ModelConfig, source: WeightSource): string {
  const { names } = findFamily(config.family);
  const name = `${names.embedding}.weight`;
  return config.tieEmbeddings && !source.has(name) && source.has(`${names.head}.weight`)
    ? `${names.head}.weight`
    : name;
}

/** The embedding table on the host, [V, E]. */
export const readEmbedding = (config: ModelConfig, source: WeightSource): Promise<Float32Array> =>
  source.read(embeddingName(config, source), [config.vocabulary, config.embeddingWidth]);

/** The embedding table, [V, E], in the current scope. */
export async function loadEmbedding(engine: Engine, config: ModelConfig, source: WeightSource): Promise<F32> {
  return loadWeight(engine, source, embeddingName(config, source), [config.vocabulary, config.embeddingWidth]);
}

/** The matrix of the head, [V, E], in the current scope; for a tied model its own copy of the embedding. */
export async function loadHead(engine: Engine, config: ModelConfig, source: WeightSource): Promise<F32> {
  return (await load(engine, config, source, "head")) ?? loadEmbedding(engine, config, source);
}

async function load(
  engine: Engine,
  config: ModelConfig,
  source: WeightSource,
  part: OuterPart,
): Promise<F32 | undefined> {
  const spec = outerTensors(config)[part];
  return spec && loadWeight(engine, source, spec.name, spec.shape);
}

/** What else the stream begins with; the table aside, which may live on the host. */
export interface InputWeights {
  /** Learned positions on the host, [P, D]. */
  positions?: Float32Array;
  /** [D, E]. */
  projectIn?: F32;
}

/** In the current scope. */
export async function loadInput(engine: Engine, config: ModelConfig, source: WeightSource): Promise<InputWeights> {
  const spec = outerTensors(config).positions;
  return {
    positions: spec && (await source.read(spec.name, spec.shape)),
    projectIn: await load(engine, config, source, "projectIn"),
  };
}

/** What stands between the last block and the head. */
export interface OutputWeights {
  /** [D] both; the norm is left out where the model has none, and has weight 1 and bias 0 where it has no weights. */
  norm?: { weight: F32; bias?: F32 };
  /** [E, D]. */
  projectOut?: F32;
}

/** In the current scope, or the caller's where there is none. */
export function loadOutput(engine: Engine, config: ModelConfig, source: WeightSource): Promise<OutputWeights> {
  return engine.scope(async () => {
    const { hidden } = config;
    const constant = (value: number) => engine.upload(new Float32Array(hidden).fill(value), [hidden], "f32");
    const result: OutputWeights = { projectOut: await load(engine, config, source, "projectOut") };
    if (config.finalNorm) {
      const weight = (await load(engine, config, source, "finalNorm")) ?? constant(1);
      const bias = (await load(engine, config, source, "finalNormBias")) ?? constant(0);
      result.norm = config.norm === "rms" ? { weight } : { weight, bias };
    }
    return result;
  });
}

/** The stream after the last block [.., D] -> what the head takes, [.., E]; in the current scope. */
export function finishStream(engine: Engine, config: ModelConfig, weights: OutputWeights, hidden: F32): F32 {
  return engine.scope(() => {
    let x = hidden;
    if (weights.norm) {
      const { weight, bias } = weights.norm;
      x = bias ? engine.layerNorm(x, weight, bias, config.epsilon) : engine.rmsNorm(x, weight, config.epsilon);
    }
    return weights.projectOut ? project(engine, x, weights.projectOut) : x === hidden ? engine.copy(x) : x;
  });
}

/** [.., I] times [O, I] -> [.., O]. */
function project(engine: Engine, x: F32, weight: F32): F32 {
  const [rows, columns] = weight.shape;
  const product = engine.matmul(engine.view(x, [x.size / columns, columns]), weight, { transposeB: true });
  return engine.view(product, [...x.shape.slice(0, -1), rows]);
}

/**
 * The stream before the first block for tokens [B][T] at positions start, start + 1, ..: [B, T, D], from a table in the engine
 * or on the host; in the current scope. Throws "usage" for tokens beyond learned positions.
 */
export function embedTokens(
  engine: Engine,
  config: ModelConfig,
  table: F32 | Float32Array,
  input: InputWeights,
  tokens: TokenRows,
  start = 0,
): F32 {
  const { ids, shape } = packTokens(tokens, config.vocabulary);
  return engine.scope(() => {
    let x: F32; // [B, T, E]
    if (table instanceof Float32Array) {
      x = engine.upload(takeRows(table, config.embeddingWidth, ids), [...shape, config.embeddingWidth], "f32");
    } else {
      x = engine.gatherRows(table, engine.upload(ids, shape, "i32"));
    }
    if (input.projectIn) x = project(engine, x, input.projectIn);
    if (!input.positions) return x;
    const places = takeRows(input.positions, config.hidden, learnedPlaces(config, shape, start));
    return engine.add(x, engine.upload(places, x.shape, "f32"));
  });
}

/** Row of the table of learned positions for each token. */
function learnedPlaces(config: ModelConfig, [batch, length]: [number, number], start: number): Int32Array {
  if (start + length > config.contextLength) {
    throw usageError(
      `the model has learned ${config.contextLength} positions, got tokens up to position ${start + length}`,
      "use shorter texts or windows",
    );
  }
  const { positionOffset = 0 } = findFamily(config.family);
  return Int32Array.from({ length: batch * length }, (_, at) => positionOffset + start + (at % length));
}

function takeRows(table: Float32Array, width: number, rows: Int32Array): Float32Array {
  const taken = new Float32Array(rows.length * width);
  for (const [at, row] of rows.entries()) taken.set(table.subarray(row * width, (row + 1) * width), at * width);
  return taken;
}
