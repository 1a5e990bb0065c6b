import type { Family, StageSpec } from "../family.js";

const attention = { kind: "attention", norm: "attentionNorm", slots: ["queryKeyValue"] } as const satisfies StageSpec;
const output = { kind: "residual", slots: ["output"] } as const satisfies StageSpec;
const down = { kind: "residual", slots: ["down"] } as const satisfies StageSpec;
const parallel = (mlp: "attentionNorm" | "mlpNorm"): readonly StageSpec[] => [
  attention,
  { ...output, keeps: "origin" },
  { kind: "plain", norm: mlp, reads: "origin", slots: ["up"] },
  down,
];

/**
 * Falcon 7B, 11B, 40B, 180B and RW (transformers `FalconForCausalLM`). Query, key and value are one matrix whose rows lie in
 * groups: the query heads that share a key-value head, that key head, that value head.
 */
export const falcon: Family = {
  modelType: "falcon",
  title: "Falcon",
  names: {
    prefix: "transformer.",
    embedding: "transformer.word_embeddings",
    finalNorm: "transformer.ln_f",
    head: "lm_head",
    blocks: "transformer.h",
    linears: {
      queryKeyValue: "self_attention.query_key_value",
      output: "self_attention.dense",
      up: "mlp.dense_h_to_4h",
      down: "mlp.dense_4h_to_h",
    },
  },
  blocks: {
    sequential: {
      stages: [attention, output, { kind: "plain", norm: "mlpNorm", slots: ["up"] }, down],
      norms: { attentionNorm: "input_layernorm", mlpNorm: "post_attention_layernorm" },
    },
    parallel: { stages: parallel("attentionNorm"), norms: { attentionNorm: "input_layernorm" } },
    "parallel, two norms": {
      stages: parallel("mlpNorm"),
      norms: { attentionNorm: "ln_attn", mlpNorm: "ln_mlp" },
    },
  },
  words: {
    num_key_value_heads: "num_kv_heads",
    intermediate_size: "ffn_hidden_size",
    rms_norm_eps: "layer_norm_epsilon",
    hidden_act: "activation",
  },
  defaults: {
    keyValueHeads: "heads",
    headSize: "hidden / heads",
    mlp: "4 hidden",
    contextLength: 2048,
    slidingWindow: undefined,
    maxWindowLayers: 0,
    epsilon: 1e-5,
    activation: "gelu",
    tieEmbeddings: true,
  },
  activations: { gelu: "gelu", relu: "relu" },
  facts: (raw) => {
    const heads = raw.num_attention_heads;
    const shared = {
      positions: raw.alibi ? ("alibi" as const) : ("rotary" as const),
      bias: raw.bias ?? false,
    };
    if (raw.new_decoder_architecture) {
      const norms = raw.num_ln_in_parallel_attn ?? 2;
      return {
        ...shared,
        layout: norms === 2 ? "parallel, two norms" : "parallel",
        keyValueHeads: raw.num_key_value_heads ?? heads,
      };
    }
    return {
      ...shared,
      layout: (raw.parallel_attn ?? true) ? "parallel" : "sequential",
      keyValueHeads: (raw.multi_query ?? true) ? 1 : heads, // num_kv_heads means nothing here
    };
  },
  norm: "layer",
  attentionBias: "none",
  mlpBias: "none",
  queryKeyNorm: false,
  slidingWindow: "none",
};
