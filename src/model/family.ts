import type { RawConfig, RawField } from "./config-schema.js";

// What differs between model families, as data. Foreign tensor names appear here and in the checkpoint layouts only.

/** Linear layers of a block, in our words. "queryKeyValue" is the three in one matrix, see `attentionRows`. */
export const LINEAR_SLOTS = ["query", "key", "value", "queryKeyValue", "output", "gate", "up", "down"] as const;
export type LinearSlot = (typeof LINEAR_SLOTS)[number];

/** Norms of a block, in our words. */
export const NORM_SLOTS = ["attentionNorm", "mlpNorm", "queryNorm", "keyNorm"] as const;
export type NormSlot = (typeof NORM_SLOTS)[number];

/** Vectors of a block: the weight of each norm, and its bias where the norm is a LayerNorm. */
export type VectorSlot = NormSlot | `${NormSlot}Bias`;

/** Names of the tensors in a checkpoint, without ".weight" and ".bias". */
export interface TensorNames {
  /** What all names but the head's begin with, and what a checkpoint may leave out. */
  prefix: string;
  embedding: string;
  /** Learned positions. */
  positions?: string;
  /** From the embedding's width to the stream's, and back before the head. */
  projectIn?: string;
  projectOut?: string;
  finalNorm: string;
  head: string;
  /** Blocks are `${blocks}.${index}.${slot name}`. */
  blocks: string;
  linears: Readonly<Partial<Record<LinearSlot, string>>>;
}

/** A step of a block: the linears that share an input, the norm before them, and what is done with their outputs. */
export type StageSpec =
  /** Causal attention over query, key and value of the (normed) stream; its output is the next stage's input. */
  | {
      kind: "attention";
      norm?: NormSlot;
      slots: readonly ["query", "key", "value"] | readonly ["queryKeyValue"];
    }
  /** activation(gate) * up of the normed stream; the product is the next stage's input. */
  | { kind: "gated"; norm: NormSlot; slots: readonly ["gate", "up"] }
  /** activation(up) of the (normed) stream, or of the origin that a stage before kept; the next stage's input. */
  | { kind: "plain"; norm?: NormSlot; reads?: "origin"; slots: readonly ["up"] }
  /** One linear of what the stage before left, added to the stream; then the norm. `keeps`: the stream as it was goes along. */
  | { kind: "residual"; norm?: NormSlot; keeps?: "origin"; slots: readonly [LinearSlot] };

/** How a block is put together; which one a model has is told by its configuration. */
export type BlockLayout =
  /** Attention, then the MLP, each after a norm and each added to the stream. */
  | "sequential"
  /** Attention, then the MLP, each added to the stream and followed by a norm. */
  | "post-norm"
  /** Both read the normed input of the block. */
  | "parallel"
  /** Both read the input of the block, each after a norm of its own. */
  | "parallel, two norms";

export interface BlockSpec {
  /** What a block computes, in order. */
  readonly stages: readonly StageSpec[];
  /** Names of its norms. */
  readonly norms: Readonly<Partial<Record<NormSlot, string>>>;
}

/** How tokens know where they stand. "alibi": a bias of the attention scores (arXiv 2108.12409). */
export type Positions = "rotary" | "learned" | "alibi";

export type Activation = "silu" | "relu" | "gelu";

/** What words of one family's config.json mean; they come before what the words shared by all families say. */
export interface FamilyFacts {
  layout: BlockLayout;
  keyValueHeads: number;
  positions: Positions;
  /** Of all linears. */
  bias: boolean;
  /** False: the norms have no weights. */
  normWeights: boolean;
  finalNorm: boolean;
  embeddingWidth: number;
}

export interface Family {
  /** `model_type` of config.json. */
  readonly modelType: string;
  /** For people. */
  readonly title: string;
  readonly names: TensorNames;
  readonly blocks: Readonly<Partial<Record<BlockLayout, BlockSpec>>>;
  /** The family's words of config.json where they are not LLaMA's. */
  readonly words: Readonly<Partial<Record<RawField, string>>>;
  /** What transformers takes where config.json is silent. */
  readonly defaults: {
    keyValueHeads: number | "heads";
    headSize: number | "hidden / heads";
    mlp: number | "4 hidden" | "required";
    contextLength: number;
    slidingWindow: number | undefined;
    /** First layer with a window, for the families that have such a rule. */
    maxWindowLayers: number;
    epsilon: number;
    activation: string;
    tieEmbeddings: boolean;
  };
  /** The activations that it can have, by their words in config.json. */
  readonly activations: Readonly<Record<string, Activation>>;
  readonly facts?: (raw: RawConfig) => Partial<FamilyFacts>;
  /** "rms": RMSNorm. "layer": LayerNorm, with a bias. */
  readonly norm: "rms" | "layer";
  /** Row of the first position in the table of learned positions. Default 0. */
  readonly positionOffset?: number;
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
  prefix: "model.",
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
};

/** Attention, then a gated MLP, each after a norm and each added to the stream. */
export const LLAMA_BLOCKS: Family["blocks"] = {
  sequential: {
    stages: [
      { kind: "attention", norm: "attentionNorm", slots: ["query", "key", "value"] },
      { kind: "residual", slots: ["output"] },
      { kind: "gated", norm: "mlpNorm", slots: ["gate", "up"] },
      { kind: "residual", slots: ["down"] },
    ],
    norms: {
      attentionNorm: "input_layernorm",
      mlpNorm: "post_attention_layernorm",
      queryNorm: "self_attn.q_norm",
      keyNorm: "self_attn.k_norm",
    },
  },
};

/** Defaults that LLaMA's descendants share. */
export const LLAMA_DEFAULTS = {
  headSize: "hidden / heads",
  mlp: "required",
  epsilon: 1e-6,
  activation: "silu",
  tieEmbeddings: false,
} as const;

export const LLAMA_ACTIVATIONS: Family["activations"] = { silu: "silu", swish: "silu" };
