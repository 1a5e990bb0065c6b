import type { DType, Tensor } from "../../../tensor/index.js";
import { checkCast } from "../../check.js";
import type { Engine } from "../../engine.js";
import { declareKernel, type KernelDeclaration } from "../device.js";
import type { DeviceMemory } from "../memory.js";
import { runElements } from "./elementwise.js";

/** Constant KIND of the kernels for 16 bits. */
const KINDS: Readonly<Partial<Record<DType, number>>> = { f16: 0, bf16: 1, u16: 2 };

// f32 is declared as u32: its bits are converted
const kernel = (name: string, from: DType, to: DType, constants: readonly string[] = []) =>
  declareKernel("cast", name, {
    reads: { a: from },
    writes: { y: to },
    numbers: { size: "u32" },
    constants,
    samples: constants.length > 0 ? Object.values(KINDS).map((kind) => [kind]) : undefined,
  });

const FROM_16 = kernel("castFrom16", "u16", "u32", ["KIND"]);
const FROM_8 = kernel("castFrom8", "u8", "u32");
const FROM_I32 = kernel("castFromI32", "i32", "u32");
const TO_16 = kernel("castTo16", "u32", "u16", ["KIND"]);
const TO_8 = kernel("castTo8", "u32", "u8");
const TO_I32 = kernel("castToI32", "u32", "i32");

/** By the type that is not f32. */
const kernels = (i32: KernelDeclaration, u8: KernelDeclaration, other: KernelDeclaration) => (dtype: DType) =>
  dtype === "i32" ? i32 : dtype === "u8" ? u8 : other;
const fromOther = kernels(FROM_I32, FROM_8, FROM_16);
const toOther = kernels(TO_I32, TO_8, TO_16);

export const castOperations = (memory: DeviceMemory): Pick<Engine, "cast"> => ({
  cast<D extends DType>(tensor: Tensor, dtype: D): Tensor<D> {
    checkCast(tensor.dtype, dtype);
    const y = memory.empty(tensor.shape, dtype);
    const other = dtype === "f32" ? tensor.dtype : dtype;
    const kind = KINDS[other];
    const constants = kind === undefined ? [] : [kind];
    runElements(memory, dtype === "f32" ? fromOther(other) : toOther(other), [tensor, y], [], constants);
    return y;
  },
});
