import { checkNearestCodeword } from "../check.js";
import { declareKernel } from "../device/device.js";
import type { DeviceMemory } from "../device/memory.js";
import { nearestOperations } from "../device/operations/codebook.js";
import { runWindows } from "../device/windows.js";
import type { Engine } from "../engine.js";

const MANY = declareKernel("codebook", "nearestMany", {
  reads: { vectors: "f32", codebook: "f32" },
  writes: { indices: "i32", distances: "f32" },
  numbers: { count: "u32", codewords: "u32" },
  constants: ["LENGTH"],
  samples: [[8], [3]],
});

/** Vectors of a group, 8 a thread. */
const HELD = 8 * MANY.threads;
/** Vectors from which on groups of so many fill a large card. */
const LEAST_VECTORS = 2 ** 19;
/** Longer vectors leave the registers no room. */
const MOST_LENGTH = 8;

/** The search for very many vectors with more of them a thread; otherwise what all devices do. */
export const manyNearestOperations = (
  memory: DeviceMemory,
  leastVectors = LEAST_VECTORS,
): Pick<Engine, "nearestCodeword"> => {
  const plain = nearestOperations(memory);
  return {
    nearestCodeword(vectors, codebook, previous) {
      const { count, vectorLength, codewords } = checkNearestCodeword(vectors, codebook, previous);
      if (vectorLength === 0 || vectorLength > MOST_LENGTH || count < leastVectors)
        return plain.nearestCodeword(vectors, codebook, previous);
      if (previous) memory.check(previous);
      const indices = memory.empty([count], "i32");
      const distances = memory.empty([count]);
      const division = { extent: count, each: [vectorLength, 0, 1, 1] };
      runWindows(memory, MANY, [vectors, codebook, indices, distances], division, (part) => ({
        groups: Math.ceil(part / HELD),
        numbers: [part, codewords],
        constants: [vectorLength],
      }));
      return { indices, distances };
    },
  };
};
