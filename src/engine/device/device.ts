import { BitwrightError } from "../../errors.js";
import type { DType } from "../../tensor/index.js";

// What an engine whose memory the host cannot address stands on: a device that runs kernels. `engine/cuda` and `engine/webgpu`
// are devices with kernels of the same names and parameters; `operations/` turns the contract of engine.ts into calls of them.
//
// - A kernel is declared once, beside the operation that calls it (`declareKernel`), and written twice: section
//   `//# name` of cuda/kernels/<file>.cu and of webgpu/kernels/<file>.wgsl. A test compares both with the declaration.
// - Work runs in the order of the calls, one after the other, but for what is uploaded into new blocks: that may run beside the
//   work before it. A block that was released may be used by later calls at once.
// - Groups are one-dimensional. A kernel that works on tiles or rows divides the index of its group itself.

/** Bytes on the device. */
export interface DeviceBlock {
  readonly bytes: number;
}

/**
 * Types as the kernels see them. CUDA: a pointer to the element type. WGSL: array<f32>, array<i32>, array<u32>; the types
 * below 4 bytes are array<u32> words, and the kernel takes elements out of them (`lib` of the prelude).
 */
export interface KernelDeclaration {
  /** Also the name of the function. */
  readonly name: string;
  /** Sources: <file>.cu and <file>.wgsl. */
  readonly file: string;
  /** Parameters in this order: tensors that are read, tensors that are written (in place too), numbers. */
  readonly reads: readonly TensorParameter[];
  readonly writes: readonly TensorParameter[];
  readonly numbers: readonly NumberParameter[];
  /** Whole numbers that are known when the kernel is compiled; one pipeline for each combination. THREADS among them is `threads`. */
  readonly constants: readonly string[];
  /** Values of the constants with which tests compile the kernel. */
  readonly samples: readonly (readonly number[])[];
  /** Threads of a group. */
  readonly threads: number;
}

export interface TensorParameter {
  readonly name: string;
  readonly dtype: DType;
}

export type NumberType = "u32" | "i32" | "f32";

export interface NumberParameter {
  readonly name: string;
  readonly type: NumberType;
}

interface Signature {
  reads?: Readonly<Record<string, DType>>;
  writes: Readonly<Record<string, DType>>;
  numbers?: Readonly<Record<string, NumberType>>;
  constants?: readonly string[];
  /** Default: 4 for each constant. */
  samples?: readonly (readonly number[])[];
  /** Default 256. */
  threads?: number;
}

const declared = new Map<string, KernelDeclaration>();

/** Threads of a group, and the other constants. */
export function compiledAs(
  { threads, constants: names }: KernelDeclaration,
  values: readonly number[],
): { threads: number; constants: [name: string, value: number][] } {
  const constants = names.map((name, place): [string, number] => [name, values[place]]);
  const own = constants.find(([name]) => name === "THREADS");
  return { threads: own?.[1] ?? threads, constants: constants.filter((one) => one !== own) };
}

/** Declares a kernel; the order of the names is the order of its parameters. */
export function declareKernel(file: string, name: string, signature: Signature): KernelDeclaration {
  const { reads = {}, writes, numbers = {}, constants = [], threads = 256 } = signature;
  const { samples = [constants.map(() => 4)] } = signature;
  const tensors = (of: Readonly<Record<string, DType>>) => Object.entries(of).map(([name, dtype]) => ({ name, dtype }));
  const kernel: KernelDeclaration = {
    name,
    file,
    reads: tensors(reads),
    writes: tensors(writes),
    numbers: Object.entries(numbers).map(([name, type]) => ({ name, type })),
    constants,
    samples,
    threads,
  };
  if (declared.has(name)) throw new Error(`kernel ${name} is declared twice`);
  declared.set(name, kernel);
  return kernel;
}

/** All kernels whose operations were loaded. */
export const declaredKernels = (): readonly KernelDeclaration[] => [...declared.values()];

/** Where the elements of a tensor lie. */
export interface Binding {
  readonly block: DeviceBlock;
  /** Of the first element; a multiple of the element size, not of more. */
  readonly byteOffset: number;
  readonly bytes: number;
}

/** One call of a kernel; what a declaration names, in its order. */
export interface DeviceCall {
  /** Groups to run, from 1 to 2^31 - 1. */
  readonly groups: number;
  /** First those read, then those written. One that is read may lie in the block of one that is written. */
  readonly bindings: readonly Binding[];
  readonly numbers: readonly number[];
  readonly constants: readonly number[];
}

export interface Device {
  readonly name: "cuda" | "webgpu";
  /** One line for people: card, driver, precision. */
  readonly description: string;
  /** What decides the last bits. */
  readonly arithmetic: string;
  /** Bytes of the card's memory that are free for us now, where it can be known. */
  freeBytes(): number | undefined;
  /** Freed blocks kept for later requests have so many bytes at most. Default: all that there are. */
  readonly reserveBytes?: number;
  /** Threads that a group may have. Default 256. */
  readonly mostThreads?: number;
  /** The most that a kernel can see of one tensor, from a multiple of 256 bytes on. Default: all of it. */
  readonly bindingBytes?: number;
  /** Contents undefined; a multiple of 4 bytes is given. Throws `DeviceOutOfMemory`. */
  allocate(bytes: number): DeviceBlock;
  /** Gives the memory back to the system. */
  release(block: DeviceBlock): void;
  zero(block: DeviceBlock, byteOffset: number, bytes: number): void;
  /**
   * The data may be changed when it returns. Into a block that nothing was done with since it was allocated or last freed (`isNew`) it
   * may go beside the work enqueued before.
   */
  upload(block: DeviceBlock, byteOffset: number, data: Uint8Array, isNew?: boolean): void;
  /** Nobody uses the block any more but the work that is enqueued; it waits for another use. */
  noteFreed?(block: DeviceBlock): void;
  /**
   * Whether the work on a block that waits is known to be done: an upload into it goes beside the work, and fails at the call. Absent
   * where uploads do neither.
   */
  isIdle?(block: DeviceBlock): boolean;
  /** Ranges of one block may overlap. */
  copy(from: DeviceBlock, fromOffset: number, to: DeviceBlock, toOffset: number, bytes: number): void;
  /** The bytes as the work before it leaves them; what is enqueued after the call may run while it waits. */
  download(block: DeviceBlock, byteOffset: number, bytes: number): Promise<Uint8Array<ArrayBuffer>>;
  run(kernel: KernelDeclaration, call: DeviceCall): void;
  close(): Promise<void>;
}

/** Thrown by `Device.allocate`; the memory above it lets go of what it holds in reserve, and tries again. */
export class DeviceOutOfMemory extends BitwrightError {
  constructor(readonly bytes: number) {
    super("memory", `the device has no room for ${bytes} bytes more`, "take another --device, or --engine wasm");
  }
}
