import { throwIfAborted } from "../errors.js";
import { disposeCache } from "../model/cache.js";
import type { Decoder } from "../model/decoder.js";
import { packTokens, type TokenRows } from "../model/embedding.js";

export interface Logits {
  /** [B, T, V]. */
  shape: [number, number, number];
  /** Row-major. */
  values: Float32Array;
}

/**
 * Logits of rows of tokens [B][T], of equal length. `cached` goes token by token through the key-value cache instead of in one
 * pass: the same numbers up to rounding.
 */
export async function computeLogits(
  decoder: Decoder,
  tokens: TokenRows,
  options: { cached?: boolean; signal?: AbortSignal } = {},
): Promise<Logits> {
  const { engine, config } = decoder;
  const [batch, length] = packTokens(tokens, config.vocabulary).shape;
  const shape: Logits["shape"] = [batch, length, config.vocabulary];
  if (!options.cached) {
    const values = await engine.scope(async () => engine.read(await decoder.logits(tokens)));
    return { shape, values };
  }
  const values = new Float32Array(batch * length * config.vocabulary);
  const cache = decoder.createCache({ batch, capacity: Math.max(1, length) });
  try {
    for (let position = 0; position < length; position++) {
      throwIfAborted(options.signal);
      const column = tokens.map((row) => Int32Array.of(row[position]));
      // [B, 1, V]
      const step = await engine.scope(async () => engine.read(await decoder.step(column, cache)));
      for (let row = 0; row < batch; row++) {
        const from = step.subarray(row * config.vocabulary, (row + 1) * config.vocabulary);
        values.set(from, (row * length + position) * config.vocabulary);
      }
    }
  } finally {
    disposeCache(cache);
  }
  return { shape, values };
}
