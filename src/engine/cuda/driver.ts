import { BitwrightError } from "../../errors.js";
import { type Koffi, loadKoffi } from "../koffi.js";
import { bind, DRIVER, type Functions } from "./bindings.js";
import { openDriver } from "./libraries.js";

/** The least driver: of CUDA 12.0. */
const LEAST_DRIVER = 12000;

const ATTRIBUTES = { multiprocessors: 16, major: 75, minor: 76 } as const;
const OUT_OF_MEMORY = 2;
/** After these a context gives no other answer any more (CUDA Driver API, "Data types used by CUDA driver", CUresult). */
const FATAL = new Set([214, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 999]);

export interface CardDescription {
  ordinal: number;
  name: string;
  /** Compute capability, [9, 0]. */
  capability: readonly [number, number];
  multiprocessors: number;
  bytes: number;
}

/** Thrown for the one failure that callers mend. */
export class CudaOutOfMemory extends BitwrightError {
  constructor(call: string) {
    super("memory", `${call} failed: no memory is left`, "end other programs on this card, or take another --device");
  }
}

/** The driver API with every return code checked. */
export class CudaDriver {
  private readonly functions: Functions<typeof DRIVER>;
  private failed = false;
  /** Of CUDA that the driver knows, 13000 for 13.0. */
  readonly version: number;

  constructor(
    readonly koffi: Koffi,
    library: Parameters<typeof bind>[0],
  ) {
    this.functions = bind(library, DRIVER);
    this.call("cuInit", 0);
    const version = new Int32Array(1);
    this.call("cuDriverGetVersion", version);
    this.version = version[0];
    if (this.version < LEAST_DRIVER)
      throw new BitwrightError(
        "unsupported",
        `the NVIDIA driver is too old: it knows CUDA ${versionText(this.version)}, expected 12.0 or newer`,
        "update the driver",
      );
  }

  /** Throws `CudaOutOfMemory`, or a BitwrightError with the driver's own words. */
  call(name: keyof typeof DRIVER, ...args: unknown[]): void {
    const status = this.functions[name](...args) as number;
    if (status !== 0) this.fail(name, status);
  }

  /** The card has failed for good. */
  get lost(): boolean {
    return this.failed;
  }

  /**
   * As `call`, for what gives something back: nothing can be given back to a card that has failed, and how it failed was thrown
   * where it showed first.
   */
  giveBack(name: keyof typeof DRIVER, ...args: unknown[]): void {
    const status = this.functions[name](...args) as number;
    if (status !== 0 && !this.failed) this.fail(name, status);
  }

  private fail(name: string, status: number): never {
    if (status === OUT_OF_MEMORY) throw new CudaOutOfMemory(name);
    if (FATAL.has(status)) this.failed = true;
    const words = (fn: "cuGetErrorName" | "cuGetErrorString") => {
      const text: (string | null)[] = [null];
      this.functions[fn](status, text);
      return text[0] ?? `error ${status}`;
    };
    throw new BitwrightError(
      "unsupported",
      `${name} failed: ${words("cuGetErrorName")} (${words("cuGetErrorString")})`,
      REMEDIES[status] ?? "run bitwright doctor; another --engine goes on where this one stopped",
    );
  }

  /** One handle or count that a function stores at an address. */
  handle(name: keyof typeof DRIVER, ...rest: unknown[]): number {
    const out = new BigUint64Array(1);
    this.call(name, out, ...rest);
    return Number(out[0]);
  }

  cards(): CardDescription[] {
    const count = new Int32Array(1);
    this.call("cuDeviceGetCount", count);
    return Array.from({ length: count[0] }, (_, ordinal) => this.describe(ordinal));
  }

  private describe(ordinal: number): CardDescription {
    const device = new Int32Array(1);
    this.call("cuDeviceGet", device, ordinal);
    const name = new Uint8Array(128);
    this.call("cuDeviceGetName", name, name.length, device[0]);
    const attribute = (which: keyof typeof ATTRIBUTES) => {
      const value = new Int32Array(1);
      this.call("cuDeviceGetAttribute", value, ATTRIBUTES[which], device[0]);
      return value[0];
    };
    return {
      ordinal,
      name: new TextDecoder().decode(name.subarray(0, name.indexOf(0))),
      capability: [attribute("major"), attribute("minor")],
      multiprocessors: attribute("multiprocessors"),
      bytes: this.handle("cuDeviceTotalMem", device[0]),
    };
  }
}

const REMEDIES: Readonly<Record<number, string>> = {
  100: "no card is visible: look at CUDA_VISIBLE_DEVICES and at nvidia-smi",
  101: "name a card that bitwright doctor lists with --device",
  209: "the kernel was compiled for another card: delete the cache folder of bitwright",
  700: "a kernel left its memory; the run can be resumed; please report it with the command line",
  719: "a kernel failed; the run can be resumed; please report it with the command line",
  803: "the driver and its library are of different versions: restart the machine or the container",
};

export const versionText = (version: number): string => `${Math.floor(version / 1000)}.${(version % 1000) / 10}`;

/** The driver, or in a line why there is none. */
export async function findCudaDriver(): Promise<{ driver: CudaDriver } | { reason: string }> {
  const loaded = await loadKoffi();
  if ("reason" in loaded) return loaded;
  const found = openDriver(loaded.koffi);
  if ("reason" in found) return found;
  try {
    const driver = new CudaDriver(loaded.koffi, found.library);
    if (driver.cards().length === 0) return { reason: "the NVIDIA driver sees no card" };
    return { driver };
  } catch (error) {
    return { reason: error instanceof Error ? error.message : String(error) };
  }
}
