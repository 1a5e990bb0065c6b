// What differs between model families, as data. Foreign tensor names appear here and in the checkpoint layouts only.

/** Linear layers of a block, in our words. */
export const LINEAR_SLOTS = ["query", "key", "value", "output", "gate", "up", "down"] as const;
export type LinearSlot = (typeof LINEAR_SLOTS)[number];

/** Vectors of a block, in our words. */
export const VECTOR_SLOTS = ["attentionNorm", "mlpNorm", "queryNorm", "keyNorm"] as const;
export type VectorSlot = (typeof VECTOR_SLOTS)[number];

/** Names of the tensors in a checkpoint, without ".weight" and ".bias". */
export interface TensorNames {
  embedding: string;
  finalNorm: string;
  head: string;
  /** Blocks are `${blocks}.${index}.${slot name}`. */
  blocks: string;
  linears: Readonly<Record<LinearSlot, string>>;
  vectors: Readonly<Record<VectorSlot, string>>;
}

/** A step of a block: the linears that share an input, the norm before them, and what is done with their outputs. */
export type StageSpec =
  /** Causal attention over query, key and value of the normed stream; its output is the next stage's input. */
  | { kind: "attention"; norm: VectorSlot; slots: readonly ["query", "key", "value"] }
  /** activation(gate) * up of the normed stream; the product is the next stage's input. */
  | { kind: "gated"; norm: VectorSlot; slots: readonly ["gate", "up"] }
  /** One linear of what the stage before left, added to the stream. */
  | { kind: "residual"; slots: readonly [LinearSlot] };

export interface Family {
  /** `model_type` of config.json. */
  readonly modelType: string;
  /** For people. */
  readonly title: string;
  readonly names: TensorNames;
  /** What a block computes, in order. */
  readonly stages: readonly StageSpec[];
  /** What transformers takes where config.json is silent. */
  readonly defaults: {
    keyValueHeads: number | "heads";
    headSize: number | "hidden / heads";
    contextLength: number;
    slidingWindow: number | undefined;
    /** First layer with a window, for the families that have such a rule. */
    maxWindowLayers: number;
  };
  /** "configured": on all four where `attention_bias` is true. */
  readonly attentionBias: "none" | "configured" | "query key value";
  /** "configured": on all three where `mlp_bias` is true. */
  readonly mlpBias: "none" | "configured";
  /** RMSNorm over each head of query and key, before the rotary embedding. */
  readonly queryKeyNorm: boolean;
  /**
   * "every layer": `sliding_window`, null for none. "by layer": only where `use_sliding_window` is true, and then in the
   * layers that `layer_types` names, or from `max_window_layers` on.
   */
  readonly slidingWindow: "none" | "every layer" | "by layer";
}

/** Names that LLaMA's descendants share. */
export const LLAMA_NAMES: TensorNames = {
  embedding: "model.embed_tokens",
  finalNorm: "model.norm",
  head: "lm_head",
  blocks: "model.layers",
  linears: {
    query: "self_attn.q_proj",
    key: "self_attn.k_proj",
    value: "self_attn.v_proj",
    output: "self_attn.o_proj",
    gate: "mlp.gate_proj",
    up: "mlp.up_proj",
    down: "mlp.down_proj",
  },
  vectors: {
    attentionNorm: "input_layernorm",
    mlpNorm: "post_attention_layernorm",
    queryNorm: "self_attn.q_norm",
    keyNorm: "self_attn.k_norm",
  },
};

/** Attention, then a gated MLP, each after a norm and each added to the stream. */
export const LLAMA_STAGES: readonly StageSpec[] = [
  { kind: "attention", norm: "attentionNorm", slots: ["query", "key", "value"] },
  { kind: "residual", slots: ["output"] },
  { kind: "gated", norm: "mlpNorm", slots: ["gate", "up"] },
  { kind: "residual", slots: ["down"] },
];
