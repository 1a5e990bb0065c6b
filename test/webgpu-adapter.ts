import { existsSync } from "node:fs";
import { env } from "node:process";
import { closeDevice, openDevice } from "../src/engine/webgpu/adapter.js";
import { nodeGpu } from "../src/node/webgpu.js";

/** The software driver that Debian's chromium brings, for machines whose own drivers give no adapter. */
const SWIFTSHADER = "/usr/lib/chromium/vk_swiftshader_icd.json";

/** WebGPU with an adapter, or why there is none: the tests of a file skip then, and say so. */
export async function testGpu(): Promise<{ gpu: GPU } | { reason: string }> {
  const first = await tryGpu();
  if ("gpu" in first || env.VK_DRIVER_FILES !== undefined || !existsSync(SWIFTSHADER)) return first;
  env.VK_DRIVER_FILES = SWIFTSHADER; // read when an instance is made
  env.VK_ICD_FILENAMES = SWIFTSHADER; // its name for older loaders
  return tryGpu();
}

async function tryGpu(): Promise<{ gpu: GPU } | { reason: string }> {
  const loaded = await nodeGpu();
  if ("reason" in loaded) return loaded;
  const found = await openDevice(loaded.gpu);
  if ("reason" in found) return found;
  closeDevice(found.open);
  return loaded;
}
