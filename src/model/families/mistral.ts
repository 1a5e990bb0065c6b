import { type Family, LLAMA_ACTIVATIONS, LLAMA_BLOCKS, LLAMA_DEFAULTS, LLAMA_NAMES } from "../family.js";

/** Mistral 7B and its kin (transformers `MistralForCausalLM`). A silent config.json means a window of 4096, null means none. */
export const mistral: Family = {
  modelType: "mistral",
  title: "Mistral",
  names: LLAMA_NAMES,
  blocks: LLAMA_BLOCKS,
  words: {},
  defaults: {
    ...LLAMA_DEFAULTS,
    keyValueHeads: 8,
    contextLength: 131072,
    slidingWindow: 4096,
    maxWindowLayers: 0,
  },
  activations: LLAMA_ACTIVATIONS,
  norm: "rms",
  attentionBias: "none",
  mlpBias: "none",
  queryKeyNorm: false,
  slidingWindow: "every layer",
};
