import { afterAll, describe, expect, it } from "vitest";
import { testGpu } from "../../../test/webgpu-adapter.js";
import { compiledAs, declaredKernels, type KernelDeclaration } from "../device/device.js";
import "../device/engine.js";
import { kernelSections } from "../device/sources.js";
import { closeDevice, openDevice } from "./adapter.js";
import { COPY_BYTES, PATCH_WORD } from "./bytes.js";
import "./engine.js";
import { Failures } from "./failures.js";
import { KERNEL_FILES } from "./kernels.generated.js";
import { Pipelines, shaderText, WINDOW } from "./pipelines.js";

const kernels = [...declaredKernels(), COPY_BYTES, PATCH_WORD];
const ownFiles = new Set(Object.keys(KERNEL_FILES));

describe("WGSL kernels", () => {
  for (const kernel of kernels.filter(({ file }) => ownFiles.has(file)))
    it(`${kernel.name} fits what every device offers`, () => {
      const tensors = kernel.reads.length + kernel.writes.length;
      expect(tensors).toBeLessThanOrEqual(8); // maxStorageBuffersPerShaderStage
      expect(4 * (kernel.numbers.length + tensors + 1)).toBeLessThanOrEqual(WINDOW);
      expect(kernel.threads).toBeLessThanOrEqual(256); // maxComputeInvocationsPerWorkgroup
    });

  it("are all declared", () => {
    const sections = Object.values(KERNEL_FILES).flatMap((text) => [...kernelSections(text).sections.keys()]);
    const names = new Set(kernels.map(({ name }) => name));
    expect(sections.filter((name) => !names.has(name))).toEqual([]);
  });

  it("have their directives before everything else", () => {
    const files = { lib: "// lib", some: "enable f16;\n//# kernel\ndiagnostic(off, x.y);\nfn kernel() {}" };
    const text = shaderText(files, { ...PATCH_WORD, name: "kernel", file: "some", constants: ["SIDE"] }, [7]);
    expect(text.split("\n").slice(0, 4)).toEqual([
      "enable f16;",
      "diagnostic(off, x.y);",
      "const THREADS: u32 = 64u;",
      "const SIDE: u32 = 7u;",
    ]);
    expect(text.match(/enable|diagnostic/g)).toHaveLength(2);
  });
});

const found = await testGpu();
const opened = "gpu" in found ? await openDevice(found.gpu) : found;
if ("open" in opened) {
  const { open } = opened;
  describe(`compile on ${open.title}`, () => {
    const failures = new Failures(open.device);
    const pipelines = new Pipelines(open.device, failures, KERNEL_FILES);
    afterAll(() => {
      failures.close();
      closeDevice(open);
    });
    // halfmatmul.test.ts looks at those whose extension the adapter has not
    const compiles = ({ file, name }: KernelDeclaration) =>
      open.features.subgroupMatrix ||
      !kernelSections(KERNEL_FILES[file]).sections.get(name)?.includes("chromium_experimental_subgroup_matrix");
    for (const kernel of kernels.filter(compiles))
      it(kernel.name, async () => {
        for (const constants of kernel.samples)
          if (compiledAs(kernel, constants).threads <= 256) pipelines.get(kernel, constants); // more are for CUDA
        await failures.settle();
      });
  });
} else
  it("says what is missing where there is no adapter", () => {
    expect(opened.reason).toMatch(/webgpu|WebGPU/);
    console.log(`WGSL kernels were not compiled: ${opened.reason}`);
  });
