import type { F32 } from "../../tensor/index.js";
import { type Binding, declareKernel } from "../device/device.js";
import type { DeviceMemory } from "../device/memory.js";
import { elementGroups } from "../device/operations/elementwise.js";
import { overflowWord } from "../device/operations/overflow.js";

const HALVES = declareKernel("products", "halves", {
  reads: { x: "f32" },
  writes: { y: "f16", overflow: "i32" },
  numbers: { size: "u32" },
});

export type HalfConversion = ReturnType<typeof halfConversion>;

/** Operands in f16 for the tensor cores; a tensor is converted once, however many operations it is in. */
export function halfConversion(memory: DeviceMemory) {
  const { overflow, overflowed } = overflowWord(memory);
  return {
    overflowed,
    /** A tensor's elements in f16, from a multiple of 16 bytes on; there until the tensor is written or freed. */
    halvesOf(tensor: F32): Binding {
      const bytes = 2 * tensor.size;
      const block = memory.derivedFrom(tensor, bytes, (made) =>
        memory.runOn(HALVES, { groups: elementGroups(tensor.size), numbers: [tensor.size] }, [
          memory.bindingOf(tensor),
          { block: made, byteOffset: 0, bytes },
          memory.bindingOf(overflow),
        ]),
      );
      return { block, byteOffset: 0, bytes };
    },
  };
}
