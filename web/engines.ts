import { unsupportedError } from "../src/errors.js";
import { createWasmEngine, createWebgpuEngine, type Engine, webWorkers } from "../src/index.js";
import type { EngineInfo, EngineInput } from "./protocol.js";

/** An engine of this browser, and what the page says of it. "auto": WebGPU on a card, else WebAssembly. */
export async function chooseEngine({
  choice,
  deviceMemory,
}: EngineInput): Promise<{ engine: Engine; info: EngineInfo }> {
  if (choice !== "auto" && choice !== "webgpu") return wasm(choice === "wasm-plain", "asked for");
  const found = await createWebgpuEngine({ memoryLimit: deviceMemory });
  if ("engine" in found) {
    const { engine, software } = found;
    if (choice === "webgpu") return { engine, info: describe(engine, "asked for") };
    if (!software) return { engine, info: describe(engine, "this browser offers a graphics card through WebGPU") };
    await engine.close();
    return wasm(false, "WebGPU is here, but the processor would compute in a card's place: WebAssembly is faster");
  }
  if (choice === "webgpu")
    throw unsupportedError(`no WebGPU engine: ${found.reason}`, "choose WebAssembly, or another browser");
  return wasm(false, found.reason);
}

async function wasm(reproducible: boolean, reason: string): Promise<{ engine: Engine; info: EngineInfo }> {
  const isolated = globalThis.crossOriginIsolated;
  const threads = isolated ? navigator.hardwareConcurrency : 1;
  const engine = await createWasmEngine({
    threads,
    spawnWorker: threads > 1 ? webWorkers() : undefined,
    reproducible,
  });
  const hint = isolated
    ? undefined
    : "One thread only: the server of this page does not isolate it. The headers Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp give it all cores.";
  return { engine, info: { ...describe(engine, reason), hint } };
}

const describe = ({ name, description }: Engine, reason: string): EngineInfo => ({ name, description, reason });
