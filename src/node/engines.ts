import { availableParallelism } from "node:os";
import { setFlagsFromString } from "node:v8";
import { createBlasEngine } from "../engine/blas/index.js";
import type { Engine } from "../engine/engine.js";
import { createReferenceEngine } from "../engine/reference/index.js";
import { createWasmEngine } from "../engine/wasm/engine.js";
import { hasRelaxedSimd } from "../engine/wasm/runtime.js";
import { unsupportedError, usageError } from "../errors.js";
import { nodeWorkers } from "./threads.js";

export type EngineChoice = "auto" | "wasm" | "blas" | "reference";

export interface EngineOptions {
  /** Default: as many as the machine runs at once. */
  threads?: number;
  /** The same bytes on every machine: the wasm engine without fused multiply-add, somewhat slower. Default false. */
  reproducible?: boolean;
}

/**
 * An engine by name; "auto" is blas where a library is found and wasm otherwise. `reason` says in a line why it is this one.
 * Throws "unsupported" when blas is asked for and there is none.
 */
export async function createEngine(
  choice: EngineChoice = "auto",
  options: EngineOptions = {},
): Promise<{ engine: Engine; reason: string }> {
  const { threads = availableParallelism(), reproducible = false } = options;
  if (!Number.isSafeInteger(threads) || threads < 1)
    throw usageError(`threads: expected a whole number from 1 on, got ${threads}`);
  if (choice === "reference") return { engine: createReferenceEngine(), reason: "asked for" };
  if (choice === "blas" && reproducible)
    throw usageError("a reproducible run on the blas engine: results depend on the library", "use the wasm engine");
  if (!reproducible) enableRelaxedSimd();
  const spawnWorker = threads > 1 ? nodeWorkers() : undefined;
  let reason = "asked for";
  if (choice === "auto" && reproducible) reason = "a reproducible run takes no BLAS library";
  else if (choice !== "wasm") {
    const found = await createBlasEngine({ threads, spawnWorker });
    if ("engine" in found)
      return { engine: found.engine, reason: choice === "auto" ? "a BLAS library was found" : reason };
    if (choice === "blas") throw unsupportedError(`no blas engine: ${found.reason}`, "use the wasm engine");
    reason = found.reason;
  }
  return { engine: await createWasmEngine({ threads, spawnWorker, reproducible }), reason };
}

/** Node 20 has relaxed SIMD behind an option of V8, which counts from the next compilation on. */
export function enableRelaxedSimd(): void {
  if (!hasRelaxedSimd()) setFlagsFromString("--experimental-wasm-relaxed-simd");
}
