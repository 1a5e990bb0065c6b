import { BitwrightError } from "../../errors.js";
import type { F32 } from "../../tensor/index.js";
import { checkGram, checkMatmul } from "../check.js";
import { declareKernel } from "../device/device.js";
import type { DeviceMemory } from "../device/memory.js";
import { elementGroups, elementwiseOperations } from "../device/operations/elementwise.js";
import type { Engine, Precision } from "../engine.js";
import type { Library } from "../koffi.js";
import { bind, CUBLAS, type Functions } from "./bindings.js";
import { addressOf, type CudaDevice } from "./device.js";
import type { HalfConversion } from "./halves.js";

const [PLAIN, TRANSPOSED] = [0, 1];
/** cudaDataType. */
const [R_32F, R_16F] = [0, 2];
/** cublasComputeType_t: CUBLAS_COMPUTE_32F, _FAST_TF32. */
const COMPUTE = { f32: 68, tf32: 77 } as const;
const DEFAULT_ALGORITHM = -1;
/** cuBLAS wants 32 MiB on Hopper; one workspace on one stream keeps results the same in each run. */
const WORKSPACE_BYTES = 2 ** 25;

const MIRROR = declareKernel("products", "mirror", { writes: { a: "f32" }, numbers: { n: "u32" } });

export class Cublas {
  readonly functions: Functions<typeof CUBLAS>;
  readonly handle: number;
  readonly version: number;

  constructor(
    private readonly device: CudaDevice,
    library: Library,
    workspace: number,
  ) {
    this.functions = bind(library, CUBLAS);
    const handle = new BigUint64Array(1);
    this.call("cublasCreate", handle);
    this.handle = Number(handle[0]);
    const version = new Int32Array(1);
    this.call("cublasGetVersion", this.handle, version);
    this.version = version[0];
    this.call("cublasSetStream", this.handle, device.stream);
    this.call("cublasSetWorkspace", this.handle, workspace, WORKSPACE_BYTES);
  }

  static readonly workspaceBytes = WORKSPACE_BYTES;

  call(name: keyof typeof CUBLAS, ...args: unknown[]): void {
    const { profile } = this.device;
    let status = 0;
    const run = () => {
      status = this.functions[name](...args) as number;
    };
    if (profile) profile.time(name, run);
    else run();
    if (status === 0) return;
    const words = String(this.functions.cublasGetStatusString(status));
    throw new BitwrightError(
      "unsupported",
      `${name} failed: ${words}`,
      `free memory on ${this.device.card.name}, or take another --engine`,
    );
  }

  close(): void {
    if (this.device.driver.lost) this.functions.cublasDestroy(this.handle);
    else this.call("cublasDestroy", this.handle);
  }
}

/** Products of less than so many rows, columns or terms are not worth a conversion. */
const LEAST_HALF = 16;

/**
 * Products by cuBLAS. It stores matrices by columns: the rows of ours are its columns, so C = A B is asked for as
 * C^T = B^T A^T, with both operands exchanged. In f16 a tensor is converted once, however many products it is in.
 */
export function productOperations(
  memory: DeviceMemory,
  cublas: Cublas,
  precision: Precision,
  { halvesOf }: HalfConversion,
): Pick<Engine, "matmul" | "gram"> {
  const { scaleRows } = elementwiseOperations(memory);
  const at = (tensor: F32): number => addressOf(memory.blockOf(tensor)) + tensor.byteOffset;
  const one = Float32Array.of(1);
  const [alphaCell, betaCell] = [new Float32Array(1), new Float32Array(1)];
  const halves = (tensor: F32): number => addressOf(halvesOf(tensor).block);

  return {
    matmul(a, b, options = {}) {
      const { batch, m, k, n, shape } = checkMatmul(a, b, options);
      memory.check(a, b);
      const { transposeA, transposeB, alpha = 1, accumulate, exact = false } = options;
      const result = accumulate ?? (k === 0 ? memory.create(shape) : memory.empty(shape));
      memory.noteWritten(memory.blockOf(result));
      if (batch * m * n * k === 0) return result;
      alphaCell[0] = alpha;
      betaCell[0] = accumulate ? 1 : 0;
      const inHalves = precision === "f16" && !exact && Math.min(m, n, k) >= LEAST_HALF;
      const [type, place] = inHalves ? ([R_16F, halves] as const) : ([R_32F, at] as const);
      const right = [place(b), type, transposeB ? k : n];
      const left = [place(a), type, transposeA ? m : k];
      const [opB, opA] = [transposeB ? TRANSPOSED : PLAIN, transposeA ? TRANSPOSED : PLAIN];
      const head = [cublas.handle, opB, opA, n, m, k, alphaCell];
      const tail = [precision === "tf32" && !exact ? COMPUTE.tf32 : COMPUTE.f32, DEFAULT_ALGORITHM];
      if (batch === 1) cublas.call("cublasGemmEx", ...head, ...right, ...left, betaCell, at(result), R_32F, n, ...tail);
      else {
        const out = [betaCell, at(result), R_32F, n, m * n, batch];
        cublas.call("cublasGemmStridedBatchedEx", ...head, ...right, k * n, ...left, m * k, ...out, ...tail);
      }
      return result;
    },

    gram(accumulator, x, weights) {
      const { rows, columns } = checkGram(accumulator, x, weights);
      memory.check(accumulator, x);
      if (rows * columns === 0) return;
      memory.scope(() => {
        const weighted = weights ? scaleRows(x, weights) : x;
        memory.noteWritten(memory.blockOf(accumulator));
        // statistics keep f32 whatever the precision: they decide every code that follows
        const shape = [cublas.handle, PLAIN, TRANSPOSED, columns, columns, rows, one, at(x), R_32F, columns];
        const out = [
          at(weighted),
          R_32F,
          columns,
          one,
          at(accumulator),
          R_32F,
          columns,
          COMPUTE.f32,
          DEFAULT_ALGORITHM,
        ];
        cublas.call("cublasGemmEx", ...shape, ...out);
        // the same sums may be taken in another order on both sides of the diagonal
        memory.run(MIRROR, { groups: elementGroups(columns * columns), tensors: [accumulator], numbers: [columns] });
      });
    },
  };
}
