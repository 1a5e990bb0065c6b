import { throwIfAborted, usageError } from "../errors.js";
import { disposeCache } from "../model/cache.js";
import type { Decoder } from "../model/decoder.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { breathe } from "../turns.js";
import { createSampler, type SamplingOptions } from "./sampler.js";

export interface GenerationOptions extends SamplingOptions {
  /** Most tokens to add to the prompt. Default 128. */
  maxTokens?: number;
  /** Tokens that end the text; they are not part of it. Default: the model's. */
  endTokens?: readonly number[];
  signal?: AbortSignal;
}

/** Why a text ended: the model said so, the number of tokens was reached, or the model's context is full. */
export type EndReason = "end token" | "max tokens" | "context";

export type GenerationEvent =
  /** Text as it becomes certain; a token may complete none. */
  | { type: "token"; id: number; text: string }
  | {
      type: "end";
      reason: EndReason;
      /** Text that was held back: an unfinished character. */
      text: string;
      promptTokens: number;
      tokens: number;
      /** Until the prompt was read. */
      promptSeconds: number;
      /** From then on. */
      seconds: number;
    };

/** Token ids of a prompt, with what the tokenizer puts before a text (often a beginning-of-sequence token). */
export function encodePrompt(tokenizer: Tokenizer, text: string): Int32Array {
  return Int32Array.from([...tokenizer.beginTokens, ...tokenizer.encode(text)]);
}

/**
 * Continues a prompt token by token, through a key-value cache. The last event has type "end".
 * Throws "usage" for an empty prompt or one that fills the model's context, "aborted" by the signal.
 */
export async function* generate(
  decoder: Decoder,
  tokenizer: Tokenizer,
  prompt: Int32Array,
  options: GenerationOptions = {},
): AsyncGenerator<GenerationEvent, void> {
  const { maxTokens = 128, endTokens = decoder.config.endTokens, signal } = options;
  const { engine, config } = decoder;
  const sample = createSampler(options);
  if (!Number.isInteger(maxTokens) || maxTokens < 1)
    throw usageError(`max-tokens: expected a whole number of at least 1, got ${maxTokens}`);
  if (prompt.length === 0) throw usageError("the prompt is empty: there is nothing to continue");
  if (prompt.length >= config.contextLength) {
    throw usageError(
      `the prompt has ${prompt.length} tokens; the model's context of ${config.contextLength} leaves no room to continue it`,
      "shorten the prompt",
    );
  }
  const room = config.contextLength - prompt.length;
  const limit = Math.min(maxTokens, room);
  const ends = new Set(endTokens);
  const stream = tokenizer.stream();
  const cache = decoder.createCache({ capacity: prompt.length + Math.min(limit, 256) });
  const next = (tokens: Int32Array): Promise<number> =>
    engine.scope(async () => sample(await engine.read(await decoder.step([tokens], cache, { lastOnly: true }))));
  try {
    const startedAt = performance.now();
    throwIfAborted(signal);
    let id = await next(prompt);
    const promptDoneAt = performance.now();
    let tokens = 0;
    let reason: EndReason = room < maxTokens ? "context" : "max tokens";
    while (true) {
      throwIfAborted(signal);
      if (ends.has(id)) {
        reason = "end token";
        break;
      }
      tokens++;
      yield { type: "token", id, text: stream.push(id) };
      if (tokens === limit) break;
      id = await next(Int32Array.of(id));
      await breathe(signal);
    }
    yield {
      type: "end",
      reason,
      text: stream.flush(),
      promptTokens: prompt.length,
      tokens,
      promptSeconds: (promptDoneAt - startedAt) / 1000,
      seconds: (performance.now() - promptDoneAt) / 1000,
    };
  } finally {
    disposeCache(cache);
  }
}
