import type { DType, Tensor } from "../../tensor/index.js";
import { checkCast } from "../check.js";
import { EngineMemory, type MemoryBlock } from "../memory.js";
import type { WasmRuntime } from "./runtime.js";

/** Kernels of assembly/cast.ts by "from to". */
const CASTS: Readonly<Record<string, string>> = {
  "f32 f16": "f32ToF16",
  "f32 bf16": "f32ToBf16",
  "f32 i32": "f32ToI32",
  "f32 u16": "f32ToU16",
  "f32 u8": "f32ToU8",
  "f16 f32": "f16ToF32",
  "bf16 f32": "bf16ToF32",
  "i32 f32": "i32ToF32",
  "u16 f32": "u16ToF32",
  "u8 f32": "u8ToF32",
};

/** Elements of a unit of the elementwise kernels. */
export const BLOCK = 4096;

/** Tensors in the memory of a runtime. */
export class WasmMemory extends EngineMemory {
  constructor(readonly runtime: WasmRuntime) {
    super();
  }

  protected override allocate(bytes: number): MemoryBlock {
    const { runtime } = this;
    const address = runtime.allocate(bytes);
    return { memory: runtime.buffer, address, release: () => runtime.release(address) };
  }

  cast<D extends DType>(tensor: Tensor, dtype: D): Tensor<D> {
    checkCast(tensor.dtype, dtype);
    const source = this.address(tensor);
    const target = this.empty(tensor.shape, dtype);
    const args = [this.address(target), source, tensor.size];
    this.runtime.run(CASTS[`${tensor.dtype} ${dtype}`], Math.ceil(tensor.size / BLOCK), 8, args, 64);
    return target;
  }

  override async close(): Promise<void> {
    await super.close();
    await this.runtime.close();
  }
}
