import { addressOf, type CudaDevice } from "../../../src/engine/cuda/device.js";
import { Cublas } from "../../../src/engine/cuda/products.js";
import type { DeviceMemory } from "../../../src/engine/device/memory.js";
import type { Precision } from "../../../src/engine/engine.js";
import type { Library } from "../../../src/engine/koffi.js";
import type { F32, Tensor } from "../../../src/tensor/index.js";

const [PLAIN, TRANSPOSED] = [0, 1];
/** cudaDataType and cublasComputeType_t. */
const [R_32F, R_16F] = [0, 2];
const COMPUTE = { f32: 68, tf32: 77, f16: 68 } as const;
const DEFAULT_ALGORITHM = -1;

/** Products by bare calls of cuBLAS, with a handle and a workspace of their own, on the engine's stream. */
export class BareCublas {
  private readonly cublas: Cublas;
  private readonly workspace;

  constructor(
    private readonly memory: DeviceMemory,
    private readonly device: CudaDevice,
    library: Library,
  ) {
    this.workspace = device.allocate(Cublas.workspaceBytes);
    this.cublas = new Cublas(device, library, addressOf(this.workspace));
  }

  /** y [m, n] = x [m, k] w^T, w [n, k]; x and w are f16 for "f16", else f32. */
  product(x: Tensor, w: Tensor, y: F32, precision: Precision): void {
    const [[m, k], [n]] = [x.shape, w.shape];
    const at = (tensor: Tensor) => addressOf(this.memory.blockOf(tensor)) + tensor.byteOffset;
    const type = precision === "f16" ? R_16F : R_32F;
    const head = [this.cublas.handle, TRANSPOSED, PLAIN, n, m, k, Float32Array.of(1)];
    const operands = [at(w), type, k, at(x), type, k];
    const tail = [Float32Array.of(0), at(y), R_32F, n, COMPUTE[precision], DEFAULT_ALGORITHM];
    this.cublas.call("cublasGemmEx", ...head, ...operands, ...tail);
  }

  close(): void {
    this.cublas.close();
    this.device.release(this.workspace);
  }
}
