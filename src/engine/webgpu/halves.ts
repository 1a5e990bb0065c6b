import type { F32 } from "../../tensor/index.js";
import { type Binding, declareKernel } from "../device/device.js";
import type { DeviceMemory } from "../device/memory.js";
import { elementGroups } from "../device/operations/elementwise.js";
import { overflowWord } from "../device/operations/overflow.js";
import type { Engine } from "../engine.js";

// f32 is declared as u32: its bits are looked at
const PACK = declareKernel("halves", "packHalves", {
  reads: { x: "u32" },
  writes: { y: "f16", overflow: "i32" },
  numbers: { size: "u32" },
});
const NOTE = declareKernel("halves", "noteOverflow", {
  reads: { x: "u32" },
  writes: { overflow: "i32" },
  numbers: { size: "u32" },
});

/** Operands of products in f16. */
export interface HalfConversion extends Pick<Engine, "overflowed"> {
  /** A tensor's elements in f16, in whole words of 16 bytes; there until the tensor is written or freed. */
  packedOf(tensor: F32): Binding;
  /** Notes what is too large for f16 in an operand that a kernel rounds on the way. */
  lookThrough(tensor: F32): void;
}

export function halfConversion(memory: DeviceMemory): HalfConversion {
  const { overflow, overflowed } = overflowWord(memory);
  return {
    packedOf(tensor) {
      const bytes = Math.max(1, Math.ceil(tensor.size / 8)) * 16;
      const block = memory.derivedFrom(tensor, bytes, (made) =>
        memory.runOn(PACK, { groups: Math.ceil(bytes / 4 / 1024), numbers: [tensor.size] }, [
          memory.bindingOf(tensor),
          { block: made, byteOffset: 0, bytes },
          memory.bindingOf(overflow),
        ]),
      );
      return { block, byteOffset: 0, bytes };
    },

    lookThrough(tensor) {
      const groups = elementGroups(tensor.size);
      memory.run(NOTE, { groups, tensors: [tensor, overflow], numbers: [tensor.size] });
    },

    overflowed,
  };
}
