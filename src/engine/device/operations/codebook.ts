import type { F32 } from "../../../tensor/index.js";
import { checkNearestCodeword } from "../../check.js";
import type { Engine } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";
import { runWindows } from "../windows.js";

const COLUMNS = declareKernel("layout", "codebookColumns", {
  reads: { codebook: "f32" },
  writes: { books: "f32" },
  numbers: { codewords: "u32", length: "u32", stage: "u32", at: "u32" },
});
/** Constants of the kernels that search by groups (kernels/search): vectors of a group, v, stages, whether there is a beam. */
export const SEARCH_CONSTANTS = ["VECTORS", "LENGTH", "STAGES", "BEAM"];
const GROUPS = declareKernel("search", "nearestGroups", {
  reads: { vectors: "f32", books: "f32" },
  writes: { indices: "i32", distances: "f32" },
  numbers: { count: "u32", codewords: "u32" },
  constants: SEARCH_CONSTANTS,
  samples: [
    [8, 8, 1, 0],
    [1, 5, 1, 0],
  ],
});
const TILED = declareKernel("codebook", "nearestTiled", {
  reads: { vectors: "f32", codebook: "f32" },
  writes: { indices: "i32", distances: "f32" },
  numbers: { count: "u32", codewords: "u32" },
  constants: ["LENGTH", "HELD"],
  samples: [
    [8, 4],
    [6, 2],
    [16, 2],
    [1, 1],
  ],
});

const THREADS = 256;

/** Codebooks [C, v] as the searches take them: the C of each, exact in f32, then the columns of each, [v][C]. */
export function codebookColumns(memory: DeviceMemory, stages: readonly F32[]): F32 {
  let at = stages.length;
  const books = memory.empty([stages.reduce((sum, { size }) => sum + size, at)]);
  for (const [stage, codebook] of stages.entries()) {
    const [codewords, length] = codebook.shape;
    const groups = Math.ceil(codebook.size / THREADS);
    memory.run(COLUMNS, { groups, tensors: [codebook, books], numbers: [codewords, length, stage, at] });
    at += codebook.size;
  }
  return books;
}

/**
 * Vectors that a group searches for at once: the codebook passes through its processor once for all of them, but a large card
 * has over a hundred processors, and registers hold 64 elements.
 */
export function vectorsOfGroup(vectors: number, length: number): number {
  const most = Math.min(64 / length, vectors / 128);
  return most >= 8 ? 8 : most >= 4 ? 4 : most >= 2 ? 2 : 1;
}

/**
 * Vectors that a thread of `nearestTiled` holds; 0 where a search by groups is faster: long vectors, and few vectors in a large
 * codebook, all of which each thread would go through.
 */
function vectorsOfThread(vectors: number, length: number, codewords: number): number {
  if (length > 16 || vectors < (codewords <= 512 ? 256 : 16384)) return 0;
  if (vectors >= 2 ** 18 && length <= 8) return 4;
  return vectors >= 2 ** 17 ? 2 : 1;
}

export const nearestOperations = (memory: DeviceMemory): Pick<Engine, "nearestCodeword"> => ({
  nearestCodeword(vectors, codebook, previous) {
    const { count, vectorLength, codewords } = checkNearestCodeword(vectors, codebook, previous);
    if (previous) memory.check(previous);
    if (vectorLength === 0) return { indices: memory.create([count], "i32"), distances: memory.create([count]) };
    const indices = memory.empty([count], "i32");
    const distances = memory.empty([count]);
    const held = vectorsOfThread(count, vectorLength, codewords);
    const division = { extent: count, each: [vectorLength, 0, 1, 1] };
    if (held > 0) {
      const constants = [vectorLength, held];
      runWindows(memory, TILED, [vectors, codebook, indices, distances], division, (part) => {
        return { groups: Math.ceil(part / (held * THREADS)), numbers: [part, codewords], constants };
      });
    } else {
      const books = codebookColumns(memory, [codebook]);
      const width = vectorsOfGroup(count, vectorLength);
      const constants = [width, vectorLength, 1, 0];
      runWindows(memory, GROUPS, [vectors, books, indices, distances], division, (part) => {
        return { groups: Math.ceil(part / width), numbers: [part, codewords], constants };
      });
      books.dispose();
    }
    return { indices, distances };
  },
});
