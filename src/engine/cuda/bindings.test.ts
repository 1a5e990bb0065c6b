import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { buildLibraries } from "../../../test/fake-cuda/build.js";
import { bind, CUBLAS, DRIVER, type Functions, NVRTC } from "./bindings.js";

// Every foreign function is called through its prototype, with arguments that are all different, on a library whose C source has
// the signatures of NVIDIA's manuals: what arrives there must be what was given here, and what it fills must come back.

interface Call {
  args: unknown[];
  /** What the library must have noted: the symbol and its arguments. */
  arrives: string;
  /** Outputs among the arguments, and what must be in them afterwards. */
  fills?: [ArrayLike<unknown>, unknown[]][];
  /** Instead of a status. */
  returns?: string;
}
type Calls<Table> = Readonly<Record<keyof Table, () => Call>>;

/** Addresses and handles that need more than 32 bits, as `handle` of the library has them, too. */
const [P, Q, R, S] = [0x1_0000_0011, 0x2_8000_0022, 0x7fff_ffff_0033, 0x3_f000_0044];
const HANDLE = 0x12345_00000000;
const handle = (which: number) => [BigInt(HANDLE + which)];

const driver: Calls<typeof DRIVER> = {
  cuInit: () => ({ args: [0xf0000001], arrives: "cuInit 4026531841" }),
  cuDriverGetVersion: () => {
    const out = new Int32Array(1);
    return { args: [out], arrives: "cuDriverGetVersion", fills: [[out, [12034]]] };
  },
  cuGetErrorName: () => {
    const out = [null];
    return { args: [-7, out], arrives: "cuGetErrorName -7", fills: [[out, ["ERROR_NAME"]]] };
  },
  cuGetErrorString: () => {
    const out = [null];
    return { args: [719, out], arrives: "cuGetErrorString 719", fills: [[out, ["error text"]]] };
  },
  cuDeviceGetCount: () => {
    const out = new Int32Array(1);
    return { args: [out], arrives: "cuDeviceGetCount", fills: [[out, [-3]]] };
  },
  cuDeviceGet: () => {
    const out = new Int32Array(1);
    return { args: [out, -2], arrives: "cuDeviceGet -2", fills: [[out, [41]]] };
  },
  cuDeviceGetName: () => {
    const out = new Uint8Array(8);
    const name = [..."Card"].map((letter) => letter.charCodeAt(0));
    return { args: [out, 80_008, -3], arrives: "cuDeviceGetName 80008 -3", fills: [[out, [...name, 0, 0, 0, 0]]] };
  },
  cuDeviceGetAttribute: () => {
    const out = new Int32Array(1);
    return { args: [out, 75_075, -4], arrives: "cuDeviceGetAttribute 75075 -4", fills: [[out, [-5]]] };
  },
  cuDeviceTotalMem: () => {
    const out = new BigUint64Array(1);
    return { args: [out, -6], arrives: "cuDeviceTotalMem_v2 -6", fills: [[out, [0x123456789an]]] };
  },
  cuDevicePrimaryCtxRetain: () => {
    const out = new BigUint64Array(1);
    return { args: [out, -7], arrives: "cuDevicePrimaryCtxRetain -7", fills: [[out, handle(1)]] };
  },
  cuDevicePrimaryCtxRelease: () => ({ args: [-8], arrives: "cuDevicePrimaryCtxRelease_v2 -8" }),
  cuCtxSetCurrent: () => ({ args: [P], arrives: `cuCtxSetCurrent ${P}` }),
  cuMemGetInfo: () => {
    const [free, total] = [new BigUint64Array(1), new BigUint64Array(1)];
    const fills: Call["fills"] = [
      [free, [0x200000001n]],
      [total, [0x300000002n]],
    ];
    return { args: [free, total], arrives: "cuMemGetInfo_v2", fills };
  },
  cuMemAlloc: () => {
    const out = new BigUint64Array(1);
    return { args: [out, Q], arrives: `cuMemAlloc_v2 ${Q}`, fills: [[out, [0x7f0000000123n]]] };
  },
  cuMemFree: () => ({ args: [R], arrives: `cuMemFree_v2 ${R}` }),
  cuMemHostAlloc: () => {
    const out = new BigUint64Array(1);
    return { args: [out, P, 0xf0000003], arrives: `cuMemHostAlloc ${P} 4026531843`, fills: [[out, handle(2)]] };
  },
  cuMemFreeHost: () => ({ args: [Q], arrives: `cuMemFreeHost ${Q}` }),
  cuMemcpyHtoDAsync: () => ({ args: [P, Q, R, S], arrives: `cuMemcpyHtoDAsync_v2 ${P} ${Q} ${R} ${S}` }),
  cuMemcpyDtoHAsync: () => ({ args: [Q, R, S, P], arrives: `cuMemcpyDtoHAsync_v2 ${Q} ${R} ${S} ${P}` }),
  cuMemcpyDtoDAsync: () => ({ args: [R, S, P, Q], arrives: `cuMemcpyDtoDAsync_v2 ${R} ${S} ${P} ${Q}` }),
  cuMemsetD8Async: () => ({ args: [P, 251, Q, R], arrives: `cuMemsetD8Async ${P} 251 ${Q} ${R}` }),
  cuStreamCreate: () => {
    const out = new BigUint64Array(1);
    return { args: [out, 0xf0000001], arrives: "cuStreamCreate 4026531841", fills: [[out, handle(3)]] };
  },
  cuStreamSynchronize: () => ({ args: [P], arrives: `cuStreamSynchronize ${P}` }),
  cuStreamWaitEvent: () => ({ args: [P, Q, 0xf0000004], arrives: `cuStreamWaitEvent ${P} ${Q} 4026531844` }),
  cuStreamDestroy: () => ({ args: [Q], arrives: `cuStreamDestroy_v2 ${Q}` }),
  cuEventCreate: () => {
    const out = new BigUint64Array(1);
    return { args: [out, 0xf0000002], arrives: "cuEventCreate 4026531842", fills: [[out, handle(4)]] };
  },
  cuEventRecord: () => ({ args: [P, Q], arrives: `cuEventRecord ${P} ${Q}` }),
  cuEventSynchronize: () => ({ args: [R], arrives: `cuEventSynchronize ${R}` }),
  cuEventDestroy: () => ({ args: [S], arrives: `cuEventDestroy_v2 ${S}` }),
  cuEventElapsedTime: () => {
    const out = new Float32Array(1);
    return { args: [out, P, Q], arrives: `cuEventElapsedTime ${P} ${Q}`, fills: [[out, [2.5]]] };
  },
  cuModuleLoadData: () => {
    const out = new BigUint64Array(1);
    const image = Uint8Array.of(0x7f, 0xe1, 0x1f);
    return { args: [out, image], arrives: "cuModuleLoadData 7fe11f", fills: [[out, handle(5)]] };
  },
  cuModuleUnload: () => ({ args: [R], arrives: `cuModuleUnload ${R}` }),
  cuModuleGetFunction: () => {
    const out = new BigUint64Array(1);
    return { args: [out, S, "kernel"], arrives: `cuModuleGetFunction ${S} kernel`, fills: [[out, handle(6)]] };
  },
  cuLaunchKernel: () => {
    const grid = [1, 2, 3, 4, 5, 6, 7].map((which) => 0xf0000000 + which);
    return { args: [P, ...grid, Q, R, BigInt(S)], arrives: `cuLaunchKernel ${[P, ...grid, Q, R, S].join(" ")}` };
  },
};

const nvrtc: Calls<typeof NVRTC> = {
  nvrtcVersion: () => {
    const [major, minor] = [new Int32Array(1), new Int32Array(1)];
    const fills: Call["fills"] = [
      [major, [13]],
      [minor, [2]],
    ];
    return { args: [major, minor], arrives: "nvrtcVersion", fills };
  },
  nvrtcGetErrorString: () => ({ args: [-6], arrives: "nvrtcGetErrorString -6", returns: "an NVRTC error" }),
  nvrtcCreateProgram: () => {
    const out = new BigUint64Array(1);
    return {
      args: [out, "source", "name", 70_002, ["h1", "h2"], ["n1", "n2"]], // the library reads two
      arrives: "nvrtcCreateProgram source name 70002 h1 h2 n2",
      fills: [[out, handle(7)]],
    };
  },
  nvrtcCompileProgram: () => ({
    args: [BigInt(P), 70_003, ["--first", "--second"]],
    arrives: `nvrtcCompileProgram ${P} 70003 --first --second`,
  }),
  nvrtcGetProgramLogSize: () => {
    const out = new BigUint64Array(1);
    return { args: [Q, out], arrives: `nvrtcGetProgramLogSize ${Q}`, fills: [[out, [0x500000005n]]] };
  },
  nvrtcGetProgramLog: () => {
    const out = new Uint8Array(3 + 1);
    return { args: [R, out], arrives: `nvrtcGetProgramLog ${R}`, fills: [[out, [108, 111, 103, 0]]] };
  },
  nvrtcGetCUBINSize: () => {
    const out = new BigUint64Array(1);
    return { args: [S, out], arrives: `nvrtcGetCUBINSize ${S}`, fills: [[out, [0x600000006n]]] };
  },
  nvrtcGetCUBIN: () => {
    const out = new Uint8Array(4);
    return { args: [P, out], arrives: `nvrtcGetCUBIN ${P}`, fills: [[out, [0x7f, 0x45, 0x4c, 0x46]]] };
  },
  nvrtcGetPTXSize: () => {
    const out = new BigUint64Array(1);
    return { args: [Q, out], arrives: `nvrtcGetPTXSize ${Q}`, fills: [[out, [0x700000007n]]] };
  },
  nvrtcGetPTX: () => {
    const out = new Uint8Array(4);
    return { args: [R, out], arrives: `nvrtcGetPTX ${R}`, fills: [[out, [112, 116, 120, 0]]] };
  },
  nvrtcDestroyProgram: () => {
    const program = BigUint64Array.of(BigInt(Q));
    return { args: [program], arrives: `nvrtcDestroyProgram ${Q}` };
  },
  nvrtcGetNumSupportedArchs: () => {
    const out = new Int32Array(1);
    return { args: [out], arrives: "nvrtcGetNumSupportedArchs", fills: [[out, [2]]] };
  },
  nvrtcGetSupportedArchs: () => {
    const out = new Int32Array(2);
    return { args: [out], arrives: "nvrtcGetSupportedArchs", fills: [[out, [80, 90]]] };
  },
};

const [alpha, beta] = [Float32Array.of(1.5), Float32Array.of(-0.25)];
const [wideAlpha, wideBeta] = [Float64Array.of(1.0625), Float64Array.of(-2.5)];

/** Whole numbers that need 31 bits. */
const ints = (...which: number[]) => which.map((one) => 0x70000000 + one);
/** A function of cuBLAS gets these; of a factor, the number that it points to. */
const given =
  (symbol: string, ...args: (number | Float32Array | Float64Array)[]) =>
  (): Call => ({
    args,
    arrives: [symbol, ...args.map((one) => (typeof one === "number" ? one : one[0]))].join(" "),
  });

const cublas: Calls<typeof CUBLAS> = {
  cublasCreate: () => {
    const out = new BigUint64Array(1);
    return { args: [out], arrives: "cublasCreate_v2", fills: [[out, handle(8)]] };
  },
  cublasDestroy: given("cublasDestroy_v2", P),
  cublasGetVersion: () => {
    const out = new Int32Array(1);
    return { args: [Q, out], arrives: `cublasGetVersion_v2 ${Q}`, fills: [[out, [120402]]] };
  },
  cublasGetStatusString: () => ({ args: [-9], arrives: "cublasGetStatusString -9", returns: "a cuBLAS status" }),
  cublasSetStream: given("cublasSetStream_v2", P, Q),
  cublasSetWorkspace: given("cublasSetWorkspace_v2", Q, R, S),
  cublasGemmEx: given(
    "cublasGemmEx",
    ...[P, ...ints(1, 2, 3, 4, 5), alpha, Q, ...ints(6, 7), R, ...ints(8, 9), beta, S, ...ints(10, 11, 12), -1],
  ),
  cublasGemmStridedBatchedEx: given(
    "cublasGemmStridedBatchedEx",
    ...[P, ...ints(1, 2, 3, 4, 5), alpha, Q, ...ints(6, 7), -R, R, ...ints(8, 9), S, beta, S, ...ints(10, 11)],
    ...[P, ...ints(12, 13), -1],
  ),
  cublasDsyrk: given("cublasDsyrk_v2", P, ...ints(1, 2, 3, 4), wideAlpha, Q, ...ints(5), wideBeta, R, ...ints(6)),
  cublasDtrsm: given("cublasDtrsm_v2", P, ...ints(1, 2, 3, 4, 5, 6), wideAlpha, Q, ...ints(7), R, ...ints(8)),
};

const LIBRARY = "librecorder.so";
const built = await buildLibraries({ recorder: LIBRARY });

if ("folder" in built) {
  const library = built.koffi.load(join(built.folder, LIBRARY));
  const recorded = library.func("const char *recorded()");
  const words = ["a", "b", "c", "d", "e", "f", "g", "h"].map((name) => `uint64_t ${name}`);
  const clobber = library.func(`double clobber(${words.join(", ")}, double x, double y, double z)`);
  const stale = [...[1, 2, 3, 4, 5, 6, 7, 8].map((which) => 0x5555_5555_5550 + which), 0.1, 0.2, 0.3];
  afterAll(built.remove);

  function calls<Table extends Readonly<Record<string, string>>>(table: Table, expected: Calls<Table>): void {
    const functions: Functions<Table> = bind(library, table);
    for (const name of Object.keys(table) as (keyof Table & string)[])
      it(name, () => {
        const { args, arrives, fills = [], returns } = expected[name]();
        const before = functions[name](...expected[name]().args);
        clobber(...stale);
        const result = functions[name](...args);
        expect(recorded()).toBe(arrives);
        for (const [out, values] of fills) expect(Array.from(out)).toEqual(values);
        // a status is the number of the call, from the library's first on
        expect(result).toBe(returns ?? (before as number) + 1);
        if (returns === undefined) expect(before).toBeGreaterThan(0x12340000);
      });
  }

  describe("the driver", () => calls(DRIVER, driver));
  describe("NVRTC", () => {
    calls(NVRTC, nvrtc);
    it("a program without headers", () => {
      bind(library, NVRTC).nvrtcCreateProgram(new BigUint64Array(1), "a", "b", 0, null, null);
      expect(recorded()).toBe("nvrtcCreateProgram a b 0 none none none");
    });
  });
  describe("cuBLAS", () => calls(CUBLAS, cublas));

  it("a library without one of the functions is too old, and says which", () => {
    expect(() => bind(library, { missing: "int cuNotThere(int a)" })).toThrow(/cuNotThere/);
  });
} else
  it("says why the bindings were not called", () => {
    expect(built.reason).toMatch(/C compiler|Linux|koffi/);
    console.log(`The bindings of CUDA were not called: ${built.reason}`);
  });
