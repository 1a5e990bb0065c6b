import { firstLine } from "../errors.js";

/** What we use of the package `webgpu` (Dawn). Written down here because it is optional: the build must not need it. */
interface Dawn {
  create(options: string[]): GPU;
}

/** Features of Dawn behind a switch: products of small matrices by a subgroup, and f16 on NVIDIA's cards. */
const SWITCHES = "enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia";

/** WebGPU for Node, or a line that says why there is none. An adapter is not asked for yet. */
export async function nodeGpu(): Promise<{ gpu: GPU } | { reason: string }> {
  let dawn: Dawn;
  try {
    const name = "webgpu"; // not a literal: the type checker and bundlers shall not look for it
    dawn = (await import(name)) as Dawn;
  } catch (error) {
    return { reason: `the optional package webgpu is not there (${firstLine(error)}); npm install webgpu` };
  }
  try {
    return { gpu: dawn.create([SWITCHES]) };
  } catch (error) {
    return { reason: `the package webgpu does not start: ${firstLine(error)}` };
  }
}
