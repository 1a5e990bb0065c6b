import {
  bf16ToF32,
  type DType,
  f16ToF32,
  f32ToBF16,
  f32ToF16,
  type HostArray,
  type Tensor,
} from "../../tensor/index.js";
import { checkCast } from "../check.js";
import type { Engine } from "../engine.js";
import type { EngineMemory } from "../memory.js";

const WHOLE = { i32: [-(2 ** 31), 2 ** 31 - 1], u16: [0, 65535], u8: [0, 255] } as const;

export const castOperations = (memory: EngineMemory): Pick<Engine, "cast"> => ({
  cast<D extends DType>(tensor: Tensor, dtype: D): Tensor<D> {
    checkCast(tensor.dtype, dtype);
    const source = memory.host(tensor);
    const result = memory.empty(tensor.shape, dtype);
    convert(source, tensor.dtype, memory.host(result), dtype);
    return result;
  },
});

function convert(source: HostArray, from: DType, target: HostArray, to: DType): void {
  if (from === "f16") f16ToF32(source as Uint16Array, target as Float32Array);
  else if (from === "bf16") bf16ToF32(source as Uint16Array, target as Float32Array);
  else if (to === "f16") f32ToF16(source as Float32Array, target as Uint16Array);
  else if (to === "bf16") f32ToBF16(source as Float32Array, target as Uint16Array);
  else if (to === "i32" || to === "u16" || to === "u8") {
    const [low, high] = WHOLE[to];
    // NaN becomes 0 when it is stored
    for (let i = 0; i < source.length; i++) target[i] = Math.min(high, Math.max(low, Math.trunc(source[i])));
  } else target.set(source);
}
