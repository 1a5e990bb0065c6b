import { existsSync, readdirSync } from "node:fs";
import { availableParallelism } from "node:os";
import { platform } from "node:process";
import { setFlagsFromString } from "node:v8";
import { createBlasEngine } from "../engine/blas/index.js";
import { createCudaEngine } from "../engine/cuda/engine.js";
import type { Engine, Precision } from "../engine/engine.js";
import { createReferenceEngine } from "../engine/reference/index.js";
import { createWasmEngine } from "../engine/wasm/engine.js";
import { hasRelaxedSimd } from "../engine/wasm/runtime.js";
import { createWebgpuEngine } from "../engine/webgpu/engine.js";
import { unsupportedError, usageError } from "../errors.js";
import { nodeWorkers } from "./threads.js";
import { nodeGpu } from "./webgpu.js";

export const ENGINE_CHOICES = ["auto", "cuda", "webgpu", "wasm", "blas", "reference"] as const;
export type EngineChoice = (typeof ENGINE_CHOICES)[number];

export interface EngineOptions {
  /** Of the engines on the CPU. Default: as many as the machine runs at once. */
  threads?: number;
  /** The same bytes on every machine: the wasm engine without fused multiply-add, somewhat slower. Default false. */
  reproducible?: boolean;
  /** Which card, for the engines on GPUs. Default 0. */
  device?: number;
  /** Of the matrix products of the engines on GPUs. Default "f32". */
  precision?: Precision;
  /**
   * The most that may be taken of a card's memory. Default: what is free. WebGPU does not tell how much there is: only with this do
   * activations stay on the card there.
   */
  deviceMemory?: number;
}

/** What the engines on GPUs are asked for. */
type Card = Pick<EngineOptions, "device" | "precision" | "deviceMemory">;

interface Chosen {
  engine: Engine;
  /** In a line, why it is this one. */
  reason: string;
}

type Attempt = { engine: Engine } | { reason: string };

/**
 * An engine by name; "auto" is the first of cuda, webgpu (on a card, not on a software adapter), blas and wasm that the machine
 * has. Throws "unsupported" when an engine is asked for by name and is not there.
 */
export async function createEngine(choice: EngineChoice = "auto", options: EngineOptions = {}): Promise<Chosen> {
  const { threads = availableParallelism(), reproducible = false } = options;
  const { device, precision = "f32", deviceMemory } = options;
  const card = { device, precision, deviceMemory };
  if (!Number.isSafeInteger(threads) || threads < 1)
    throw usageError(`threads: expected a whole number from 1 on, got ${threads}`);
  if (reproducible && !["auto", "wasm", "reference"].includes(choice))
    throw usageError(
      `a reproducible run on the ${choice} engine: results depend on the machine`,
      "use the wasm engine",
    );
  if (choice === "reference") return { engine: createReferenceEngine(), reason: "asked for" };
  if (choice === "cuda") return named(choice, await cudaEngine(card));
  if (choice === "webgpu") return named(choice, await webgpuEngine(card));
  if (choice === "auto" && !reproducible) {
    const onCard = await firstCard(card);
    if (onCard) return onCard;
  }
  if (device !== undefined || precision !== "f32" || deviceMemory !== undefined)
    throw usageError(
      `--device, --devices, --precision and --device-memory are for the engines on GPUs, and ${choice === "auto" ? "none was found" : `${choice} is not one`}`,
      "leave them out; bitwright doctor says what this machine lacks for such an engine",
    );
  if (!reproducible) enableRelaxedSimd();
  const spawnWorker = threads > 1 ? nodeWorkers() : undefined;
  let reason = "asked for";
  if (choice === "auto" && reproducible) reason = "a reproducible run takes no BLAS library";
  else if (choice !== "wasm") {
    const found = await createBlasEngine({ threads, spawnWorker });
    if (choice === "blas") return named(choice, found);
    if ("engine" in found) return { engine: found.engine, reason: "a BLAS library was found" };
    reason = found.reason;
  }
  return { engine: await createWasmEngine({ threads, spawnWorker, reproducible }), reason };
}

function named(choice: EngineChoice, found: Attempt): Chosen {
  if ("reason" in found)
    throw unsupportedError(
      `no ${choice} engine: ${found.reason}`,
      "bitwright doctor says what to do; --engine auto takes what is there",
    );
  return { engine: found.engine, reason: "asked for" };
}

const cudaEngine = ({ device, precision, deviceMemory }: Card) =>
  createCudaEngine({ device, precision, memoryLimit: deviceMemory });

async function firstCard(card: Card): Promise<Chosen | undefined> {
  const cuda = await cudaEngine(card);
  if ("engine" in cuda) return { engine: cuda.engine, reason: "an NVIDIA card was found" };
  if (!mayHaveCard()) return undefined;
  const webgpu = await webgpuEngine(card);
  if (!("engine" in webgpu)) return undefined;
  if (!webgpu.software) return { engine: webgpu.engine, reason: `a card was found for WebGPU, and ${cuda.reason}` };
  await webgpu.engine.close();
  return undefined;
}

/** Starting Dawn takes as long as a short command: on Linux a card shows itself in /dev first. */
function mayHaveCard(): boolean {
  if (platform !== "linux") return true;
  if (existsSync("/dev/nvidia0") || existsSync("/dev/dxg")) return true;
  return existsSync("/dev/dri") && readdirSync("/dev/dri").some((name) => name.startsWith("renderD"));
}

/** WebGPU has no numbers of cards: it takes the one that the system puts first. */
async function webgpuEngine({
  device,
  precision,
  deviceMemory,
}: Card): Promise<{ engine: Engine; software: boolean } | { reason: string }> {
  if (device !== undefined && device !== 0)
    throw usageError(`--device ${device} on the webgpu engine: WebGPU takes the system's first card`, "leave it out");
  if (precision === "tf32")
    throw usageError("--precision tf32 on the webgpu engine: it has f32 and f16", "take one of these");
  const found = await nodeGpu();
  return "reason" in found ? found : createWebgpuEngine({ gpu: found.gpu, precision, memoryLimit: deviceMemory });
}

/** Node 20 has relaxed SIMD behind an option of V8, which counts from the next compilation on. */
export function enableRelaxedSimd(): void {
  if (!hasRelaxedSimd()) setFlagsFromString("--experimental-wasm-relaxed-simd");
}
