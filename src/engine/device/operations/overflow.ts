import type { I32 } from "../../../tensor/index.js";
import type { Engine } from "../../engine.js";
import type { DeviceMemory } from "../memory.js";

/** The word in which kernels note a finite element that is too large for f16: not 0 from then until it was asked for. */
export function overflowWord(memory: DeviceMemory): Pick<Engine, "overflowed"> & { overflow: I32 } {
  const overflow = memory.keep(memory.create([1], "i32"));
  return {
    overflow,
    async overflowed() {
      const [seen] = await memory.read(overflow);
      if (seen !== 0) memory.write(overflow, Int32Array.of(0));
      return seen !== 0;
    },
  };
}
