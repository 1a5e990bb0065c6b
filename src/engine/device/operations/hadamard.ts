import { checkHadamard } from "../../check.js";
import type { Engine } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";
import { inWindows } from "../windows.js";

// A group transforms up to 14 bits of the index, in registers and shared memory; what rows have more of is done in place.
// PARTS: 4096 elements of a group each.
const HADAMARD = declareKernel("hadamard", "hadamard", {
  reads: { x: "f32" },
  writes: { y: "f32" },
  numbers: { size: "u32", bits: "u32", factor: "f32" },
  constants: ["PARTS"],
  samples: [[1], [2], [4]],
});
const HADAMARD_ACROSS = declareKernel("hadamard", "hadamardAcross", {
  writes: { y: "f32" },
  numbers: { columns: "u32", stride: "u32", bits: "u32" },
});

/** Bits of the index that one group transforms at most, and elements that it takes at least. */
const GROUP_BITS = 14;
const PART = 4096;
/** Bits of the index that one thread of `hadamardAcross` transforms at most. */
const ACROSS_BITS = 4;
const THREADS = 256;

export const hadamardOperations = (memory: DeviceMemory): Pick<Engine, "hadamard"> => ({
  hadamard(x) {
    const { width } = checkHadamard(x);
    const y = memory.empty(x.shape);
    const { size } = x;
    const bits = width > 0 ? Math.log2(width) : 0;
    const within = Math.min(bits, GROUP_BITS);
    const parts = Math.max(1, 2 ** within / PART);
    // whole groups, and whole rows
    const step = Math.max(width, parts * PART);
    inWindows(memory, [x, y], { extent: size, step, each: [step, step] }, ([from, to], count) => {
      const numbers = [count, within, 1 / Math.sqrt(width)];
      const groups = Math.ceil(count / (parts * PART));
      memory.run(HADAMARD, { groups, tensors: [from, to], numbers, constants: [parts] });
      for (let done = within; done < bits; done += ACROSS_BITS) {
        const more = Math.min(ACROSS_BITS, bits - done);
        const columns = count / 2 ** more;
        const call = { tensors: [to], numbers: [columns, 2 ** done, more] };
        memory.run(HADAMARD_ACROSS, { groups: Math.ceil(columns / THREADS), ...call });
      }
    });
    return y;
  },
});
