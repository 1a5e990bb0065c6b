import type { Failures } from "./failures.js";
import { WINDOW } from "./pipelines.js";

const UNIFORM = 0x40 | 0x8; // GPUBufferUsage.UNIFORM | COPY_DST, which Node does not define

/** A submission costs about 20 microseconds and starts the card: not one for each kernel, nor one for all. */
const MOST_KERNELS = 64;
/** Systems stop a card that works on one submission for seconds: many large tensors end one. */
const MOST_BYTES = 2 ** 30;

/** Commands that wait for their submission, and the numbers of their kernels. */
export class Commands {
  /** Counts submissions: an object that was last used in this one has not been submitted. */
  batch = 1;
  readonly numbers: GPUBuffer;
  private readonly host: ArrayBuffer;
  private readonly words: Uint32Array;
  private readonly floats: Float32Array;
  private readonly stride: number;
  private kernels = 0;
  private bytes = 0;
  private encoder: GPUCommandEncoder | undefined;
  private pass: GPUComputePassEncoder | undefined;

  constructor(
    private readonly device: GPUDevice,
    private readonly failures: Failures,
  ) {
    const step = device.limits.minUniformBufferOffsetAlignment;
    this.stride = Math.ceil(WINDOW / step) * step;
    this.host = new ArrayBuffer(MOST_KERNELS * this.stride);
    this.words = new Uint32Array(this.host);
    this.floats = new Float32Array(this.host);
    this.numbers = device.createBuffer({ label: "numbers", size: this.host.byteLength, usage: UNIFORM });
  }

  /**
   * Where the numbers of the next kernel go: index of the first word, in `words` for whole numbers and `floats` for the
   * others, and its byte offset in the buffer.
   */
  slot(): { words: Uint32Array; floats: Float32Array; at: number; byteOffset: number } {
    const byteOffset = this.kernels * this.stride;
    return { words: this.words, floats: this.floats, at: byteOffset / 4, byteOffset };
  }

  /** Enqueues the kernel whose numbers were written to the slot. */
  dispatch(
    pipeline: GPUComputePipeline,
    bindGroup: GPUBindGroup,
    byteOffset: number,
    groups: number,
    bytes: number,
  ): void {
    this.pass ??= this.current().beginComputePass();
    this.pass.setPipeline(pipeline);
    this.pass.setBindGroup(0, bindGroup, [byteOffset]);
    const rows = Math.ceil(groups / this.device.limits.maxComputeWorkgroupsPerDimension);
    this.pass.dispatchWorkgroups(Math.ceil(groups / rows), rows);
    this.kernels++;
    this.bytes += bytes;
    if (this.kernels === MOST_KERNELS || this.bytes > MOST_BYTES) this.flush();
  }

  /** For copies: the encoder between two passes. */
  transfer(): GPUCommandEncoder {
    this.endPass();
    return this.current();
  }

  /** Submits what waits. */
  flush(): void {
    if (this.encoder === undefined) return;
    this.endPass();
    if (this.kernels > 0) this.device.queue.writeBuffer(this.numbers, 0, this.host, 0, this.kernels * this.stride);
    this.device.queue.submit([this.encoder.finish()]);
    this.encoder = undefined;
    this.kernels = 0;
    this.bytes = 0;
    this.batch++;
    this.failures.turn();
  }

  /** Forgets what waits. */
  drop(): void {
    this.endPass();
    this.encoder = undefined;
  }

  private current(): GPUCommandEncoder {
    if (this.encoder === undefined) {
      this.encoder = this.device.createCommandEncoder();
      // the card shall not wait while the program waits for something else
      queueMicrotask(() => this.flush());
    }
    return this.encoder;
  }

  private endPass(): void {
    this.pass?.end();
    this.pass = undefined;
  }
}
