import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { testGpu } from "../../../test/webgpu-adapter.js";
import { openCheckpointModel } from "../../checkpoint/open.js";
import { memoryFolder, memoryOutput } from "../../files/memory.js";
import { quantize } from "../../pipeline/job.js";
import type { RecipeInput } from "../../pipeline/recipe.js";
import { createRandom } from "../../random.js";
import { deviceOperations } from "../device/engine.js";
import { DeviceMemory } from "../device/memory.js";
import type { Engine } from "../engine.js";
import { openDevice } from "./adapter.js";
import { WebgpuDevice } from "./device.js";
import { factorOperations } from "./factor.js";
import { gramOperations } from "./gram.js";
import { KERNEL_FILES } from "./kernels.generated.js";
import { matmulOperations } from "./matmul.js";

// Whole models on a device that binds less than their weights and Hessians take.

const FIXTURE = "test/golden/families/llama-gqa-llama3-tied";
const files = new Map(
  ["config.json", "model.safetensors"].map((name) => [name, new Uint8Array(readFileSync(`${FIXTURE}/${name}`))]),
);
const RECIPES: readonly RecipeInput[] = [
  { codebook: 2, vectorLength: 4, residual: [2], iterations: 3, refine: 1 },
  { method: "gptq", bits: 3, group: 16 },
  { method: "omniquant", bits: 3, group: 16, activations: 6, epochs: 1, tuneEpochs: 1 },
];

/** Bytes; the largest Hessian takes 36 KiB, and what Cholesky keeps of a step 24. */
const NARROW = 25 * 1024;

const found = await testGpu();

if ("gpu" in found)
  it.each(RECIPES)("quantizes a model in windows: %j", async (recipe) => {
    const model = await openCheckpointModel(memoryFolder("tiny", files));
    const random = createRandom(7);
    const calibration = Int32Array.from({ length: 400 }, () => random.integer(model.model.vocabulary));
    const run = async (bindingBytes?: number) => {
      const opened = await openDevice(found.gpu);
      if ("reason" in opened) throw new Error(opened.reason);
      const device = new WebgpuDevice(opened.open, KERNEL_FILES);
      if (bindingBytes) Object.assign(device, { bindingBytes });
      const memory = new DeviceMemory(device);
      const { name, description, arithmetic } = device;
      const engine: Engine = Object.assign(
        memory,
        { name, description, arithmetic, threads: 1, precision: "f32" } as const,
        deviceOperations(memory),
        matmulOperations(memory, device),
        gramOperations(memory, device),
        factorOperations(memory),
      );
      try {
        const options = { engine, output: memoryOutput(), calibration, calibrationName: "random tokens" };
        return await quantize(model, { ...recipe, samples: 4, window: 24 }, options);
      } finally {
        await engine.close();
      }
    };
    const [whole, narrow] = [await run(), await run(NARROW)];
    expect(narrow.bitsPerWeight).toBe(whole.bitsPerWeight);
    // the sums of products follow the windows
    expect(narrow.meanProxyError / whole.meanProxyError).toBeCloseTo(1, 2);
  });
else
  it("says what is missing where there is no adapter", () => {
    expect(found.reason).toMatch(/webgpu|WebGPU/);
    console.log(`Windows of a whole model were not tested: ${found.reason}`);
  });
