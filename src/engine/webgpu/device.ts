import { unsupportedError } from "../../errors.js";
import { BYTES_PER_ELEMENT } from "../../tensor/index.js";
import type { Binding, Device, DeviceBlock, DeviceCall, KernelDeclaration } from "../device/device.js";
import { BlockPool } from "../device/pool.js";
import type { KernelFiles } from "../device/sources.js";
import { closeDevice, type OpenDevice, type WebgpuFeatures } from "./adapter.js";
import { COPY_BYTES, copyGroups, PATCH_WORD, splitBytes } from "./bytes.js";
import { Commands } from "./commands.js";
import { Downloads } from "./downloads.js";
import { Failures } from "./failures.js";
import { type BindingLayout, Pipelines, WINDOW } from "./pipelines.js";

const STORAGE = 0x80 | 0x8 | 0x4; // GPUBufferUsage.STORAGE | COPY_DST | COPY_SRC, which Node does not define
/** Bytes that one call hands to the queue. */
const CHUNK = 2 ** 26;
/** Bind groups that are kept: a decoder asks for the same blocks at every token. */
const MOST_BIND_GROUPS = 4096;

class Block implements DeviceBlock {
  /** The batch of commands that used it last. */
  batch = 0;

  constructor(
    readonly id: number,
    readonly buffer: GPUBuffer,
    readonly bytes: number,
  ) {}
}

/** A tensor as it is bound: from a place that the adapter's alignment allows on. */
interface Range {
  block: Block;
  begin: number;
  bytes: number;
  /** The tensor's first element, counted from there. */
  at: number;
}

export class WebgpuDevice implements Device {
  readonly name = "webgpu";
  readonly description: string;
  readonly arithmetic: string;
  readonly features: WebgpuFeatures;
  /** The most that a kernel can see of one tensor. */
  readonly bindingBytes: number;
  /** WebGPU tells too late that memory is short for the reserve to be let go of then. */
  readonly reserveBytes = 2 ** 30;
  private readonly failures: Failures;
  private readonly pipelines: Pipelines;
  private readonly commands: Commands;
  private readonly downloads: Downloads;
  /** For tensors that cannot be bound where they lie. */
  private readonly scratch: BlockPool;
  private readonly bindGroups = new Map<string, GPUBindGroup>();
  private readonly alignment: number;
  private blocks = 0;
  /** Bytes that were handed to the queue since its copies were last let go. */
  private written = 0;

  constructor(
    private readonly open: OpenDevice,
    files: KernelFiles,
  ) {
    const { device, features, title, software } = open;
    const used = Object.entries(features).flatMap(([feature, present]) => (present ? [feature] : []));
    this.description = `WebGPU on ${title}${software ? ", in software" : ""}${used.length > 0 ? ` (${used.join(", ")})` : ""}`;
    this.arithmetic = `webgpu ${title}`;
    this.features = features;
    this.failures = new Failures(device);
    this.pipelines = new Pipelines(device, this.failures, files);
    this.commands = new Commands(device, this.failures);
    this.downloads = new Downloads(device);
    this.scratch = new BlockPool(this);
    this.bindingBytes = device.limits.maxStorageBufferBindingSize;
    this.alignment = device.limits.minStorageBufferOffsetAlignment;
  }

  /** WebGPU does not tell. */
  freeBytes(): undefined {
    return undefined;
  }

  /** That the memory is exhausted becomes known later, as an error of the next call. */
  allocate(bytes: number): Block {
    this.failures.check();
    const size = Math.max(4, Math.ceil(bytes / 4) * 4);
    const most = this.open.device.limits.maxBufferSize;
    if (size > most) throw tooLarge("a buffer", size, most);
    return new Block(this.blocks++, this.open.device.createBuffer({ size, usage: STORAGE }), size);
  }

  release(block: Block): void {
    if (block.batch === this.commands.batch) this.commands.flush();
    block.buffer.destroy();
  }

  zero(block: Block, byteOffset: number, bytes: number): void {
    this.failures.check();
    const { begin, end } = splitBytes(byteOffset, bytes);
    if (end > begin) this.commands.transfer().clearBuffer(this.use(block).buffer, begin, end - begin);
    this.patch(block, byteOffset, bytes);
  }

  upload(block: Block, byteOffset: number, data: Uint8Array): void {
    this.failures.check();
    // the queue writes before the commands that wait here
    if (block.batch === this.commands.batch) this.commands.flush();
    const { begin, end } = splitBytes(byteOffset, data.length);
    const { queue } = this.open.device;
    for (let at = begin; at < end; at += CHUNK) {
      const count = Math.min(CHUNK, end - at);
      queue.writeBuffer(block.buffer, at, data, at - byteOffset, count);
      this.written += count;
      if (this.written < CHUNK) continue;
      // the queue's own copies go when something is submitted after they were used
      queue.submit([]);
      this.written = 0;
    }
    this.patch(block, byteOffset, data.length, data);
  }

  copy(from: Block, fromOffset: number, to: Block, toOffset: number, bytes: number): void {
    this.failures.check();
    if (bytes === 0) return;
    if (from === to)
      this.borrow(bytes, (between) => {
        this.copy(from, fromOffset, between, fromOffset % 4, bytes);
        this.copy(between, fromOffset % 4, to, toOffset, bytes);
      });
    else if (fromOffset % 4 === 0 && toOffset % 4 === 0 && bytes % 4 === 0) {
      const [source, target] = [this.use(from).buffer, this.use(to).buffer];
      this.commands.transfer().copyBufferToBuffer(source, fromOffset, target, toOffset, bytes);
    } else {
      const most = this.bindingBytes - this.alignment; // a binding begins before the first byte
      for (let done = 0; done < bytes; done += most) {
        const count = Math.min(most, bytes - done);
        this.run(COPY_BYTES, {
          groups: copyGroups(toOffset + done, count),
          bindings: [
            { block: from, byteOffset: fromOffset + done, bytes: count },
            { block: to, byteOffset: toOffset + done, bytes: count },
          ],
          numbers: [count],
          constants: [],
        });
      }
    }
  }

  async download(block: Block, byteOffset: number, bytes: number): Promise<Uint8Array<ArrayBuffer>> {
    this.failures.check();
    const { buffer } = this.use(block);
    const finish = this.downloads.begin(this.commands.transfer(), buffer, byteOffset, bytes);
    this.commands.flush();
    let failure: unknown;
    const data = await finish().catch((error) => {
      failure = error;
    });
    await this.failures.settle(); // tells more of what went wrong than a refused mapping
    if (data === undefined) throw failure;
    return data;
  }

  run(kernel: KernelDeclaration, call: DeviceCall): void {
    this.failures.check();
    const { pipeline, layout } = this.pipelines.get(kernel, call.constants);
    this.separated(kernel.reads.length, call.bindings, (bindings) => {
      const ranges = bindings.map((binding) => this.rangeOf(binding, kernel.name));
      const { words, floats, at, byteOffset } = this.commands.slot();
      let place = at;
      for (const [index, { type }] of kernel.numbers.entries())
        (type === "f32" ? floats : words)[place++] = call.numbers[index];
      const dtypes = [...kernel.reads, ...kernel.writes];
      let bytes = 0;
      for (const [index, range] of ranges.entries()) {
        words[place++] = range.at / BYTES_PER_ELEMENT[dtypes[index].dtype];
        bytes += range.bytes;
        this.use(range.block);
      }
      words[place++] = call.groups;
      if (4 * (place - at) > WINDOW) throw new Error(`${kernel.name} has too many parameters`);
      this.commands.dispatch(pipeline, this.bind(layout, ranges), byteOffset, call.groups, bytes);
    });
  }

  async close(): Promise<void> {
    this.failures.close();
    this.commands.drop();
    this.scratch.trim();
    this.bindGroups.clear();
    closeDevice(this.open);
  }

  // ---- bindings

  /** Notes that the commands that wait use a block. */
  private use(block: Block): Block {
    block.batch = this.commands.batch;
    return block;
  }

  private rangeOf({ block, byteOffset, bytes }: Binding, operation = "a kernel"): Range {
    const begin = byteOffset - (byteOffset % this.alignment);
    // empty tensors may stand at the end of a block, and an empty binding is not allowed
    if (bytes === 0) return { block: block as Block, begin: 0, bytes: 4, at: 0 };
    const size = Math.ceil((byteOffset + bytes - begin) / 4) * 4;
    if (size > this.bindingBytes) throw tooLarge(`${operation}: a tensor`, size, this.bindingBytes);
    return { block: block as Block, begin, bytes: size, at: byteOffset - begin };
  }

  private bind(layout: BindingLayout, ranges: readonly Range[]): GPUBindGroup {
    let key = `${layout.id}`;
    for (const { block, begin, bytes } of ranges) key += ` ${block.id},${begin},${bytes}`;
    const known = this.bindGroups.get(key);
    if (known) return known;
    const bindGroup = this.open.device.createBindGroup({
      layout: layout.bindGroup,
      entries: [
        { binding: 0, resource: { buffer: this.commands.numbers, size: WINDOW } },
        ...ranges.map(({ block, begin, bytes }, place) => {
          return { binding: place + 1, resource: { buffer: block.buffer, offset: begin, size: bytes } };
        }),
      ],
    });
    if (this.bindGroups.size >= MOST_BIND_GROUPS) this.bindGroups.clear();
    this.bindGroups.set(key, bindGroup);
    return bindGroup;
  }

  /**
   * WebGPU refuses a buffer that one call both reads and writes, and written ranges that overlap as they are bound. Calls
   * `body` with such tensors replaced by copies, and copies back what it wrote.
   */
  private separated(reads: number, bindings: readonly Binding[], body: (bindings: readonly Binding[]) => void): void {
    const place = bindings.findIndex((binding, index) =>
      bindings.some((other, at) => {
        if (other.block !== binding.block) return false;
        if (index < reads) return at >= reads;
        return at > index && overlap(this.rangeOf(binding), this.rangeOf(other));
      }),
    );
    if (place < 0) {
      body(bindings);
      return;
    }
    const { block, byteOffset, bytes } = bindings[place];
    // an equal place within a word: whole words are copied faster
    const inside = byteOffset % 4;
    this.borrow(inside + bytes, (between) => {
      this.copy(block as Block, byteOffset, between, inside, bytes);
      this.separated(reads, bindings.with(place, { block: between, byteOffset: inside, bytes }), body);
      if (place >= reads) this.copy(between, inside, block as Block, byteOffset, bytes);
    });
  }

  /** A block for the commands that `body` enqueues. */
  private borrow(bytes: number, body: (block: Block) => void): void {
    const block = this.scratch.take(bytes + 4) as Block;
    try {
      body(block);
    } finally {
      this.scratch.give(block);
    }
  }

  /** The bytes of a range that fill no whole word. */
  private patch(block: Block, byteOffset: number, bytes: number, data?: Uint8Array): void {
    for (const { at, mask, value } of splitBytes(byteOffset, bytes, data).patches)
      this.run(PATCH_WORD, {
        groups: 1,
        bindings: [{ block, byteOffset: at, bytes: 4 }],
        numbers: [mask, value],
        constants: [],
      });
  }
}

const overlap = (a: Range, b: Range): boolean => a.begin < b.begin + b.bytes && b.begin < a.begin + a.bytes;

function tooLarge(what: string, bytes: number, most: number) {
  const mega = (count: number) => `${(count / 1e6).toFixed(0)} MB`;
  return unsupportedError(
    `${what} of ${mega(bytes)} on the WebGPU device, which takes ${mega(most)} at once`,
    "another card, or --engine wasm",
  );
}
