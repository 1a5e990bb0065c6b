import type { Engine } from "../engine.js";
import { createWasmEngine } from "../wasm/engine.js";
import type { WorkerSpawner } from "../wasm/worker.js";
import { findBlas } from "./library.js";

export interface BlasEngineOptions {
  /** Threads of the library and of the kernels, the calling one included. Default 1. */
  threads?: number;
  /** Starts the threads of the kernels: `nodeWorkers()`. */
  spawnWorker?: WorkerSpawner;
}

/**
 * The wasm engine with matrix products from the machine's BLAS, called on its shared memory without a copy. Where there is
 * no library, `reason` says so. Throws what `createWasmEngine` throws.
 */
export async function createBlasEngine(
  options: BlasEngineOptions = {},
): Promise<{ engine: Engine } | { reason: string }> {
  const found = await findBlas(options.threads ?? 1);
  if ("reason" in found) return found;
  return { engine: await createWasmEngine({ ...options, library: found.library }) };
}
