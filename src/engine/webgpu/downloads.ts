const READABLE = 0x1 | 0x8; // GPUBufferUsage.MAP_READ | COPY_DST, which Node does not define
const MAP_READ = 1; // GPUMapMode.READ
/** Buffers below this are of one size, and kept for the next time. */
const KEPT = 2 ** 16;

/** Takes bytes out of buffers of the device. */
export class Downloads {
  private readonly waiting: GPUBuffer[] = [];

  constructor(private readonly device: GPUDevice) {}

  /** Enqueues a copy to a buffer that the host can map. The result is to be called when it was submitted. */
  begin(
    encoder: GPUCommandEncoder,
    source: GPUBuffer,
    byteOffset: number,
    bytes: number,
  ): () => Promise<Uint8Array<ArrayBuffer>> {
    // whole words are copied
    const skip = byteOffset % 4;
    const size = Math.ceil((skip + bytes) / 4) * 4;
    const small = size <= KEPT;
    const staging =
      (small && this.waiting.pop()) || this.device.createBuffer({ size: small ? KEPT : size, usage: READABLE });
    encoder.copyBufferToBuffer(source, byteOffset - skip, staging, 0, size);
    return async () => {
      await staging.mapAsync(MAP_READ, 0, size);
      const data = new Uint8Array(staging.getMappedRange(0, size)).slice(skip, skip + bytes);
      staging.unmap();
      if (small) this.waiting.push(staging);
      else staging.destroy();
      return data;
    };
  }
}
