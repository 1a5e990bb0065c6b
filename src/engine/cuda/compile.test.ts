import { describe, expect, it } from "vitest";
import { declaredKernels } from "../device/device.js";
import "./engine.js";
import { loadKoffi } from "../koffi.js";
import { CudaCompiler } from "./compile.js";
import { openToolkitLibrary } from "./libraries.js";

const loaded = await loadKoffi();
const found = "koffi" in loaded ? openToolkitLibrary(loaded.koffi, "nvrtc") : loaded;

if ("library" in found) {
  describe("NVRTC compiles for sm_90", () => {
    const compiler = new CudaCompiler(found.library, "sm_90", undefined);
    for (const kernel of declaredKernels())
      it(kernel.name, () => {
        for (const constants of kernel.samples)
          expect([...compiler.compile(kernel, constants).subarray(0, 4)]).toEqual([0x7f, 0x45, 0x4c, 0x46]);
      });
  });
} else
  it("says what is missing where there is no toolkit", () => {
    expect(found.reason).toMatch(/libnvrtc|koffi/);
    console.log(`CUDA kernels were not compiled: ${found.reason}`);
  });
