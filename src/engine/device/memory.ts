import type { BitwrightError } from "../../errors.js";
import { BYTES_PER_ELEMENT, type DType, type HostArray, hostView, sizeOf, type Tensor } from "../../tensor/index.js";
import { checkDense, checkRange, checkShape } from "../check.js";
import { checkCopy } from "../memory.js";
import { TensorMemory } from "../tensor-memory.js";
import type { Binding, Device, DeviceBlock, KernelDeclaration } from "./device.js";
import { BlockPool } from "./pool.js";

/** One call of a kernel; what its declaration names, in that order. */
export interface KernelCall {
  /** Nothing runs for 0. */
  groups: number;
  /** First those read, then those written. */
  tensors: readonly Tensor[];
  numbers?: readonly number[];
  constants?: readonly number[];
}

const NONE: readonly number[] = [];

/** A block made from elements of another one, and which of them. */
interface Derived {
  byteOffset: number;
  size: number;
  block: DeviceBlock;
}

/** Bindings begin at multiples of at most so many bytes, before the tensor's first. */
const BINDING_STEP = 256;
/** Views of one block of which something derived is kept: more than an operation takes. */
const MOST_DERIVED = 8;
/** Bytes of an upload from which on it should not wait for the work before it: more lets the host wait too. */
const LARGE_UPLOAD = 2 ** 22;

/** What an element had that it must not have, found by a kernel: the error to throw, from the value and where it was. */
export type DescribeFault = (value: number, at: number) => BitwrightError;

const bytesOf = (data: HostArray): Uint8Array => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/**
 * Memory of an engine on a device, and the way to its kernels. Kernels that meet an element that they must refuse (an index
 * outside, a 0 on a diagonal) note it in the fault word; the next call that waits throws it.
 */
export class DeviceMemory extends TensorMemory<DeviceBlock> {
  override readonly runsAhead = true;
  override readonly uploadsBeside: boolean;
  private readonly pool: BlockPool;
  /** Of the checks that no wait has answered for yet, by number. */
  private faultDescriptions = new Map<number, DescribeFault>();
  private faultNumber = 0;
  /** Waits under way that will look at the fault word. */
  private faultWaits = 0;
  private readonly faultWord: Tensor<"i32">;

  constructor(
    readonly device: Device,
    limitBytes?: number,
    /** What an engine has to close before its device. */
    private readonly beforeClose: () => Promise<void> = async () => {},
  ) {
    super();
    this.uploadsBeside = device.isIdle !== undefined;
    this.pool = new BlockPool(device, limitBytes);
    this.faultWord = this.create([3], "i32");
  }

  private readonly derived = new Map<DeviceBlock, Derived[]>();

  protected allocate(bytes: number, filled: boolean): DeviceBlock {
    return this.pool.take(bytes, filled && bytes >= LARGE_UPLOAD);
  }

  protected release(block: DeviceBlock): void {
    this.noteWritten(block);
    this.pool.give(block);
  }

  // ---- for the operations of the engine

  /** Bytes of a tensor that a kernel can see, wherever they begin; operations walk larger ones in windows (windows.ts). */
  get windowBytes(): number {
    return (this.device.bindingBytes ?? Number.POSITIVE_INFINITY) - BINDING_STEP;
  }

  /** Enqueues a kernel. Throws "usage" for a tensor that was disposed or that another engine made. */
  run(kernel: KernelDeclaration, { groups, tensors, numbers = NONE, constants = NONE }: KernelCall): void {
    this.runOn(
      kernel,
      { groups, numbers, constants },
      tensors.map((tensor) => this.bindingOf(tensor)),
    );
  }

  /** Where a tensor lies. Throws as `run`. */
  bindingOf(tensor: Tensor): Binding {
    return { block: this.blockOf(tensor), byteOffset: tensor.byteOffset, bytes: tensor.bytes };
  }

  /** As `run`, on blocks that need not be tensors'. */
  runOn(
    kernel: KernelDeclaration,
    { groups, numbers = NONE, constants = NONE }: Omit<KernelCall, "tensors">,
    bindings: readonly Binding[],
  ): void {
    if (
      bindings.length !== kernel.reads.length + kernel.writes.length ||
      numbers.length !== kernel.numbers.length ||
      constants.length !== kernel.constants.length
    )
      throw new Error(`${kernel.name} was not called as it is declared`);
    if (groups === 0) return;
    if (this.derived.size > 0)
      for (let at = kernel.reads.length; at < bindings.length; at++) this.noteWritten(bindings[at].block);
    this.device.run(kernel, { groups, bindings, numbers, constants });
  }

  /**
   * What `make` makes of a tensor's elements, in a block of `bytes`; kept until the tensor's block is written or freed, so that
   * a tensor in several products is converted once. Of views of one block the last few are kept, so that all operands of an
   * operation are there together.
   */
  derivedFrom(tensor: Tensor, bytes: number, make: (block: DeviceBlock) => void): DeviceBlock {
    const source = this.blockOf(tensor);
    const { byteOffset, size } = tensor;
    const all = this.derived.get(source) ?? [];
    const place = all.findIndex((one) => one.byteOffset === byteOffset && one.size === size);
    const [known] = place < 0 ? [] : all.splice(place, 1);
    if (!known && all.length === MOST_DERIVED) this.pool.give((all.shift() as Derived).block);
    const block = known?.block ?? this.pool.take(bytes);
    if (!known) make(block);
    all.push({ byteOffset, size, block });
    this.derived.set(source, all);
    return block;
  }

  /** The elements of a block are about to change, or it is free: what was derived from it is of no use any more. */
  noteWritten(block: DeviceBlock): void {
    const all = this.derived.get(block);
    if (!all) return;
    this.derived.delete(block);
    for (const derived of all) this.pool.give(derived.block);
  }

  /** Throws as `run`: for operations that look at a tensor before they call a kernel, or call none. */
  check(...tensors: readonly Tensor[]): void {
    for (const tensor of tensors) this.blockOf(tensor);
  }

  /**
   * The fault tensor, i32 [3], to be written by a kernel, and the number by which the kernel says which check failed: it stores
   * { number, value, position } there.
   */
  fault(describe: DescribeFault): { word: Tensor<"i32">; number: number } {
    // from 1 on where nobody can mean an older check by it
    this.faultNumber = this.faultDescriptions.size + this.faultWaits === 0 ? 1 : this.faultNumber + 1;
    this.faultDescriptions.set(this.faultNumber, describe);
    return { word: this.faultWord, number: this.faultNumber };
  }

  /** Throws what a kernel since the last call has refused. */
  async checkFaults(): Promise<void> {
    if (this.faultDescriptions.size === 0) return;
    const described = this.faultDescriptions;
    this.faultDescriptions = new Map();
    this.faultWaits++;
    const bytes = await this.device
      .download(this.blockOf(this.faultWord), 0, this.faultWord.bytes)
      .finally(() => this.faultWaits--);
    const [number, value, at] = new Int32Array(bytes.buffer, bytes.byteOffset, 3);
    // none, or one that a wait under way at the same time throws
    const describe = described.get(number);
    if (!describe) return;
    this.device.zero(this.blockOf(this.faultWord), 0, this.faultWord.bytes);
    throw describe(value, at);
  }

  // ---- Engine, "memory"; the fault word is not the user's

  override roomBytes(): number {
    return this.pool.roomBytes();
  }

  override liveBytes(): number {
    return super.liveBytes() - this.faultWord.bytes;
  }

  override peakBytes(): number {
    return super.peakBytes() - this.faultWord.bytes;
  }

  create<D extends DType = "f32">(shape: readonly number[], dtype: D = "f32" as D): Tensor<D> {
    const tensor = this.empty(shape, dtype);
    if (tensor.bytes > 0) this.device.zero(this.blockOf(tensor), 0, tensor.bytes);
    return tensor;
  }

  upload<D extends DType>(data: HostArray<D>, shape: readonly number[], dtype: D): Tensor<D> {
    checkShape("upload", shape);
    checkDense("upload", data, dtype, sizeOf(shape));
    const tensor = this.empty(shape, dtype, true);
    if (tensor.bytes > 0) this.device.upload(this.blockOf(tensor), 0, bytesOf(data), true);
    return tensor;
  }

  async read<D extends DType>(tensor: Tensor<D>): Promise<HostArray<D>> {
    const block = this.blockOf(tensor);
    if (tensor.size === 0) {
      await this.checkFaults();
      return hostView(tensor.dtype, new ArrayBuffer(0), 0, 0);
    }
    // one wait for both
    const [bytes] = await Promise.all([
      this.device.download(block, tensor.byteOffset, tensor.bytes),
      this.checkFaults(),
    ]);
    return hostView(tensor.dtype, bytes.buffer, bytes.byteOffset, tensor.size);
  }

  write<D extends DType>(tensor: Tensor<D>, data: HostArray<D>, offset = 0): void {
    checkDense("write", data, tensor.dtype);
    checkRange("write", offset, data.length, tensor.size);
    const block = this.blockOf(tensor);
    this.noteWritten(block);
    if (data.length > 0)
      this.device.upload(block, tensor.byteOffset + offset * BYTES_PER_ELEMENT[tensor.dtype], bytesOf(data));
  }

  copy<D extends DType>(tensor: Tensor<D>): Tensor<D> {
    const from = this.blockOf(tensor);
    const result = this.empty(tensor.shape, tensor.dtype);
    if (tensor.bytes > 0) this.device.copy(from, tensor.byteOffset, this.blockOf(result), 0, tensor.bytes);
    return result;
  }

  copyInto<D extends DType>(target: Tensor<D>, source: Tensor<D>, offset = 0): void {
    checkCopy(target, source, offset);
    const [from, to] = [this.blockOf(source), this.blockOf(target)];
    const at = target.byteOffset + offset * BYTES_PER_ELEMENT[target.dtype];
    this.noteWritten(to);
    if (source.bytes > 0) this.device.copy(from, source.byteOffset, to, at, source.bytes);
  }

  override async close(): Promise<void> {
    await super.close();
    try {
      this.pool.trim();
      await this.beforeClose();
    } finally {
      await this.device.close();
    }
  }
}
