import { expect, it } from "vitest";
import { createWebgpuEngine } from "../../src/engine/webgpu/engine.js";
import { testGpu } from "../webgpu-adapter.js";
import { conformance, sameBits } from "./suite.js";

const found = await testGpu();

if ("gpu" in found) {
  const make = async () => {
    const made = await createWebgpuEngine(found);
    if ("reason" in made) throw new Error(made.reason);
    return made.engine;
  };
  const engine = await make();
  console.log(`WebGPU: ${engine.description}`);
  await engine.close();
  conformance("webgpu", make);
  sameBits("webgpu: two runs give the same bits", make, make);
} else
  it("says what is missing where there is no adapter", () => {
    expect(found.reason).toMatch(/webgpu|WebGPU/);
    console.log(`WebGPU was not tested: ${found.reason}`);
  });
