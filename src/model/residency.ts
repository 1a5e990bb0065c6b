import { sizeOf } from "../tensor/index.js";
import type { ModelConfig } from "./config.js";
import { outerTensors } from "./embedding.js";
import { blockParameters } from "./tensors.js";

/** Which weights stay in memory, as f32. The head, learned positions and projections always do; a tied embedding is the head. */
export interface Residency {
  /** The embedding of an untied model stays on the host; otherwise it is read again for each call. */
  embedding: boolean;
  /** The first blocks that stay; the others are read again each time, one at a time. */
  blocks: number;
}

/** What fits `budget` bytes, kept in the order of use: head, room for one block at work, embedding, blocks. */
export function planResidency(config: ModelConfig, budget: number): Residency {
  const table = config.vocabulary * config.embeddingWidth * 4;
  const block = blockParameters(config) * 4;
  const { positions, projectIn, projectOut } = outerTensors(config);
  const others = [positions, projectIn, projectOut].reduce((sum, part) => sum + (part ? 4 * sizeOf(part.shape) : 0), 0);
  let left = budget - table - others;
  const embedding = config.tieEmbeddings || left >= table + block;
  if (embedding && !config.tieEmbeddings) left -= table;
  if (left >= block * config.layers) return { embedding, blocks: config.layers };
  return { embedding, blocks: Math.max(0, Math.floor(left / block) - 1) };
}
