import { type Family, LLAMA_NAMES, LLAMA_STAGES } from "../family.js";

/** LLaMA 1, 2, 3, 3.1, 3.2 (transformers `LlamaForCausalLM`). */
export const llama: Family = {
  modelType: "llama",
  title: "LLaMA",
  names: LLAMA_NAMES,
  stages: LLAMA_STAGES,
  defaults: {
    keyValueHeads: "heads",
    headSize: "hidden / heads",
    contextLength: 2048,
    slidingWindow: undefined,
    maxWindowLayers: 0,
  },
  attentionBias: "configured",
  mlpBias: "configured",
  queryKeyNorm: false,
  slidingWindow: "none",
};
