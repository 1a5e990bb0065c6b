import type { DType } from "../../tensor/index.js";
import { compiledAs, type KernelDeclaration } from "../device/device.js";
import { type KernelFiles, kernelSource } from "../device/sources.js";
import type { Failures } from "./failures.js";

/** Bytes of numbers that a kernel can see: each gets a window of so many. */
export const WINDOW = 256;

/** Types below 4 bytes are words, out of which the kernel takes elements. */
const ELEMENTS: Readonly<Record<DType, string>> = {
  f32: "f32",
  i32: "i32",
  u32: "u32",
  f16: "u32",
  bf16: "u32",
  u16: "u32",
  u8: "u32",
};

/** Directives must stand before everything else, and a kernel's own text is behind the library. */
const DIRECTIVE = /^(?:enable|requires|diagnostic)\b[^;]*;$/gm;

/** What stands before a kernel's text: directives, THREADS, constants, the numbers `n` and the tensors. */
export function shaderText(files: KernelFiles, kernel: KernelDeclaration, constants: readonly number[]): string {
  const source = kernelSource(files, kernel);
  const { threads, constants: others } = compiledAs(kernel, constants);
  const directives = source.match(DIRECTIVE) ?? [];
  const tensors = [...kernel.reads, ...kernel.writes];
  const fields = [
    ...kernel.numbers.map(({ name, type }) => `${name}: ${type}`),
    ...tensors.map(({ name }) => `${name}_at: u32`),
    "groups: u32",
  ];
  return [
    ...new Set(directives),
    `const THREADS: u32 = ${threads}u;`,
    ...others.map(([name, value]) => `const ${name}: u32 = ${value}u;`),
    `struct Numbers { ${fields.join(", ")} }`,
    "@group(0) @binding(0) var<uniform> n: Numbers;",
    ...tensors.map(({ name, dtype }, place) => {
      const access = place < kernel.reads.length ? "read" : "read_write";
      return `@group(0) @binding(${place + 1}) var<storage, ${access}> ${name}: array<${ELEMENTS[dtype]}>;`;
    }),
    source.replace(DIRECTIVE, ""),
  ].join("\n");
}

export interface Pipeline {
  readonly pipeline: GPUComputePipeline;
  /** Of the one group; the same object for all kernels that read and write as many tensors. */
  readonly layout: BindingLayout;
}

export interface BindingLayout {
  readonly id: number;
  readonly bindGroup: GPUBindGroupLayout;
  readonly pipeline: GPUPipelineLayout;
}

const COMPUTE = 4; // GPUShaderStage.COMPUTE, which Node does not define

/** Compiled kernels, one for each combination of constants. */
export class Pipelines {
  private readonly compiled = new Map<KernelDeclaration, Map<string, Pipeline>>();
  private readonly layouts = new Map<string, BindingLayout>();

  constructor(
    private readonly device: GPUDevice,
    private readonly failures: Failures,
    private readonly files: KernelFiles,
  ) {}

  get(kernel: KernelDeclaration, constants: readonly number[]): Pipeline {
    let variants = this.compiled.get(kernel);
    if (!variants) {
      variants = new Map();
      this.compiled.set(kernel, variants);
    }
    const key = constants.join();
    let found = variants.get(key);
    if (!found) {
      found = this.compile(kernel, constants);
      variants.set(key, found);
    }
    return found;
  }

  private compile(kernel: KernelDeclaration, constants: readonly number[]): Pipeline {
    const code = shaderText(this.files, kernel, constants);
    const layout = this.layout(kernel.reads.length, kernel.writes.length);
    const title = `kernel ${kernel.name}${constants.length > 0 ? ` (${constants})` : ""}`;
    const pipeline = this.failures.titled(title, () =>
      this.device.createComputePipeline({
        label: kernel.name,
        layout: layout.pipeline,
        compute: { module: this.device.createShaderModule({ label: kernel.name, code }), entryPoint: kernel.name },
      }),
    );
    return { pipeline, layout };
  }

  private layout(reads: number, writes: number): BindingLayout {
    const key = `${reads},${writes}`;
    const known = this.layouts.get(key);
    if (known) return known;
    const entry = (binding: number, buffer: GPUBufferBindingLayout) => ({ binding, visibility: COMPUTE, buffer });
    const bindGroup = this.device.createBindGroupLayout({
      entries: [
        entry(0, { type: "uniform", hasDynamicOffset: true, minBindingSize: WINDOW }),
        ...Array.from({ length: reads + writes }, (_, place) =>
          entry(place + 1, { type: place < reads ? "read-only-storage" : "storage" }),
        ),
      ],
    });
    const pipeline = this.device.createPipelineLayout({ bindGroupLayouts: [bindGroup] });
    const made = { id: this.layouts.size, bindGroup, pipeline };
    this.layouts.set(key, made);
    return made;
  }
}
