import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { CudaCompiler } from "../../../src/engine/cuda/compile.js";
import { KERNEL_FILES } from "../../../src/engine/cuda/kernels.generated.js";
import { openToolkitLibrary } from "../../../src/engine/cuda/libraries.js";
import { declaredKernels, declareKernel, type KernelDeclaration } from "../../../src/engine/device/device.js";
import { loadKoffi } from "../../../src/engine/koffi.js";

// Versions of kernels that are not in the product: ../cuda/*.cu, whose files are called lab/<name> here.

const FOLDER = fileURLToPath(new URL("../bench/kernels/cuda/", import.meta.url)); // from build/
const PREFIX = "lab/";

const product = (name: string) =>
  declareKernel(`${PREFIX}product`, name, {
    reads: { a: "f32", b: "f32" },
    writes: { y: "f32" },
    numbers: { m: "u32", n: "u32", k: "u32" },
  });
const transpose = (name: string) =>
  declareKernel(`${PREFIX}transpose`, name, {
    reads: { a: "f32" },
    writes: { y: "f32" },
    numbers: { rows: "u32", columns: "u32" },
  });

export const PRODUCT_PLAIN = product("productPlain");
export const PRODUCT_TILES = product("productTiles");
export const TRANSPOSE_PLAIN = transpose("transposePlain");
export const TRANSPOSE_BANKS = transpose("transposeBanks");
export const ADD_FOURS = declareKernel(`${PREFIX}elementwise`, "addFours", {
  reads: { a: "f32", b: "f32" },
  writes: { y: "f32" },
  numbers: { size: "u32" },
});
export const SILU_MULTIPLY_FOURS = declareKernel(`${PREFIX}elementwise`, "siluMultiplyFours", {
  reads: { gate: "f32", up: "f32" },
  writes: { y: "f32" },
  numbers: { size: "u32" },
});
export const RMS_NORM_THREADS = declareKernel(`${PREFIX}norms`, "rmsNormThreads", {
  reads: { x: "f32", weight: "f32" },
  writes: { y: "f32" },
  numbers: { rows: "u32", width: "u32", epsilon: "f32" },
});
export const SEGMENT_ATOMICS = declareKernel(`${PREFIX}segment`, "segmentAtomics", {
  reads: { vectors: "f32", weights: "f32", indices: "i32" },
  writes: { sums: "f32" },
  numbers: { count: "u32", length: "u32" },
});
export const SEGMENT_NARROW = declareKernel(`${PREFIX}segment`, "segmentNarrow", {
  reads: { sums: "f32" },
  writes: { y: "f32", totals: "f32" },
  numbers: { segments: "u32", length: "u32" },
});
export const HADAMARD_BIT = declareKernel(`${PREFIX}hadamard`, "hadamardBit", {
  writes: { y: "f32" },
  numbers: { pairs: "u32", bit: "u32", factor: "f32" },
});
export const ATTEND_WARPS = declareKernel(`${PREFIX}attention`, "attendWarps", {
  reads: { q: "f32", k: "f32", v: "f32" },
  writes: { y: "f32" },
  numbers: { tokens: "u32", heads: "u32", keyHeads: "u32", size: "u32", scale: "f32" },
  constants: ["SIZE"],
  samples: [[32], [64], [128]],
});

/** Puts the sources where the compiler of the CUDA engine looks for them. */
export function addVersions(): void {
  const sources = readdirSync(FOLDER)
    .filter((name) => name.endsWith(".cu"))
    .map((name) => [PREFIX + name.slice(0, -3), readFileSync(FOLDER + name, "utf8")]);
  Object.assign(KERNEL_FILES, Object.fromEntries(sources));
}

/** A kernel of the engines or of the laboratory, by its name. */
export function kernelNamed(name: string): KernelDeclaration {
  const found = declaredKernels().find((kernel) => kernel.name === name);
  if (!found) throw new Error(`no kernel ${name}`);
  return found;
}

/** Compiles all versions as a card would have it, without one; gives a line each, or why it cannot. */
export async function compileVersions(architectures: readonly string[]): Promise<string[]> {
  const loaded = await loadKoffi();
  if ("reason" in loaded) throw new Error(loaded.reason);
  const found = openToolkitLibrary(loaded.koffi, "nvrtc");
  if ("reason" in found) throw new Error(found.reason);
  const kernels = declaredKernels().filter(({ file }) => file.startsWith(PREFIX));
  return architectures.flatMap((architecture) => {
    const compiler = new CudaCompiler(found.library, architecture, undefined);
    return kernels.flatMap((kernel) =>
      kernel.samples.map((constants) => {
        const { length } = compiler.compile(kernel, constants);
        return `${architecture} ${[kernel.name, ...constants].join(" ")}: ${length} bytes`;
      }),
    );
  });
}
