import type { DType, HostArray, Tensor } from "../../tensor/index.js";
import type { WasmRuntime } from "./runtime.js";

/** What the operations of the wasm engine build upon: `xOperations(context)` returns the engine's methods of one field. */
export interface WasmContext {
  readonly runtime: WasmRuntime;
  /** A new tensor of undefined contents in the current scope. */
  empty<D extends DType = "f32">(shape: readonly number[], dtype?: D): Tensor<D>;
  /** Address of the first element. Throws "usage" for a tensor that was disposed or that another engine made. */
  address(tensor: Tensor): number;
  /** The elements in place: for short host-side reads and writes between kernels. */
  view<D extends DType>(tensor: Tensor<D>): HostArray<D>;
}
