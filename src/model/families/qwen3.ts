import { type Family, LLAMA_ACTIVATIONS, LLAMA_BLOCKS, LLAMA_DEFAULTS, LLAMA_NAMES } from "../family.js";

/** Qwen3, dense (transformers `Qwen3ForCausalLM`). The head size is its own number, not hidden / heads. */
export const qwen3: Family = {
  modelType: "qwen3",
  title: "Qwen3",
  names: LLAMA_NAMES,
  blocks: LLAMA_BLOCKS,
  words: {},
  defaults: {
    ...LLAMA_DEFAULTS,
    keyValueHeads: 32,
    headSize: 128,
    contextLength: 32768,
    slidingWindow: 4096,
    maxWindowLayers: 28,
  },
  activations: LLAMA_ACTIVATIONS,
  norm: "rms",
  attentionBias: "configured",
  mlpBias: "none",
  queryKeyNorm: true,
  slidingWindow: "by layer",
};
