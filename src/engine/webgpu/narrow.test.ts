import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { testGpu } from "../../../test/webgpu-adapter.js";
import { openCheckpointModel } from "../../checkpoint/open.js";
import { type MemoryOutput, memoryFolder, memoryOutput } from "../../files/memory.js";
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
/**
 * With bytes of a binding: the largest Hessian takes 36 KiB, and what Cholesky keeps of a step 24; the largest weight takes 24, and
 * a slab of 32 rows of it, of which OmniQuant sums gradients, 12.
 */
const RECIPES: readonly [number, RecipeInput][] = [
  [25 * 1024, { codebook: 2, vectorLength: 4, residual: [2], iterations: 3, refine: 1 }],
  [25 * 1024, { method: "gptq", bits: 3, group: 16 }],
  [13 * 1024, { method: "omniquant", bits: 3, group: 16, activations: 6, epochs: 1, tuneEpochs: 1 }],
];

class CountingDevice extends WebgpuDevice {
  calls = 0;
  override run(...call: Parameters<WebgpuDevice["run"]>): void {
    this.calls++;
    super.run(...call);
  }
}

/** Of each file that was written. */
const hashesOf = ({ files: written }: MemoryOutput) =>
  [...written].map(([name, bytes]) => [name, createHash("sha256").update(bytes).digest("hex")]);

const found = await testGpu();

if ("gpu" in found)
  it.each(RECIPES)("quantizes a model in windows of %i bytes: %j", async (most, recipe) => {
    const model = await openCheckpointModel(memoryFolder("tiny", files));
    const random = createRandom(7);
    const calibration = Int32Array.from({ length: 400 }, () => random.integer(model.model.vocabulary));
    const run = async (bindingBytes?: number, memoryLimit?: number) => {
      const opened = await openDevice(found.gpu);
      if ("reason" in opened) throw new Error(opened.reason);
      const device = new CountingDevice(opened.open, KERNEL_FILES);
      if (bindingBytes) Object.assign(device, { bindingBytes });
      const memory = new DeviceMemory(device, memoryLimit);
      const { name, description, arithmetic } = device;
      const engine: Engine = Object.assign(
        memory,
        { name, description, arithmetic, threads: 1, precision: "f32" } as const,
        deviceOperations(memory),
        // the sums of products follow their windows: these are narrow in both runs
        matmulOperations(memory, { bindingBytes: most }),
        gramOperations(memory, { bindingBytes: most }),
        factorOperations(memory),
      );
      try {
        const output = memoryOutput();
        const options = { engine, output, calibration, calibrationName: "random tokens" };
        const { meanProxyError, peakActivationBytes } = await quantize(
          model,
          { ...recipe, samples: 4, window: 24 },
          options,
        );
        return { calls: device.calls, peakActivationBytes, result: { meanProxyError, written: hashesOf(output) } };
      } finally {
        await engine.close();
      }
    };
    const [whole, narrow] = [await run(), await run(most)];
    expect(whole.result.written.map(([name]) => name)).toContain("model.safetensors");
    expect(narrow.result).toEqual(whole.result);
    expect(narrow.calls).toBeGreaterThan(whole.calls);
    // with a bound that says how much memory there is, activations stay on the device
    if (recipe.method) {
      const bounded = await run(undefined, 2 ** 28);
      expect(bounded.result).toEqual(whole.result);
      expect(whole.peakActivationBytes).toBeGreaterThan(0);
      expect(bounded.peakActivationBytes).toBe(0);
    }
  });
else
  it("says what is missing where there is no adapter", () => {
    expect(found.reason).toMatch(/webgpu|WebGPU/);
    console.log(`Windows of a whole model were not tested: ${found.reason}`);
  });
