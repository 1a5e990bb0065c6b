import { env } from "node:process";
import { usageError } from "../../errors.js";
import {
  compiledAs,
  type Device,
  type DeviceBlock,
  type DeviceCall,
  DeviceOutOfMemory,
  type KernelDeclaration,
} from "../device/device.js";
import type { CudaCompiler } from "./compile.js";
import { type CardDescription, type CudaDriver, CudaOutOfMemory } from "./driver.js";
import { CudaProfile } from "./profile.js";
import { Staging } from "./staging.js";

/** Device memory at an address. */
export class CudaBlock implements DeviceBlock {
  /** Mark of `Staging` behind the last work on it, once it was freed. */
  freedAt = 0;

  constructor(
    readonly address: number,
    readonly bytes: number,
  ) {}
}

interface LoadedFunction {
  readonly handle: number;
  /** Of a group. */
  readonly threads: number;
}

/** Bytes of arguments that a launch may have at most (CUDA C++ Programming Guide, "Execution Configuration": 4 KB). */
const ARGUMENT_BYTES = 4096;
const [PARAMETER_END, PARAMETER_POINTER, PARAMETER_SIZE] = [0n, 1n, 2n];

/**
 * One card, one context, a stream for work and one for uploads. All of it belongs to the thread that made it. Launches cost
 * about 5 us each, so arguments are written into one native buffer, whose address the driver gets, without an object for each.
 */
export class CudaDevice implements Device {
  readonly name = "cuda";
  readonly mostThreads = 1024;
  readonly description: string;
  readonly arithmetic: string;
  /** Of the work. */
  readonly stream: number;
  private readonly uploads: number;
  /** Where BITWRIGHT_PROFILE asks for one. */
  readonly profile: CudaProfile | undefined;
  private readonly staging: Staging;
  private readonly functions = new Map<string, LoadedFunction>();
  private readonly modules: number[] = [];
  private readonly ordinalHandle: number;
  private readonly argumentMemory: unknown;
  private readonly argumentView: DataView;
  private readonly sizeView: Uint32Array;
  private readonly extra: bigint;

  constructor(
    readonly driver: CudaDriver,
    readonly card: CardDescription,
    private readonly compiler: CudaCompiler,
    describe: { description: string; arithmetic: string },
  ) {
    const device = new Int32Array(1);
    driver.call("cuDeviceGet", device, card.ordinal);
    this.ordinalHandle = device[0];
    const context = driver.handle("cuDevicePrimaryCtxRetain", this.ordinalHandle);
    try {
      driver.call("cuCtxSetCurrent", context);
      this.stream = driver.handle("cuStreamCreate", 1); // does not wait for the default stream
      this.uploads = driver.handle("cuStreamCreate", 1);
      this.staging = new Staging(driver, this.stream, this.uploads);
    } catch (error) {
      driver.giveBack("cuDevicePrimaryCtxRelease", this.ordinalHandle); // with all that it holds
      throw error;
    }
    this.profile = env.BITWRIGHT_PROFILE ? new CudaProfile(driver, this.stream) : undefined;
    this.description = describe.description;
    this.arithmetic = describe.arithmetic;
    // [arguments | size of them | extra: pointer, address, size, its address, end]
    const { koffi } = driver;
    this.argumentMemory = koffi.alloc("uint64_t", ARGUMENT_BYTES / 8 + 6);
    const base = koffi.address(this.argumentMemory);
    const view = koffi.view(this.argumentMemory, ARGUMENT_BYTES + 48);
    this.argumentView = new DataView(view, 0, ARGUMENT_BYTES);
    this.sizeView = new Uint32Array(view, ARGUMENT_BYTES, 2).fill(0);
    const sizeAddress = base + BigInt(ARGUMENT_BYTES);
    this.extra = sizeAddress + 8n;
    new BigUint64Array(view, ARGUMENT_BYTES + 8, 5).set([
      PARAMETER_POINTER,
      base,
      PARAMETER_SIZE,
      sizeAddress,
      PARAMETER_END,
    ]);
  }

  freeBytes(): number {
    const [free, total] = [new BigUint64Array(1), new BigUint64Array(1)];
    this.driver.call("cuMemGetInfo", free, total);
    return Number(free[0]);
  }

  allocate(bytes: number): CudaBlock {
    try {
      return new CudaBlock(this.driver.handle("cuMemAlloc", bytes), bytes);
    } catch (error) {
      if (error instanceof CudaOutOfMemory) throw new DeviceOutOfMemory(bytes);
      throw error;
    }
  }

  release(block: DeviceBlock): void {
    this.driver.giveBack("cuMemFree", addressOf(block));
  }

  zero(block: DeviceBlock, byteOffset: number, bytes: number): void {
    this.driver.call("cuMemsetD8Async", addressOf(block) + byteOffset, 0, bytes, this.stream);
  }

  upload(block: DeviceBlock, byteOffset: number, data: Uint8Array, isNew = false): void {
    this.staging.upload(addressOf(block) + byteOffset, data, isNew && this.isIdle(block));
  }

  isIdle(block: DeviceBlock): boolean {
    return this.staging.isDone(blockOf(block).freedAt);
  }

  noteFreed(block: DeviceBlock): void {
    blockOf(block).freedAt = this.staging.mark;
  }

  copy(from: DeviceBlock, fromOffset: number, to: DeviceBlock, toOffset: number, bytes: number): void {
    const [source, target] = [addressOf(from) + fromOffset, addressOf(to) + toOffset];
    if (Math.abs(source - target) >= bytes) {
      this.driver.call("cuMemcpyDtoDAsync", target, source, bytes, this.stream);
      return;
    }
    const between = this.allocate(bytes); // over itself
    this.driver.call("cuMemcpyDtoDAsync", between.address, source, bytes, this.stream);
    this.driver.call("cuMemcpyDtoDAsync", target, between.address, bytes, this.stream);
    this.driver.call("cuStreamSynchronize", this.stream);
    this.release(between);
  }

  download(block: DeviceBlock, byteOffset: number, bytes: number): Promise<Uint8Array<ArrayBuffer>> {
    return this.staging.download(addressOf(block) + byteOffset, bytes);
  }

  run(kernel: KernelDeclaration, { groups, bindings, numbers, constants }: DeviceCall): void {
    const { argumentView: view } = this;
    let at = 0;
    for (const { block, byteOffset } of bindings) {
      const address = addressOf(block) + byteOffset;
      view.setUint32(at, address >>> 0, true);
      view.setUint32(at + 4, Math.floor(address / 2 ** 32), true);
      at += 8;
    }
    for (let index = 0; index < numbers.length; index++) {
      if (kernel.numbers[index].type === "f32") view.setFloat32(at, numbers[index], true);
      else view.setInt32(at, numbers[index], true); // the low 32 bits, of an unsigned number too
      at += 4;
    }
    this.sizeView[0] = at; // the high half stays 0
    const { handle, threads } = this.functionOf(kernel, constants);
    const { driver, stream, extra } = this;
    if (this.profile)
      this.profile.time(kernel.name, () =>
        driver.call("cuLaunchKernel", handle, groups, 1, 1, threads, 1, 1, 0, stream, 0, extra),
      );
    else driver.call("cuLaunchKernel", handle, groups, 1, 1, threads, 1, 1, 0, stream, 0, extra);
  }

  /** The compiled kernel; compiled and loaded at its first use. */
  private functionOf(kernel: KernelDeclaration, constants: readonly number[]): LoadedFunction {
    const key = constants.length === 0 ? kernel.name : `${kernel.name} ${constants.join(" ")}`;
    const known = this.functions.get(key);
    if (known !== undefined) return known;
    const module = this.driver.handle("cuModuleLoadData", this.compiler.compile(kernel, constants));
    this.modules.push(module);
    const handle = this.driver.handle("cuModuleGetFunction", module, kernel.name);
    const made = { handle, threads: compiledAs(kernel, constants).threads };
    this.functions.set(key, made);
    return made;
  }

  synchronize(): void {
    this.driver.call("cuStreamSynchronize", this.stream);
  }

  async close(): Promise<void> {
    const { driver } = this;
    try {
      driver.giveBack("cuStreamSynchronize", this.uploads);
      driver.giveBack("cuStreamSynchronize", this.stream);
      if (!driver.lost) {
        for (const line of this.profile?.report() ?? []) console.error(line);
        this.profile?.close();
      }
      this.staging.close();
      for (const module of this.modules) driver.giveBack("cuModuleUnload", module);
      driver.giveBack("cuStreamDestroy", this.uploads);
      driver.giveBack("cuStreamDestroy", this.stream);
    } finally {
      driver.koffi.free(this.argumentMemory);
      driver.giveBack("cuDevicePrimaryCtxRelease", this.ordinalHandle);
    }
  }
}

function blockOf(block: DeviceBlock): CudaBlock {
  if (!(block instanceof CudaBlock)) throw usageError("a tensor of another device was given to the CUDA engine");
  return block;
}

export const addressOf = (block: DeviceBlock): number => blockOf(block).address;
