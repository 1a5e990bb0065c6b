import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { env } from "node:process";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { buildLibraries } from "../../../test/fake-cuda/build.js";
import { missingFakes } from "../../../test/fake-cuda/card.js";
import { BitwrightError } from "../../errors.js";
import { declaredKernels, type KernelDeclaration } from "../device/device.js";
import "../device/engine.js";
import { type Library, loadKoffi } from "../koffi.js";
import { architectureFor, CudaCompiler, compilerFor, cudaSource } from "./compile.js";
import { KERNEL_FILES } from "./kernels.generated.js";
import { openToolkitLibrary } from "./libraries.js";

// Compiled kernels are kept on disk: by whatever decides them, and a folder that is damaged or closed does no harm.

const kernelOf = (name: string): KernelDeclaration => {
  const kernel = declaredKernels().find((one) => one.name === name);
  if (!kernel) throw new Error(`no kernel ${name}`);
  return kernel;
};
const SCALE = kernelOf("scale");
const ROWS = kernelOf("rmsNorm");
/** Not in the list of all kernels: only for its text, which does not compile. */
const BROKEN: KernelDeclaration = { ...SCALE, constants: ["SIZE\n#error on purpose\n#define REST"], samples: [[1]] };

it("a kernel's text has its threads and constants before the library and its own section", () => {
  const source = cudaSource(ROWS, [32]);
  expect(source.startsWith("#define THREADS 256\n#define LANES 32\n")).toBe(true);
  expect(source).toContain(KERNEL_FILES.lib);
  expect(source.match(/__global__/g)).toHaveLength(1);
  expect(source).toMatch(/__global__ void rmsNorm\(/);
});

it.each([
  [[9, 0], [80, 86, 90], "sm_90"],
  [[8, 9], [80, 86, 90], "sm_86"], // runs the code of a lower minor version
  [[12, 0], [80, 86, 90], "compute_90"], // of a lower major version only PTX
  [[10, 3], [75, 80, 90, 100, 120], "sm_100"],
  [[8, 0], [90, 100], undefined],
  [[9, 0], [], undefined],
] as const)("for compute capability %j NVRTC that knows %j compiles %s", ([major, minor], supported, expected) => {
  expect(architectureFor([major, minor], supported)).toBe(expected);
});

function tests(library: Library, folder: string): void {
  const compiled = library.func("int fakeCompiled()");
  const programs = library.func("int fakePrograms()");
  const cache = join(folder, "cache");
  beforeEach(() => rmSync(cache, { recursive: true, force: true }));

  const compiler = (architecture = "sm_90", place: string | undefined = cache) =>
    new CudaCompiler(library, architecture, place);
  /** Programs compiled by a body. */
  const compiles = (body: () => unknown): number => {
    const before = compiled() as number;
    body();
    expect(programs()).toBe(0);
    return (compiled() as number) - before;
  };
  /** The image of SCALE, for which so many programs are compiled. */
  const made = (count: number): Uint8Array => {
    const images: Uint8Array[] = [];
    expect(compiles(() => images.push(new Uint8Array(compiler().compile(SCALE, []))))).toBe(count);
    return images[0];
  };
  const only = () => readdirSync(cache).map((name) => join(cache, name));

  it("keeps what it made for the next compiler, whole", () => {
    const first = made(1);
    expect([...first.subarray(0, 4)]).toEqual([0x7f, 0x45, 0x4c, 0x46]);
    expect(only()).toEqual([expect.stringMatching(/scale-[0-9a-f]{32}\.cubin$/)]);
    const second = made(0);
    expect(second).toEqual(first);
  });

  it("compiles again for another kernel, constant or architecture", () => {
    compiler().compile(ROWS, [32]);
    expect(compiles(() => compiler().compile(ROWS, [256]))).toBe(1);
    expect(compiles(() => compiler("sm_80").compile(ROWS, [32]))).toBe(1);
    expect(compiles(() => compiler().compile(kernelOf("layerNorm"), [32]))).toBe(1);
    expect(compiles(() => compiler().compile(ROWS, [32]))).toBe(0);
    expect(only()).toHaveLength(4);
  });

  it.each([
    ["empty", (bytes: Buffer) => bytes.subarray(0, 0)],
    ["cut off", (bytes: Buffer) => bytes.subarray(0, 40)],
    ["something else", (bytes: Buffer) => Buffer.alloc(bytes.length, "x")],
  ])("a file that is %s is made anew", (_, damage) => {
    const whole = compiler().compile(SCALE, []);
    const [path] = only();
    writeFileSync(path, damage(readFileSync(path)));
    const again = made(1);
    expect(again).toEqual(whole);
    expect(new Uint8Array(readFileSync(path))).toEqual(whole);
    expect(only()).toEqual([path]);
  });

  it("a folder that cannot be written, and a folder in the place of a file, cost a compilation each time and no more", () => {
    const file = join(folder, "file");
    writeFileSync(file, "");
    const closed = join(file, "cache");
    for (const _ of [1, 2]) expect(compiles(() => compiler("sm_90", closed).compile(SCALE, []))).toBe(1);
    expect(existsSync(closed)).toBe(false);
    compiler().compile(SCALE, []);
    const [path] = only();
    rmSync(path);
    mkdirSync(path);
    for (const _ of [1, 2]) expect(compiles(() => compiler().compile(SCALE, []))).toBe(1);
    expect(only()).toEqual([path]); // nothing half-written beside it
  });

  it("keeps PTX, too, where there is no machine code for the card", () => {
    const text = compiler("compute_90").compile(SCALE, []);
    expect(Buffer.from(text).toString()).toMatch(/^\/\/\n\.version .*--gpu-architecture=compute_90\n.*\0$/s);
    expect(only()).toEqual([expect.stringMatching(/scale-[0-9a-f]{32}\.ptx$/)]);
    expect(compiles(() => expect(compiler("compute_90").compile(SCALE, [])).toEqual(text))).toBe(0);
    writeFileSync(only()[0], readFileSync(only()[0]).subarray(0, -1));
    expect(compiles(() => expect(compiler("compute_90").compile(SCALE, [])).toEqual(text))).toBe(1);
    expect(compiles(() => compiler("sm_90").compile(SCALE, []))).toBe(1);
  });

  it.each([
    [-1, "nothing that it tells"],
    [0, "nothing that it tells"],
    [257, "nothing that it tells"], // more than there can be: the list is not asked for
    [3, "80, 86, 90"],
  ])("NVRTC that counts %d architectures compiles for %s", (count, known) => {
    const tells: Library = {
      func: (prototype) =>
        prototype.includes("nvrtcGetNumSupportedArchs")
          ? (out) => {
              (out as Int32Array)[0] = count;
              return 0;
            }
          : library.func(prototype),
    };
    const card = { ordinal: 0, name: "Old Card", capability: [7, 5], multiprocessors: 1, bytes: 1 } as const;
    expect(() => compilerFor(tells, card)).toThrow(
      `Old Card has compute capability 7.5, and this NVRTC compiles for ${known}`,
    );
    if (count === 3) expect(compilerFor(tells, { ...card, capability: [9, 0] }).architecture).toBe("sm_90");
  });

  it("is in the folder that BITWRIGHT_CACHE names", () => {
    const saved = env.BITWRIGHT_CACHE;
    env.BITWRIGHT_CACHE = join(folder, "named");
    try {
      new CudaCompiler(library, "sm_90").compile(SCALE, []);
      expect(readdirSync(join(folder, "named", "cuda"))).toHaveLength(1);
    } finally {
      if (saved === undefined) delete env.BITWRIGHT_CACHE;
      else env.BITWRIGHT_CACHE = saved;
    }
  });

  it("a kernel that does not compile gives the compiler's log, and is not kept", () => {
    for (const _ of [1, 2])
      expect(
        compiles(() => expect(() => compiler().compile(BROKEN, [1])).toThrow(/scale.cu\(1\): error: #error on/)),
      ).toBe(1);
    expect(existsSync(cache)).toBe(false);
  });
}

const built = await buildLibraries({ nvrtc: "libnvrtc.so.12" });
if ("folder" in built) {
  describe("the cache", () => {
    afterAll(built.remove);
    tests(built.koffi.load(join(built.folder, "libnvrtc.so.12")), built.folder);
  });
} else
  it("says why there is no compiler to pretend", () => {
    expect(built.reason).toMatch(missingFakes);
    console.log(`The cache of CUDA kernels was not tested: ${built.reason}`);
  });

const loaded = await loadKoffi();
const found = "koffi" in loaded ? openToolkitLibrary(loaded.koffi, "nvrtc") : loaded;
if ("library" in found) {
  it("NVRTC makes PTX", () => {
    const text = Buffer.from(new CudaCompiler(found.library, "compute_80", undefined).compile(SCALE, [])).toString();
    expect(text).toMatch(/\.version \d+\.\d+[\s\S]*\.target sm_80[\s\S]*\.entry scale[\s\S]*\0$/);
  });

  it("NVRTC's log names the line of a kernel that does not compile", () => {
    const compiler = new CudaCompiler(found.library, "sm_90", undefined);
    try {
      compiler.compile(BROKEN, [1]);
      expect.fail("it compiled");
    } catch (error) {
      expect(error).toBeInstanceOf(BitwrightError);
      const { kind, message, remedy } = error as BitwrightError;
      expect(kind).toBe("unsupported");
      expect(message).toMatch(
        /^the kernel scale does not compile for sm_90 with NVRTC \d+\.\d+: scale\.cu\(3\).*on purpose/s,
      );
      expect(remedy).toMatch(/CUDA toolkit/);
    }
  });
} else
  it("says that NVRTC is missing", () => {
    expect(found.reason).toMatch(/libnvrtc|koffi/);
    console.log(`NVRTC's log was not looked at: ${found.reason}`);
  });
