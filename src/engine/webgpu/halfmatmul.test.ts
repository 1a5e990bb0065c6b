import { describe, expect, it } from "vitest";
import { declaredKernels } from "../device/device.js";
import type { OpenDevice } from "./adapter.js";
import { whyNoHalfProducts } from "./halfmatmul.js";
import { KERNEL_FILES } from "./kernels.generated.js";
import "./matmul.js";
import { shaderText } from "./pipelines.js";

const MATRIX = { componentType: "f16", resultComponentType: "f32", M: 16, N: 16, K: 16 };

function deviceWith(changes: { f16?: boolean; subgroup?: number; config?: object; bytes?: number }): OpenDevice {
  const { f16 = true, subgroup = 32, config = MATRIX, bytes = 49152 } = changes;
  return {
    features: { f16, subgroups: true, subgroupMatrix: true },
    adapter: { info: { subgroupMinSize: subgroup, subgroupMaxSize: subgroup, subgroupMatrixConfigs: [config] } },
    device: { limits: { maxComputeWorkgroupStorageSize: bytes } },
  } as unknown as OpenDevice;
}

describe("products in f16 on WebGPU", () => {
  it("are taken only where the adapter has all that they need", () => {
    expect(whyNoHalfProducts(deviceWith({}))).toBeUndefined();
    expect(whyNoHalfProducts(deviceWith({ f16: false }))).toMatch(/shader-f16/);
    expect(whyNoHalfProducts(deviceWith({ subgroup: 64 }))).toMatch(/64 threads instead of 32/);
    expect(whyNoHalfProducts(deviceWith({ config: { ...MATRIX, K: 8 } }))).toMatch(/16 x 16 x 16/);
    expect(whyNoHalfProducts(deviceWith({ config: { ...MATRIX, resultComponentType: "f16" } }))).toMatch(/sums in f32/);
    expect(whyNoHalfProducts(deviceWith({ bytes: 16384 }))).toMatch(/memory/);
  });

  // Dawn's null backend has every extension: it checks what is written and runs nothing
  it("are well-formed WGSL", async () => {
    const name = "webgpu";
    const dawn: { create(options: string[]): GPU } | undefined = await import(name).catch(() => undefined);
    if (!dawn) {
      console.log("The kernels of products in f16 were not checked: the package webgpu is not there");
      return;
    }
    const gpu = dawn.create(["backend=null", "enable-dawn-features=allow_unsafe_apis"]);
    const adapter = (await gpu.requestAdapter()) as GPUAdapter;
    const requiredFeatures = ["shader-f16", "chromium-experimental-subgroup-matrix"] as GPUFeatureName[];
    const device = await adapter.requestDevice({ requiredFeatures });
    const kernels = declaredKernels().filter(({ name }) => ["matmulHalf", "matmulPacked"].includes(name));
    expect(kernels).toHaveLength(2);
    const messages = async (code: string) => {
      device.pushErrorScope("validation");
      const info = await device.createShaderModule({ code }).getCompilationInfo();
      await device.popErrorScope();
      return info.messages.map(({ message }) => message);
    };
    for (const kernel of kernels)
      for (const constants of kernel.samples)
        expect(await messages(shaderText(KERNEL_FILES, kernel, constants)), kernel.name).toEqual([]);
    expect(await messages("fn broken() { subgroupMatrixStore(); }")).not.toEqual([]);
    expect(gpu && adapter).toBeTruthy(); // neither may be collected before
    device.destroy();
  });
});
