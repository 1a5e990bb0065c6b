import { createHash, randomUUID } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { env } from "node:process";
import { BitwrightError } from "../../errors.js";
import { compiledAs, type KernelDeclaration } from "../device/device.js";
import { kernelSource } from "../device/sources.js";
import type { Library } from "../koffi.js";
import { bind, type Functions, NVRTC } from "./bindings.js";
import type { CardDescription } from "./driver.js";
import { KERNEL_FILES } from "./kernels.generated.js";

/** Text of a kernel as NVRTC gets it. */
export function cudaSource(kernel: KernelDeclaration, constants: readonly number[]): string {
  const { threads, constants: others } = compiledAs(kernel, constants);
  const defines = others.map(([name, value]) => `#define ${name} ${value}`);
  return [`#define THREADS ${threads}`, ...defines, kernelSource(KERNEL_FILES, kernel)].join("\n");
}

/**
 * What to compile for on a card of a compute capability: its own machine code or, where NVRTC does not know the card, that of the next
 * lower minor version, which it runs (CUDA C++ Programming Guide, "Binary Compatibility"), or PTX ("compute_90"), from which the
 * driver makes its own. Undefined where NVRTC knows only newer ones. `supported`: 90 for 9.0.
 */
export function architectureFor(
  [major, minor]: readonly [number, number],
  supported: readonly number[],
): string | undefined {
  const own = 10 * major + minor;
  const below = Math.max(...supported.filter((one) => one <= own));
  if (below === Number.NEGATIVE_INFINITY) return undefined;
  return Math.floor(below / 10) === major ? `sm_${below}` : `compute_${below}`;
}

/** Compiles for a card. Throws "unsupported" where this NVRTC cannot. */
export function compilerFor(library: Library, { name, capability }: CardDescription): CudaCompiler {
  const nvrtc = bind(library, NVRTC);
  const count = new Int32Array(1);
  checkStatus(nvrtc, nvrtc.nvrtcGetNumSupportedArchs(count), "nvrtcGetNumSupportedArchs");
  const supported = new Int32Array(count[0] > 0 && count[0] <= MOST_ARCHITECTURES ? count[0] : 0);
  if (supported.length > 0) checkStatus(nvrtc, nvrtc.nvrtcGetSupportedArchs(supported), "nvrtcGetSupportedArchs");
  const architecture = architectureFor(capability, [...supported]);
  if (architecture) return new CudaCompiler(library, architecture);
  throw new BitwrightError(
    "unsupported",
    `${name} has compute capability ${capability.join(".")}, and this NVRTC compiles for ${[...supported].join(", ") || "nothing that it tells"}`,
    "install a CUDA toolkit that knows this card, or use --engine webgpu",
  );
}

/** There are some twenty; the count comes from a library that was found on the disk. */
const MOST_ARCHITECTURES = 256;

/** Compiles kernels with NVRTC for one architecture, and keeps what it made on disk by the hash of all that decides it. */
export class CudaCompiler {
  private readonly nvrtc: Functions<typeof NVRTC>;
  readonly version: string;

  constructor(
    library: Library,
    /** "sm_90", or "compute_90" for PTX. */
    readonly architecture: string,
    private readonly cache: string | undefined = cacheFolder(),
  ) {
    this.nvrtc = bind(library, NVRTC);
    const [major, minor] = [new Int32Array(1), new Int32Array(1)];
    this.check(this.nvrtc.nvrtcVersion(major, minor), "nvrtcVersion");
    this.version = `${major[0]}.${minor[0]}`;
  }

  /** A cubin, or PTX with its 0 at the end. Throws "unsupported" with the compiler's log when the source does not compile. */
  compile(kernel: KernelDeclaration, constants: readonly number[]): Uint8Array {
    const source = cudaSource(kernel, constants);
    const options = [`--gpu-architecture=${this.architecture}`, "--std=c++17", "--extra-device-vectorization"];
    const key = createHash("sha256")
      .update([this.version, ...options, source].join("\n"))
      .digest("hex");
    const path = this.cache && join(this.cache, `${kernel.name}-${key.slice(0, 32)}.${this.isPtx ? "ptx" : "cubin"}`);
    const kept = path && readIfThere(path, this.isPtx);
    if (kept) return kept;
    const image = this.build(kernel.name, source, options);
    if (path) keep(this.cache as string, path, image);
    return image;
  }

  private get isPtx(): boolean {
    return this.architecture.startsWith("compute_");
  }

  private build(name: string, source: string, options: string[]): Uint8Array {
    const { nvrtc } = this;
    const program = new BigUint64Array(1);
    this.check(nvrtc.nvrtcCreateProgram(program, source, `${name}.cu`, 0, null, null), "nvrtcCreateProgram");
    try {
      const status = nvrtc.nvrtcCompileProgram(program[0], options.length, options) as number;
      if (status !== 0)
        throw new BitwrightError(
          "unsupported",
          `the kernel ${name} does not compile for ${this.architecture} with NVRTC ${this.version}: ${this.log(program[0])}`,
          "install a CUDA toolkit that knows this card, or use another engine",
        );
      const bytes = new BigUint64Array(1);
      const [sizeOf, get] = this.isPtx
        ? (["nvrtcGetPTXSize", "nvrtcGetPTX"] as const)
        : (["nvrtcGetCUBINSize", "nvrtcGetCUBIN"] as const);
      this.check(nvrtc[sizeOf](program[0], bytes), sizeOf);
      const image = new Uint8Array(Number(bytes[0]));
      this.check(nvrtc[get](program[0], image), get);
      return image;
    } finally {
      nvrtc.nvrtcDestroyProgram(program);
    }
  }

  private log(program: bigint): string {
    const bytes = new BigUint64Array(1);
    this.nvrtc.nvrtcGetProgramLogSize(program, bytes);
    const text = new Uint8Array(Number(bytes[0]));
    this.nvrtc.nvrtcGetProgramLog(program, text);
    return new TextDecoder().decode(text).replace(/\0/g, "").trim();
  }

  private check(status: unknown, call: string): void {
    checkStatus(this.nvrtc, status, call);
  }
}

function checkStatus(nvrtc: Functions<typeof NVRTC>, status: unknown, call: string): void {
  if (status !== 0)
    throw new BitwrightError("unsupported", `${call} failed: ${String(nvrtc.nvrtcGetErrorString(status))}`);
}

/** BITWRIGHT_CACHE, or the user's cache folder. */
function cacheFolder(): string {
  return join(env.BITWRIGHT_CACHE ?? join(env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "bitwright"), "cuda");
}

/** A file of the cache; only cubins (ELF) and whole texts of PTX count. */
function readIfThere(path: string, isPtx: boolean): Uint8Array | undefined {
  try {
    const bytes = readFileSync(path);
    if (bytes.length <= 64) return undefined;
    const whole = isPtx ? bytes.at(-1) === 0 && bytes.includes(".version") : bytes.readUInt32BE(0) === 0x7f454c46;
    return whole ? new Uint8Array(bytes) : undefined;
  } catch {
    return undefined;
  }
}

/** Written beside and renamed, so that two processes may fill one cache. A cache that cannot be written is none. */
function keep(folder: string, path: string, image: Uint8Array): void {
  const temporary = `${path}.${randomUUID()}.tmp`;
  try {
    mkdirSync(folder, { recursive: true });
    writeFileSync(temporary, image);
    renameSync(temporary, path);
  } catch {
    try {
      rmSync(temporary, { force: true });
    } catch {
      // where a file stands in the place of a folder, not even that can be asked
    }
  }
}
