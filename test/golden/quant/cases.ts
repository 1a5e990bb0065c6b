import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Engine } from "../../../src/engine/engine.js";
import { memorySource } from "../../../src/files/memory.js";
import { openSafetensors } from "../../../src/files/safetensors.js";
import type { F32 } from "../../../src/tensor/index.js";

/** The tensors of cases.safetensors, which make.py writes. */
export async function openCases() {
  const bytes = new Uint8Array(readFileSync(fileURLToPath(new URL("cases.safetensors", import.meta.url))));
  const file = await openSafetensors(memorySource("cases.safetensors", bytes));
  const raw = async (name: string) => (await file.readRaw(name)).slice().buffer;
  return {
    names: file.names,
    shape: (name: string): readonly number[] => file.info(name)?.shape ?? [],
    f32: (name: string): Promise<Float32Array> => file.readF32(name),
    i32: async (name: string) => new Int32Array(await raw(name)),
    u8: async (name: string) => new Uint8Array(await raw(name)),
    upload: async (engine: Engine, name: string): Promise<F32> =>
      engine.upload(await file.readF32(name), file.info(name)?.shape ?? [], "f32"),
  };
}

export type Cases = Awaited<ReturnType<typeof openCases>>;
