import { type Family, LLAMA_NAMES, LLAMA_STAGES } from "../family.js";

/** Mistral 7B and its kin (transformers `MistralForCausalLM`). A silent config.json means a window of 4096, null means none. */
export const mistral: Family = {
  modelType: "mistral",
  title: "Mistral",
  names: LLAMA_NAMES,
  stages: LLAMA_STAGES,
  defaults: {
    keyValueHeads: 8,
    headSize: "hidden / heads",
    contextLength: 131072,
    slidingWindow: 4096,
    maxWindowLayers: 0,
  },
  attentionBias: "none",
  mlpBias: "none",
  queryKeyNorm: false,
  slidingWindow: "every layer",
};
