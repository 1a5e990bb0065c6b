import type { Engine } from "../engine/engine.js";
import { openModel, type RunnableModel } from "../runtime/model.js";
import { openFolder } from "./folder.js";
import { availableMemory } from "./memory.js";

/** WebAssembly addresses 4 GiB; the rest of it is for activations and logits. */
const MOST_WEIGHTS = 2.5 * 2 ** 30;
const LEAST_WEIGHTS = 256 * 2 ** 20;

/** Bytes of f32 weights that may stay in memory, for `models` models together on this machine. */
export function weightBudget(models = 1): number {
  return Math.max(LEAST_WEIGHTS, Math.min(MOST_WEIGHTS, availableMemory() / 2)) / models;
}

/** Opens the checkpoint in a folder of the disk for running; `models` of them share the memory. */
export async function openModelAt(path: string, engine: Engine, models = 1): Promise<RunnableModel> {
  return openModel(engine, await openFolder(path), { weightBudget: weightBudget(models) });
}
