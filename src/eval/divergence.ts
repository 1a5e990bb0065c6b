import type { Engine } from "../engine/engine.js";
import type { F32 } from "../tensor/index.js";

/** What predictions lost against the full-precision model's, summed over tokens in f64. */
export interface Divergence {
  /** Of KL(full || this), nats. */
  sum: number;
  /** Tokens with the same likeliest successor. */
  agreed: number;
  tokens: number;
}

export const noDivergence = (): Divergence => ({ sum: 0, agreed: 0, tokens: 0 });

/** Adds rows of logits [T, V] of both models. */
export async function addDivergence(engine: Engine, total: Divergence, reference: F32, logits: F32): Promise<void> {
  const divergences = await engine.read(engine.klDivergence(reference, logits));
  const expected = await engine.read(engine.argmax(reference));
  const got = await engine.read(engine.argmax(logits));
  for (const [row, value] of divergences.entries()) {
    total.sum += value;
    if (expected[row] === got[row]) total.agreed++;
  }
  total.tokens += divergences.length;
}

export const meanDivergence = (total: Divergence): { klDivergence: number; topAgreement: number } => ({
  klDivergence: total.sum / total.tokens,
  topAgreement: total.agreed / total.tokens,
});
