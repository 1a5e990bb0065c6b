import { type Family, LLAMA_NAMES, LLAMA_STAGES } from "../family.js";

/** Qwen2, Qwen2.5 (transformers `Qwen2ForCausalLM`). */
export const qwen2: Family = {
  modelType: "qwen2",
  title: "Qwen2",
  names: LLAMA_NAMES,
  stages: LLAMA_STAGES,
  defaults: {
    keyValueHeads: 32,
    headSize: "hidden / heads",
    contextLength: 32768,
    slidingWindow: 4096,
    maxWindowLayers: 28,
  },
  attentionBias: "query key value",
  mlpBias: "none",
  queryKeyNorm: false,
  slidingWindow: "by layer",
};
