import { type Family, LLAMA_ACTIVATIONS, LLAMA_BLOCKS, LLAMA_DEFAULTS, LLAMA_NAMES } from "../family.js";

/** Qwen2, Qwen2.5 (transformers `Qwen2ForCausalLM`). */
export const qwen2: Family = {
  modelType: "qwen2",
  title: "Qwen2",
  names: LLAMA_NAMES,
  blocks: LLAMA_BLOCKS,
  words: {},
  defaults: {
    ...LLAMA_DEFAULTS,
    keyValueHeads: 32,
    contextLength: 32768,
    slidingWindow: 4096,
    maxWindowLayers: 28,
  },
  activations: LLAMA_ACTIVATIONS,
  norm: "rms",
  attentionBias: "query key value",
  mlpBias: "none",
  queryKeyNorm: false,
  slidingWindow: "by layer",
};
