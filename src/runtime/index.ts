export { type ChatMessage, type ChatTemplate, encodeChat, openChatTemplate } from "./chat.js";
export { type EndReason, encodePrompt, type GenerationEvent, type GenerationOptions, generate } from "./generate.js";
export { computeLogits, type Logits } from "./logits.js";
export { openModel, type RunnableModel } from "./model.js";
export { createSampler, type Sampler, type SamplingOptions } from "./sampler.js";
