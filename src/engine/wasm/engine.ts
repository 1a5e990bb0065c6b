import { compositeOperations } from "../composite.js";
import type { Engine } from "../engine.js";
import { activationOperations } from "./activation.js";
import { affineOperations } from "./affine.js";
import { attentionGradOperations } from "./attentiongrad.js";
import { codebookOperations } from "./codebook.js";
import { columnOperations } from "./columns.js";
import type { WasmContext } from "./context.js";
import { decoderOperations } from "./decoder.js";
import { elementwiseOperations } from "./elementwise.js";
import { factorOperations } from "./factor.js";
import { gridOperations } from "./grid.js";
import { matrixOperations } from "./matrix.js";
import { WasmMemory } from "./memory.js";
import { normOperations } from "./norm.js";
import type { ProductLibrary } from "./product.js";
import { hasRelaxedSimd, WasmRuntime } from "./runtime.js";
import { sweepOperations } from "./sweep.js";
import type { WorkerSpawner } from "./worker.js";

export interface WasmEngineOptions {
  /** Threads that compute, the calling one included. Default 1. */
  threads?: number;
  /** Starts the others: `webWorkers()` here, `nodeWorkers()` in node/threads.ts. Without it there is one thread. */
  spawnWorker?: WorkerSpawner;
  /** Plain SIMD only: the same bytes on every machine. Default false: fused multiply-add where the machine has it. */
  reproducible?: boolean;
  /** Takes matrix products over; the engine then bears its name. */
  library?: ProductLibrary & Pick<Engine, "name" | "description" | "arithmetic">;
}

/**
 * The engine of WebAssembly SIMD kernels over shared memory: the default everywhere. At most 4 GiB.
 * Throws "unsupported" when the machine has no WebAssembly SIMD with threads, or when a worker does not start.
 */
export async function createWasmEngine(options: WasmEngineOptions = {}): Promise<Engine> {
  const { library, threads, spawnWorker, reproducible = false } = options;
  const runtime = await WasmRuntime.create({ threads, spawnWorker, relaxed: !reproducible && hasRelaxedSimd() });
  const memory = new WasmMemory(runtime);
  const context: WasmContext = {
    runtime,
    empty: (shape, dtype) => memory.empty(shape, dtype),
    address: (tensor) => memory.address(tensor),
    view: (tensor) => memory.host(tensor),
  };
  const { relaxed } = runtime;
  const kernels = `WebAssembly ${relaxed ? "relaxed " : ""}SIMD, ${runtime.threads} thread${runtime.threads === 1 ? "" : "s"}`;
  const arithmetic = relaxed ? "wasm-relaxed" : "wasm";
  const engine = Object.assign(memory, {
    name: library?.name ?? ("wasm" as const),
    description: library ? `${library.description}; ${kernels}` : kernels,
    threads: runtime.threads,
    precision: "f32" as const,
    arithmetic: library ? `${library.arithmetic}, ${arithmetic}` : arithmetic,
    ...elementwiseOperations(context),
    ...matrixOperations(context, library),
    ...activationOperations(context),
    ...columnOperations(context),
    ...decoderOperations(context),
    ...normOperations(context),
    ...attentionGradOperations(context),
    ...codebookOperations(context),
    ...sweepOperations(context),
    ...affineOperations(context),
    ...gridOperations(context),
    ...factorOperations(context),
  });
  return Object.assign(engine, compositeOperations(engine));
}
