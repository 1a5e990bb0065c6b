import { checkNearestCodeword } from "../check.js";
import { declareKernel } from "../device/device.js";
import type { DeviceMemory } from "../device/memory.js";
import { codebookColumns, nearestOperations, SEARCH_CONSTANTS, vectorsOfGroup } from "../device/operations/codebook.js";
import type { Engine } from "../engine.js";

const SAMPLES = [[8], [6], [4], [2], [12]];
const LARGEST = declareKernel("tensorsearch", "largestBits", {
  reads: { x: "f32" },
  writes: { largest: "u32" },
  numbers: { size: "u32" },
  constants: ["LENGTH"],
  samples: [[8]],
});
const FRAGMENTS = declareKernel("tensorsearch", "codebookFragments", {
  reads: { codebook: "f32", largest: "u32" },
  writes: { fragments: "u32" },
  numbers: { codewords: "u32", tiles: "u32" },
  constants: ["LENGTH"],
  samples: SAMPLES,
});
const NEAREST = declareKernel("tensorsearch", "nearestTensor", {
  reads: { vectors: "f32", codebook: "f32", largest: "u32", fragments: "u32" },
  writes: { indices: "i32", distances: "f32", list: "i32", listed: "u32" },
  numbers: { count: "u32", codewords: "u32", tiles: "u32" },
  constants: ["LENGTH"],
  samples: SAMPLES,
});
const LISTED = declareKernel("search", "nearestListed", {
  reads: { vectors: "f32", books: "f32", list: "i32", listed: "u32" },
  writes: { indices: "i32", distances: "f32" },
  numbers: { codewords: "u32" },
  constants: SEARCH_CONSTANTS,
  samples: [
    [8, 8, 1, 0],
    [4, 12, 1, 0],
  ],
});

/** Pairs from which on the tensor cores pay. */
const LEAST_PAIRS = 2 ** 27;
/** Codewords that a warp goes through between two comparisons of runs. */
const RUN_CODEWORDS = 128;
/** What the registers of `nearestTensor` were laid out for. */
const MOST_LENGTH = 12;
const THREADS = 256;
/** Vectors that a group of `nearestTensor` holds. */
const VECTORS_OF_GROUP = 512;
/** Groups that share a list: about as many as a large card runs at once. */
const LIST_GROUPS = 264;

/** The search for many vectors in a large codebook by the tensor cores; otherwise what all devices do. */
export const tensorNearestOperations = (memory: DeviceMemory): Pick<Engine, "nearestCodeword"> => {
  const plain = nearestOperations(memory);
  return {
    nearestCodeword(vectors, codebook, previous) {
      const { count, vectorLength, codewords } = checkNearestCodeword(vectors, codebook, previous);
      if (vectorLength < 2 || vectorLength > MOST_LENGTH || count * codewords < LEAST_PAIRS)
        return plain.nearestCodeword(vectors, codebook, previous);
      if (previous) memory.check(previous);
      const indices = memory.empty([count], "i32");
      const distances = memory.empty([count]);
      memory.scope(() => {
        const constants = [vectorLength];
        const largest = memory.create([1], "u32");
        for (const x of [vectors, codebook])
          memory.run(LARGEST, {
            groups: Math.ceil(x.size / 4096),
            tensors: [x, largest],
            numbers: [x.size],
            constants,
          });
        const tiles = (Math.ceil(codewords / RUN_CODEWORDS) * RUN_CODEWORDS) / 8;
        const words = Math.ceil((2 * vectorLength) / 8);
        const fragments = memory.empty([tiles * (32 * words + 8)], "u32");
        memory.run(FRAGMENTS, {
          groups: Math.ceil(tiles / (THREADS / 32)),
          tensors: [codebook, largest, fragments],
          numbers: [codewords, tiles],
          constants,
        });
        const list = memory.empty([count], "i32");
        const listed = memory.create([1], "u32");
        memory.run(NEAREST, {
          groups: Math.ceil(count / VECTORS_OF_GROUP),
          tensors: [vectors, codebook, largest, fragments, indices, distances, list, listed],
          numbers: [count, codewords, tiles],
          constants,
        });
        const held = vectorsOfGroup(count, vectorLength);
        memory.run(LISTED, {
          groups: LIST_GROUPS, // the list may be empty or hold all
          tensors: [vectors, codebookColumns(memory, [codebook]), list, listed, indices, distances],
          numbers: [codewords],
          constants: [held, vectorLength, 1, 0],
        });
      });
      return { indices, distances };
    },
  };
};
