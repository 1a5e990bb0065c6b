import type { Decoder } from "../model/decoder.js";
import type { F32 } from "../tensor/index.js";

// A window's logits can be larger than the model (2048 tokens of a vocabulary of 128,000: 1 GB), so rows pass through the
// head in slabs.

/** Bytes of logits that exist at once, of one model. */
const SLAB_BYTES = 64 * 2 ** 20;

/**
 * Calls `onSlab` with the logits [rows, V] of hidden states [1, T, D], without those of the last token, which predicts
 * nothing; `begin` is the position of the first row. The logits are freed when it returns.
 */
export async function forEachSlab(
  decoder: Decoder,
  hidden: F32,
  onSlab: (logits: F32, begin: number) => Promise<void>,
  slabBytes = SLAB_BYTES,
): Promise<void> {
  const { engine, config } = decoder;
  const [, length, width] = hidden.shape;
  const rows = Math.max(1, Math.floor(slabBytes / (4 * config.vocabulary)));
  for (let begin = 0; begin < length - 1; begin += rows) {
    const count = Math.min(rows, length - 1 - begin);
    await engine.scope(async () => {
      const logits = await decoder.head(engine.view(hidden, [count, width], begin * width));
      await onSlab(logits, begin);
    });
  }
}
