import { z } from "zod";
import { ropeFields } from "./rope-config.js";

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

/** The fields of config.json that are read. Families with other words for the first ones say so in `Family.words`. */
export const rawSchema = z.object({
  model_type: z.string(),
  hidden_size: count(CONFIG_LIMITS.hidden),
  num_hidden_layers: count(CONFIG_LIMITS.layers),
  num_attention_heads: count(CONFIG_LIMITS.heads),
  num_key_value_heads: count(CONFIG_LIMITS.heads).nullish(),
  head_dim: count(CONFIG_LIMITS.headSize).nullish(),
  intermediate_size: count(CONFIG_LIMITS.mlp).nullish(),
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
  // OPT
  do_layer_norm_before: z.boolean().nullish(),
  word_embed_proj_dim: count(CONFIG_LIMITS.hidden).nullish(),
  enable_bias: z.boolean().nullish(),
  layer_norm_elementwise_affine: z.boolean().nullish(),
  _remove_final_layer_norm: z.boolean().nullish(),
  // Falcon
  alibi: z.boolean().nullish(),
  multi_query: z.boolean().nullish(),
  parallel_attn: z.boolean().nullish(),
  new_decoder_architecture: z.boolean().nullish(),
  num_ln_in_parallel_attn: z.number().int().min(1).max(2).nullish(),
  bias: z.boolean().nullish(),
  ...ropeFields,
});
export type RawConfig = z.infer<typeof rawSchema>;
export type RawField = keyof RawConfig;
