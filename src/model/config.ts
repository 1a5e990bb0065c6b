import { z } from "zod";
import { formatError, unsupportedError } from "../errors.js";
import { CONFIG_LIMITS, type RawConfig, type RawField, rawSchema } from "./config-schema.js";
import { findFamily } from "./families/index.js";
import type { Activation, BlockLayout, Family, Positions } from "./family.js";
import { parseRope, type RopeConfig } from "./rope-config.js";

/** What a model is, in our words; every number has been checked against the others. */
export interface ModelConfig {
  /** `model_type`: the key of the family table. */
  family: string;
  layout: BlockLayout;
  /** D. */
  hidden: number;
  layers: number;
  /** H. */
  heads: number;
  /** K; divides H. */
  keyValueHeads: number;
  /** d, even where positions are rotary. */
  headSize: number;
  /** F. */
  mlp: number;
  /** V. */
  vocabulary: number;
  /** E, width of the embedding's rows; where it is not D, a matrix leads in and another out. */
  embeddingWidth: number;
  /** Positions that the model was trained for; longer input is computed all the same, unless positions are learned. */
  contextLength: number;
  norm: "rms" | "layer";
  /** False: every norm has weight 1 and bias 0, and the checkpoint none. */
  normWeights: boolean;
  /** Of every norm. */
  epsilon: number;
  /** A norm after the last block. */
  finalNorm: boolean;
  positions: Positions;
  /** Where positions are rotary. */
  rope?: RopeConfig;
  attentionBias: { query: boolean; key: boolean; value: boolean; output: boolean };
  mlpBias: boolean;
  /** The head is the embedding. */
  tieEmbeddings: boolean;
  /** One entry a layer: positions that a query sees, itself included; undefined for all. */
  slidingWindow: readonly (number | undefined)[];
  queryKeyNorm: boolean;
  activation: Activation;
  /** What the checkpoint says its weights are stored as, when it says so. */
  dtype?: "f32" | "f16" | "bf16";
  /** Special tokens, when they are valid ones. */
  beginToken?: number;
  endTokens: readonly number[];
}

export { CONFIG_LIMITS };

/** Parses the text of a config.json. Throws "format" or "unsupported". `where` names the file in messages. */
export function readModelConfig(text: string, where = "config.json"): ModelConfig {
  if (text.length > CONFIG_LIMITS.textLength) {
    throw formatError(`${where} has ${text.length} characters, more than the ${CONFIG_LIMITS.textLength} allowed`);
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw formatError(`${where} is not JSON: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
  return parseModelConfig(json, where);
}

/** The configuration in a parsed config.json, as transformers 4 or 5 writes it. Throws "format" or "unsupported". */
export function parseModelConfig(json: unknown, where = "config.json"): ModelConfig {
  const type = z.object({ model_type: z.string() }).safeParse(json);
  if (!type.success) {
    throw formatError(
      `${where} is not the configuration of a model: expected an object with the text "model_type"`,
      "give the folder of a Hugging Face checkpoint",
    );
  }
  const family = findFamily(type.data.model_type);
  const parsed = rawSchema.safeParse(translated(json, family));
  if (!parsed.success) {
    const problems = parsed.error.issues.slice(0, 5).map(({ path: [field, ...rest], message }) => {
      return `${[word(family, String(field) as RawField), ...rest].join(".")}: ${message}`;
    });
    throw formatError(`${where} is not a valid ${family.modelType} configuration: ${problems.join("; ")}`);
  }
  return resolve(parsed.data, family, where);
}

/** The family's word for a field. */
const word = (family: Family, field: RawField): string => family.words[field] ?? field;

/** The fields under LLaMA's words. */
function translated(json: unknown, family: Family): unknown {
  const result: Record<string, unknown> = { ...(json as object) };
  for (const [ours, theirs] of Object.entries(family.words)) result[ours] = (json as Record<string, unknown>)[theirs];
  return result;
}

function resolve(raw: RawConfig, family: Family, where: string): ModelConfig {
  const { defaults } = family;
  const facts = family.facts?.(raw) ?? {};
  const heads = raw.num_attention_heads;
  const keyValueHeads =
    facts.keyValueHeads ??
    raw.num_key_value_heads ??
    (raw.num_key_value_heads === null || defaults.keyValueHeads === "heads" ? heads : defaults.keyValueHeads);
  if (heads % keyValueHeads !== 0) {
    throw formatError(
      `${where}: num_attention_heads (${heads}) is not a multiple of ${word(family, "num_key_value_heads")} (${keyValueHeads})`,
    );
  }
  const contextLength = raw.max_position_embeddings ?? defaults.contextLength;
  const positions = facts.positions ?? "rotary";
  const configuredBias = raw.attention_bias ?? false;
  const inputBias =
    facts.bias ??
    (family.attentionBias === "query key value" || (family.attentionBias === "configured" && configuredBias));
  const config: ModelConfig = {
    family: family.modelType,
    layout: facts.layout ?? "sequential",
    hidden: raw.hidden_size,
    layers: raw.num_hidden_layers,
    heads,
    keyValueHeads,
    headSize: headSize(raw, family, positions, where),
    mlp: mlpWidth(raw, family, where),
    vocabulary: raw.vocab_size,
    embeddingWidth: facts.embeddingWidth ?? raw.hidden_size,
    contextLength,
    norm: family.norm,
    normWeights: facts.normWeights ?? true,
    epsilon: raw.rms_norm_eps ?? defaults.epsilon,
    finalNorm: facts.finalNorm ?? true,
    positions,
    rope: positions === "rotary" ? parseRope(raw, contextLength, where) : undefined,
    attentionBias: {
      query: inputBias,
      key: inputBias,
      value: inputBias,
      output: facts.bias ?? (family.attentionBias === "configured" && configuredBias),
    },
    mlpBias: facts.bias ?? (family.mlpBias === "configured" && (raw.mlp_bias ?? false)),
    tieEmbeddings: raw.tie_word_embeddings ?? defaults.tieEmbeddings,
    slidingWindow: slidingWindows(raw, family, where),
    queryKeyNorm: family.queryKeyNorm,
    activation: activation(raw, family, where),
    dtype: storedType(raw.dtype ?? raw.torch_dtype),
    beginToken: tokenIds(raw.bos_token_id, raw.vocab_size)[0],
    endTokens: tokenIds(raw.eos_token_id, raw.vocab_size),
  };
  checkTensorSizes(config, where);
  return config;
}

function mlpWidth(raw: RawConfig, family: Family, where: string): number {
  const width = raw.intermediate_size ?? family.defaults.mlp;
  if (width === "4 hidden") return 4 * raw.hidden_size;
  if (width !== "required") return width;
  throw formatError(`${where} is not a valid ${family.modelType} configuration: intermediate_size is missing`);
}

function activation(raw: RawConfig, family: Family, where: string): Activation {
  const name = raw.hidden_act ?? family.defaults.activation;
  if (Object.hasOwn(family.activations, name)) return family.activations[name];
  throw unsupportedError(
    `${where}: ${word(family, "hidden_act")} ${JSON.stringify(name.slice(0, 60))} is not supported for ${family.modelType}`,
    `supported: ${Object.keys(family.activations).join(", ")}`,
  );
}

function headSize(raw: RawConfig, family: Family, positions: Positions, where: string): number {
  const { hidden_size: hidden, num_attention_heads: heads } = raw;
  let size = raw.head_dim ?? family.defaults.headSize;
  if (size === "hidden / heads") {
    if (hidden % heads !== 0) {
      throw formatError(`${where}: hidden_size (${hidden}) is not a multiple of num_attention_heads (${heads})`);
    }
    size = hidden / heads;
  }
  if (positions === "rotary" && size % 2 !== 0) {
    throw formatError(`${where}: the head size (${size}) is odd; rotary embeddings need pairs`);
  }
  return size;
}

/** The rule of each family, see `Family.slidingWindow`. */
function slidingWindows(raw: RawConfig, family: Family, where: string): (number | undefined)[] {
  const layers = raw.num_hidden_layers;
  const width = raw.sliding_window === undefined ? family.defaults.slidingWindow : (raw.sliding_window ?? undefined);
  switch (family.slidingWindow) {
    case "none":
      return new Array(layers).fill(undefined);
    case "every layer":
      return new Array(layers).fill(width);
    case "by layer": {
      const window = raw.use_sliding_window ? width : undefined;
      const first = raw.max_window_layers ?? family.defaults.maxWindowLayers;
      const types = raw.layer_types;
      if (!types) return Array.from({ length: layers }, (_, layer) => (layer >= first ? window : undefined));
      if (types.length !== layers) {
        throw formatError(`${where}: layer_types has ${types.length} entries for num_hidden_layers ${layers}`);
      }
      return types.map((type, layer) => {
        if (type === "full_attention") return undefined;
        if (type !== "sliding_attention") {
          throw unsupportedError(
            `${where}: layer_types[${layer}] is ${JSON.stringify(type.slice(0, 60))}`,
            "supported: full_attention, sliding_attention",
          );
        }
        // transformers refuses this too: a guess would silently give other logits
        if (window === undefined) {
          throw formatError(
            `${where}: layer_types[${layer}] is sliding_attention, but use_sliding_window or sliding_window is not set`,
          );
        }
        return window;
      });
    }
    default:
      return family.slidingWindow satisfies never;
  }
}

function checkTensorSizes(config: ModelConfig, where: string): void {
  const { hidden, heads, keyValueHeads, headSize, mlp, vocabulary, embeddingWidth } = config;
  const sizes = [
    ["vocab_size x hidden_size", vocabulary, embeddingWidth],
    ["intermediate_size x hidden_size", mlp, hidden],
    ["attention heads x head_dim x hidden_size", (heads + 2 * keyValueHeads) * headSize, hidden],
    ["max_position_embeddings x hidden_size", config.positions === "learned" ? config.contextLength : 0, hidden],
  ] as const;
  for (const [name, rows, columns] of sizes) {
    if (rows * columns > CONFIG_LIMITS.tensorElements) {
      throw formatError(
        `${where}: ${name} is ${rows} x ${columns}, more than ${CONFIG_LIMITS.tensorElements} elements in one tensor`,
      );
    }
  }
}

const STORED_TYPES: Readonly<Record<string, ModelConfig["dtype"]>> = {
  float32: "f32",
  float16: "f16",
  bfloat16: "bf16",
};

function storedType(value: unknown): ModelConfig["dtype"] {
  if (typeof value !== "string") return undefined;
  const name = value.replace(/^torch\./, "");
  return Object.hasOwn(STORED_TYPES, name) ? STORED_TYPES[name] : undefined;
}

/** Some files hold -1 or null for "none": what is not a token of the vocabulary is left out. */
function tokenIds(value: unknown, vocabulary: number): number[] {
  const values: unknown[] = Array.isArray(value) ? value : [value];
  return values.filter(
    (id): id is number => typeof id === "number" && Number.isInteger(id) && id >= 0 && id < vocabulary,
  );
}
