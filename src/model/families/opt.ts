import type { Family, StageSpec } from "../family.js";

const attention = { kind: "attention", slots: ["query", "key", "value"] } as const satisfies StageSpec;
const output = { kind: "residual", slots: ["output"] } as const satisfies StageSpec;
const up = { kind: "plain", slots: ["up"] } as const satisfies StageSpec;
const down = { kind: "residual", slots: ["down"] } as const satisfies StageSpec;
const norms = { attentionNorm: "self_attn_layer_norm", mlpNorm: "final_layer_norm" };

/** OPT, and Galactica, which is one with GELU (transformers `OPTForCausalLM`). Only opt-350m has its norms behind. */
export const opt: Family = {
  modelType: "opt",
  title: "OPT",
  names: {
    prefix: "model.",
    embedding: "model.decoder.embed_tokens",
    positions: "model.decoder.embed_positions",
    projectIn: "model.decoder.project_in",
    projectOut: "model.decoder.project_out",
    finalNorm: "model.decoder.final_layer_norm",
    head: "lm_head",
    blocks: "model.decoder.layers",
    linears: {
      query: "self_attn.q_proj",
      key: "self_attn.k_proj",
      value: "self_attn.v_proj",
      output: "self_attn.out_proj",
      up: "fc1",
      down: "fc2",
    },
  },
  blocks: {
    sequential: {
      stages: [{ ...attention, norm: "attentionNorm" }, output, { ...up, norm: "mlpNorm" }, down],
      norms,
    },
    "post-norm": {
      stages: [attention, { ...output, norm: "attentionNorm" }, up, { ...down, norm: "mlpNorm" }],
      norms,
    },
  },
  words: { intermediate_size: "ffn_dim", hidden_act: "activation_function" },
  defaults: {
    keyValueHeads: "heads",
    headSize: "hidden / heads",
    mlp: 3072,
    contextLength: 2048,
    slidingWindow: undefined,
    maxWindowLayers: 0,
    epsilon: 1e-5,
    activation: "relu",
    tieEmbeddings: true,
  },
  activations: { relu: "relu", gelu: "gelu" },
  facts: (raw) => {
    const before = raw.do_layer_norm_before ?? true;
    return {
      layout: before ? "sequential" : "post-norm",
      positions: "learned",
      bias: raw.enable_bias ?? true,
      normWeights: raw.layer_norm_elementwise_affine ?? true,
      finalNorm: before && !raw._remove_final_layer_norm,
      embeddingWidth: raw.word_embed_proj_dim ?? raw.hidden_size,
    };
  },
  norm: "layer",
  positionOffset: 2,
  attentionBias: "none",
  mlpBias: "none",
  queryKeyNorm: false,
  slidingWindow: "none",
};
