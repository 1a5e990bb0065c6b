import type { ModelConfig } from "./config.js";
import { blockParameters } from "./tensors.js";

/** Which weights stay in memory, as f32. The head always does; a tied embedding is the head. */
export interface Residency {
  /** The embedding of an untied model stays on the host; otherwise it is read again for each call. */
  embedding: boolean;
  /** The first blocks that stay; the others are read again each time, one at a time. */
  blocks: number;
}

/** What fits `budget` bytes, kept in the order of use: head, room for one block at work, embedding, blocks. */
export function planResidency(config: ModelConfig, budget: number): Residency {
  const table = config.vocabulary * config.hidden * 4;
  const block = blockParameters(config) * 4;
  let left = budget - table;
  const embedding = config.tieEmbeddings || left >= table + block;
  if (embedding && !config.tieEmbeddings) left -= table;
  if (left >= block * config.layers) return { embedding, blocks: config.layers };
  return { embedding, blocks: Math.max(0, Math.floor(left / block) - 1) };
}
