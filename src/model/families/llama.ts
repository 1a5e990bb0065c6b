import { type Family, LLAMA_ACTIVATIONS, LLAMA_BLOCKS, LLAMA_DEFAULTS, LLAMA_NAMES } from "../family.js";

/** LLaMA 1, 2, 3, 3.1, 3.2 (transformers `LlamaForCausalLM`). */
export const llama: Family = {
  modelType: "llama",
  title: "LLaMA",
  names: LLAMA_NAMES,
  blocks: LLAMA_BLOCKS,
  words: {},
  defaults: {
    ...LLAMA_DEFAULTS,
    keyValueHeads: "heads",
    contextLength: 2048,
    slidingWindow: undefined,
    maxWindowLayers: 0,
  },
  activations: LLAMA_ACTIVATIONS,
  norm: "rms",
  attentionBias: "configured",
  mlpBias: "configured",
  queryKeyNorm: false,
  slidingWindow: "none",
};
