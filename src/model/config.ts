import { z } from "zod";
import { formatError, unsupportedError } from "../errors.js";
import { findFamily } from "./families/index.js";
import type { Family } from "./family.js";
import { parseRope, type RopeConfig, ropeFields } from "./rope-config.js";

/** What a model is, in our words; every number has been checked against the others. */
export interface ModelConfig {
  /** `model_type`: the key of the family table. */
  family: string;
  /** D. */
  hidden: number;
  layers: number;
  /** H. */
  heads: number;
  /** K; divides H. */
  keyValueHeads: number;
  /** d, even. */
  headSize: number;
  /** F. */
  mlp: number;
  /** V. */
  vocabulary: number;
  /** Positions that the model was trained for; longer input is computed all the same. */
  contextLength: number;
  /** Of every RMSNorm. */
  epsilon: number;
  rope: RopeConfig;
  attentionBias: { query: boolean; key: boolean; value: boolean; output: boolean };
  mlpBias: boolean;
  /** The head is the embedding. */
  tieEmbeddings: boolean;
  /** One entry a layer: positions that a query sees, itself included; undefined for all. */
  slidingWindow: readonly (number | undefined)[];
  queryKeyNorm: boolean;
  activation: "silu";
  /** What the checkpoint says its weights are stored as, when it says so. */
  dtype?: "f32" | "f16" | "bf16";
  /** Special tokens, when they are valid ones. */
  beginToken?: number;
  endTokens: readonly number[];
}

/** Bounds far above any model, so that a hostile file cannot ask for absurd amounts of memory. */
export const CONFIG_LIMITS = {
  textLength: 1 << 25,
  hidden: 1 << 17,
  layers: 4096,
  heads: 4096,
  headSize: 1 << 13,
  mlp: 1 << 20,
  vocabulary: 1 << 24,
  contextLength: 1 << 30,
  /** Elements of one weight tensor. */
  tensorElements: 2 ** 31,
} as const;

const count = (most: number) => z.number().int().min(1).max(most);

const rawSchema = z.object({
  model_type: z.string(),
  hidden_size: count(CONFIG_LIMITS.hidden),
  num_hidden_layers: count(CONFIG_LIMITS.layers),
  num_attention_heads: count(CONFIG_LIMITS.heads),
  num_key_value_heads: count(CONFIG_LIMITS.heads).nullish(),
  head_dim: count(CONFIG_LIMITS.headSize).nullish(),
  intermediate_size: count(CONFIG_LIMITS.mlp),
  vocab_size: count(CONFIG_LIMITS.vocabulary),
  max_position_embeddings: count(CONFIG_LIMITS.contextLength).nullish(),
  rms_norm_eps: z.number().min(0).max(1).nullish(),
  hidden_act: z.string().nullish(),
  attention_bias: z.boolean().nullish(),
  mlp_bias: z.boolean().nullish(),
  tie_word_embeddings: z.boolean().nullish(),
  sliding_window: count(CONFIG_LIMITS.contextLength).nullish(),
  use_sliding_window: z.boolean().nullish(),
  max_window_layers: z.number().int().min(0).max(CONFIG_LIMITS.contextLength).nullish(),
  layer_types: z.array(z.string()).max(CONFIG_LIMITS.layers).nullish(),
  torch_dtype: z.unknown().optional(),
  dtype: z.unknown().optional(),
  bos_token_id: z.unknown().optional(),
  eos_token_id: z.unknown().optional(),
  ...ropeFields,
});
type RawConfig = z.infer<typeof rawSchema>;

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
  const parsed = rawSchema.safeParse(json);
  if (!parsed.success) {
    const problems = parsed.error.issues.slice(0, 5).map((issue) => `${issue.path.join(".")}: ${issue.message}`);
    throw formatError(`${where} is not a valid ${family.modelType} configuration: ${problems.join("; ")}`);
  }
  return resolve(parsed.data, family, where);
}

function resolve(raw: RawConfig, family: Family, where: string): ModelConfig {
  const heads = raw.num_attention_heads;
  const keyValueHeads =
    raw.num_key_value_heads ??
    (raw.num_key_value_heads === null || family.defaults.keyValueHeads === "heads"
      ? heads
      : family.defaults.keyValueHeads);
  if (heads % keyValueHeads !== 0) {
    throw formatError(
      `${where}: num_attention_heads (${heads}) is not a multiple of num_key_value_heads (${keyValueHeads})`,
    );
  }
  const activation = raw.hidden_act ?? "silu";
  if (activation !== "silu" && activation !== "swish") {
    throw unsupportedError(
      `${where}: hidden_act ${JSON.stringify(activation.slice(0, 60))} is not supported for ${family.modelType}`,
      "supported: silu",
    );
  }
  const contextLength = raw.max_position_embeddings ?? family.defaults.contextLength;
  const configuredBias = raw.attention_bias ?? false;
  const inputBias =
    family.attentionBias === "query key value" || (family.attentionBias === "configured" && configuredBias);
  const config: ModelConfig = {
    family: family.modelType,
    hidden: raw.hidden_size,
    layers: raw.num_hidden_layers,
    heads,
    keyValueHeads,
    headSize: headSize(raw, family, where),
    mlp: raw.intermediate_size,
    vocabulary: raw.vocab_size,
    contextLength,
    epsilon: raw.rms_norm_eps ?? 1e-6,
    rope: parseRope(raw, contextLength, where),
    attentionBias: {
      query: inputBias,
      key: inputBias,
      value: inputBias,
      output: family.attentionBias === "configured" && configuredBias,
    },
    mlpBias: family.mlpBias === "configured" && (raw.mlp_bias ?? false),
    tieEmbeddings: raw.tie_word_embeddings ?? false,
    slidingWindow: slidingWindows(raw, family, where),
    queryKeyNorm: family.queryKeyNorm,
    activation: "silu",
    dtype: storedType(raw.dtype ?? raw.torch_dtype),
    beginToken: tokenIds(raw.bos_token_id, raw.vocab_size)[0],
    endTokens: tokenIds(raw.eos_token_id, raw.vocab_size),
  };
  checkTensorSizes(config, where);
  return config;
}

function headSize(raw: RawConfig, family: Family, where: string): number {
  const { hidden_size: hidden, num_attention_heads: heads } = raw;
  let size = raw.head_dim ?? family.defaults.headSize;
  if (size === "hidden / heads") {
    if (hidden % heads !== 0) {
      throw formatError(`${where}: hidden_size (${hidden}) is not a multiple of num_attention_heads (${heads})`);
    }
    size = hidden / heads;
  }
  if (size % 2 !== 0) throw formatError(`${where}: the head size (${size}) is odd; rotary embeddings need pairs`);
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
  const { hidden, heads, headSize, mlp, vocabulary } = config;
  const sizes = [
    ["vocab_size x hidden_size", vocabulary, hidden],
    ["intermediate_size x hidden_size", mlp, hidden],
    ["num_attention_heads x head_dim x hidden_size", heads * headSize, hidden],
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
