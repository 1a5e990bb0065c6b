import type { Engine } from "../engine/engine.js";
import { usageError } from "../errors.js";
import type { F32 } from "../tensor/index.js";
import type { ModelConfig } from "./config.js";
import { findFamily } from "./families/index.js";
import type { WeightSource } from "./weights.js";

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

/** Name of the embedding's tensor. Where it is tied to the head, a checkpoint may hold it under the head's name alone. */
export function embeddingName(config: ModelConfig, source: WeightSource): string {
  const { names } = findFamily(config.family);
  const name = `${names.embedding}.weight`;
  return config.tieEmbeddings && !source.has(name) && source.has(`${names.head}.weight`)
    ? `${names.head}.weight`
    : name;
}

/** The embedding table on the host, [V, D]. */
export const readEmbedding = (config: ModelConfig, source: WeightSource): Promise<Float32Array> =>
  source.read(embeddingName(config, source), [config.vocabulary, config.hidden]);

/** The embedding table, [V, D], in the current scope. */
export async function loadEmbedding(engine: Engine, config: ModelConfig, source: WeightSource): Promise<F32> {
  return engine.upload(await readEmbedding(config, source), [config.vocabulary, config.hidden], "f32");
}

/** The matrix of the head, [V, D], in the current scope; for a tied model its own copy of the embedding. */
export async function loadHead(engine: Engine, config: ModelConfig, source: WeightSource): Promise<F32> {
  if (config.tieEmbeddings) return loadEmbedding(engine, config, source);
  const shape = [config.vocabulary, config.hidden];
  const name = `${findFamily(config.family).names.head}.weight`;
  return engine.upload(await source.read(name, shape), shape, "f32");
}

/** The weight of the norm after the last block, [D], in the current scope. */
export async function loadFinalNorm(engine: Engine, config: ModelConfig, source: WeightSource): Promise<F32> {
  const name = `${findFamily(config.family).names.finalNorm}.weight`;
  return engine.upload(await source.read(name, [config.hidden]), [config.hidden], "f32");
}

/** Embeddings of tokens [B][T] -> [B, T, D], from a table in the engine or on the host; in the current scope. */
export function embedTokens(engine: Engine, config: ModelConfig, table: F32 | Float32Array, tokens: TokenRows): F32 {
  const { ids, shape } = packTokens(tokens, config.vocabulary);
  if (!(table instanceof Float32Array)) {
    return engine.scope(() => engine.gatherRows(table, engine.upload(ids, shape, "i32")));
  }
  const width = config.hidden;
  const rows = new Float32Array(ids.length * width);
  for (const [position, id] of ids.entries()) {
    rows.set(table.subarray(id * width, (id + 1) * width), position * width);
  }
  return engine.upload(rows, [...shape, width], "f32");
}
