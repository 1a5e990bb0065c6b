import type { Engine } from "../engine/engine.js";
import type { F32, I32 } from "../tensor/index.js";

/** Sum of -log p over predicted tokens, in f64. */
export interface Loss {
  sum: number;
  tokens: number;
}

export const noLoss = (): Loss => ({ sum: 0, tokens: 0 });

/** Adds the losses of rows of logits [T, V] for the tokens that followed, i32 [T]. */
export async function addLosses(engine: Engine, loss: Loss, logits: F32, targets: I32): Promise<void> {
  const losses = await engine.read(engine.crossEntropy(logits, targets));
  for (const value of losses) loss.sum += value;
  loss.tokens += losses.length;
}

export const perplexityOf = (loss: Loss): number => Math.exp(loss.sum / loss.tokens);
