// What WebGPU offers here, as a line of JSON: a process of its own for `doctor`, since a driver may print warnings, or crash.
import { createWebgpuEngine } from "../engine/webgpu/engine.js";
import { nodeGpu } from "./webgpu.js";

export type WebgpuProbe = { description: string; software: boolean } | { reason: string; missingPackage: boolean };

async function probe(): Promise<WebgpuProbe> {
  const dawn = await nodeGpu();
  if ("reason" in dawn) return { reason: dawn.reason, missingPackage: true };
  const made = await createWebgpuEngine({ gpu: dawn.gpu });
  if ("reason" in made) return { reason: made.reason, missingPackage: false };
  const { description } = made.engine;
  await made.engine.close();
  return { description, software: made.software };
}

process.stdout.write(JSON.stringify(await probe()));
