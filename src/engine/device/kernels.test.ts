import { describe, expect, it } from "vitest";
import { KERNEL_FILES as CUDA_FILES } from "../cuda/kernels.generated.js";
import { COPY_BYTES, PATCH_WORD } from "../webgpu/bytes.js";
import { KERNEL_FILES as WGSL_FILES } from "../webgpu/kernels.generated.js";
import { declaredKernels, type KernelDeclaration } from "./device.js";
import { kernelSource } from "./sources.js";

// Every kernel is declared once and written twice; here both texts are read against the declaration, without any compiler.

/** Kernels that come with a module. */
async function kernelsOf(load: () => Promise<unknown>): Promise<readonly KernelDeclaration[]> {
  const before = new Set(declaredKernels());
  await load();
  return declaredKernels().filter((kernel) => !before.has(kernel));
}
const shared = await kernelsOf(() => import("./engine.js"));
const cudaOnly = await kernelsOf(() => import("../cuda/engine.js"));
const wgslOnly = await kernelsOf(() => import("../webgpu/engine.js"));
const ofCuda = [...shared, ...cudaOnly];
const ofWgsl = [...shared, ...wgslOnly, COPY_BYTES, PATCH_WORD];

const withoutComments = (text: string): string => text.replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, "");

// ---- CUDA

const ELEMENTS = { f32: "float", i32: "int", u32: "unsigned", f16: "unsigned short", bf16: "unsigned short" } as const;
const CUDA_TYPES: Readonly<Record<string, string>> = { ...ELEMENTS, u16: "unsigned short", u8: "unsigned char" };

/** The parameters as they must stand, "const float* x". */
const cudaParameters = ({ reads, writes, numbers }: KernelDeclaration): string[] => [
  ...reads.map(({ name, dtype }) => `const ${CUDA_TYPES[dtype]}* ${name}`),
  ...writes.map(({ name, dtype }) => `${CUDA_TYPES[dtype]}* ${name}`),
  ...numbers.map(({ name, type }) => `${CUDA_TYPES[type]} ${name}`),
];

/** Parameters of each kernel that a text defines, by its name; types without the names that the text gives them. */
function cudaKernels(source: string): Record<string, string[]> {
  let text = source;
  for (const [, type, name] of source.matchAll(/typedef\s+([\w ]+?)\s+(\w+);/g))
    text = text.replace(new RegExp(`\\b${name}\\b`, "g"), type);
  const found: Record<string, string[]> = {};
  for (const [, name, list] of text.matchAll(
    /extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\s*\(([^)]*)\)/g,
  ))
    found[name] = list
      .replace(/__restrict__/g, "")
      .split(",")
      .map((one) =>
        one
          .trim()
          .replace(/\s+/g, " ")
          .replace(/ ?\* ?/, "* ")
          .replace(/\bunsigned int\b/, "unsigned"),
      );
  return found;
}

describe("CUDA", () => {
  it.each(ofCuda.map((kernel) => [kernel.name, kernel] as const))("%s has the parameters declared", (name, kernel) => {
    const source = withoutComments(kernelSource(CUDA_FILES, kernel));
    expect(cudaKernels(source)).toEqual({ [name]: cudaParameters(kernel) });
    for (const constant of kernel.constants) expect(source).toMatch(new RegExp(`\\b${constant}\\b`));
  });
});

// ---- WGSL

/** Names that stand behind "n." */
const numbersUsed = (text: string): Set<string> => new Set([...text.matchAll(/\bn\.(\w+)/g)].map(([, name]) => name));

/** Tensors whose elements a text assigns: the name before a "[..]" with an assignment behind it. */
function assigned(text: string): Set<string> {
  const names = new Set<string>();
  for (const { 1: name, index, 0: start } of text.matchAll(/\b(\w+)\[/g)) {
    let at = index + start.length;
    for (let depth = 1; depth > 0 && at < text.length; at++) depth += text[at] === "[" ? 1 : text[at] === "]" ? -1 : 0;
    if (/^\s*([-+*/%&|^]|<<|>>)?=(?!=)/.test(text.slice(at))) names.add(name);
  }
  return names;
}

/** Tensors that only the other kernel of the same declaration takes. */
const UNUSED = new Set(["invertRight source"]);

describe("WGSL", () => {
  it.each(ofWgsl.map((kernel) => [kernel.name, kernel] as const))("%s uses what is declared", (name, kernel) => {
    const source = withoutComments(kernelSource(WGSL_FILES, kernel));
    const entries = [...source.matchAll(/@compute\s+@workgroup_size\(([^)]*)\)\s*fn\s+(\w+)/g)];
    expect(entries.map(([, threads, entry]) => [entry, threads])).toEqual([[name, "THREADS"]]);
    const all = [...kernel.reads, ...kernel.writes].map((tensor) => tensor.name);
    const tensors = all.filter((tensor) => !UNUSED.has(`${name} ${tensor}`));
    const numbers = kernel.numbers.map((number) => number.name);
    const known = new Set([...numbers, ...tensors.map((tensor) => `${tensor}_at`), "groups"]);
    const used = numbersUsed(source);
    expect({ unknown: [...used].filter((one) => !known.has(one)) }).toEqual({ unknown: [] });
    expect({ unused: numbers.filter((one) => !used.has(one)) }).toEqual({ unused: [] });
    const places = tensors.filter((tensor) => !used.has(`${tensor}_at`));
    expect({ "without its place": places }).toEqual({ "without its place": [] });
    for (const word of [...tensors, ...kernel.constants]) expect(source).toMatch(new RegExp(`\\b${word}\\b`));
    const written = assigned(source);
    for (const { name: tensor } of kernel.reads) expect(written, `${tensor} is only read`).not.toContain(tensor);
    expect(all.length, "tensors that a kernel may have").toBeLessThanOrEqual(8);
  });
});

describe.each([
  ["cuda", CUDA_FILES, ofCuda],
  ["webgpu", WGSL_FILES, ofWgsl],
] as const)("%s", (_, files, kernels) => {
  it("has no section without a declaration, and none twice", () => {
    const sections = Object.entries(files).flatMap(([file, text]) =>
      [...text.matchAll(/^\/\/# (\w+)/gm)].map(([, name]) => `${file} ${name}`),
    );
    expect(sections.sort()).toEqual(kernels.map(({ file, name }) => `${file} ${name}`).sort());
  });
});

describe("the reading itself", () => {
  it("takes parameters over lines, with restrict, pointers and bounds", () => {
    expect(
      cudaKernels(`typedef unsigned short Half; extern "C" __global__ void __launch_bounds__(THREADS) one(const float *__restrict__ x,
        unsigned char* y, const Half* z,  unsigned int n) {} __device__ float two(int a)`),
    ).toEqual({ one: ["const float* x", "unsigned char* y", "const unsigned short* z", "unsigned n"] });
  });

  it("sees assignments behind nested brackets, and no comparisons", () => {
    expect([...assigned("a[b[i]] = c[1] + d[2]; e[0] += 1; f[i] == g; h[1] >>= 2; k[3] <= 4")]).toEqual([
      "a",
      "e",
      "h",
    ]);
  });
});
