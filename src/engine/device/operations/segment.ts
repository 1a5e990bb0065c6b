import { usageError } from "../../../errors.js";
import type { F32, I32 } from "../../../tensor/index.js";
import { checkSegmentSum } from "../../check.js";
import type { Engine } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";
import { exceeds, inWindows } from "../windows.js";
import { layoutOperations } from "./layout.js";

const COUNT = declareKernel("segment", "segmentCount", {
  reads: { indices: "i32" },
  writes: { counts: "u32", fault: "i32" },
  numbers: { size: "u32", segments: "u32", chunk: "u32", check: "i32" },
});
const OFFSETS = declareKernel("segment", "segmentOffsets", {
  writes: { counts: "u32", totals: "u32" },
  numbers: { segments: "u32", chunks: "u32" },
});
const FIRSTS = declareKernel("segment", "segmentFirsts", {
  reads: { totals: "u32" },
  writes: { firsts: "u32" },
  numbers: { segments: "u32" },
});
const PLACE = declareKernel("segment", "segmentPlace", {
  reads: { indices: "i32", firsts: "u32" },
  writes: { counts: "u32", order: "u32" },
  numbers: { size: "u32", segments: "u32", chunk: "u32" },
});
const ADD = declareKernel("segment", "segmentAdd", {
  reads: { vectors: "f32", weights: "f32", firsts: "u32", order: "u32" },
  writes: { partial: "f32" },
  numbers: { segments: "u32", pieces: "u32", length: "u32" },
});
const REDUCE = declareKernel("segment", "segmentReduce", {
  reads: { partial: "f32" },
  writes: { sums: "f32", totals: "f32" },
  numbers: { segments: "u32", pieces: "u32", length: "u32" },
});

const SCAN = declareKernel("segment", "segmentScan", {
  reads: { vectors: "f32", weights: "f32", indices: "i32" },
  writes: { sums: "f32", totals: "f32", fault: "i32" },
  numbers: { size: "u32", segments: "u32", check: "i32" },
  constants: ["LENGTH"],
  samples: [[4], [8], [1]],
});

/** Few segments of short vectors, and indices that all of them together look at: a scan of all is one launch instead of six. */
const [FEW_SEGMENTS, SHORT, MOST_LOOKS] = [4096, 16, 2 ** 26];
const THREADS = 256;
/** Chunks that are counted and placed on their own: their counts may take twice the room of the vectors' positions. */
const MOST_CHUNKS = 1024;
const CHUNK = THREADS;
/** Vectors that one thread should add, and pieces of a segment at most. */
const PIECE = 64;
const MOST_PIECES = 1024;

interface Extents {
  count: number;
  segments: number;
}

/** By a scan or a stable sort, so that the order of a sum is that of the vectors: what decides it are the extents and the indices. */
export function segmentOperations(memory: DeviceMemory): Pick<Engine, "segmentSum"> {
  const { transpose } = layoutOperations(memory);
  type Target = { sums: F32; totals: F32 };

  /**
   * Calls `add` with the vectors, or, where these or their sums are too large, with some elements of all: the sums of elements do not see each
   * other.
   */
  function byElements(
    vectors: F32,
    length: number,
    { count, segments }: Extents,
    target: Target,
    add: (vectors: F32, length: number, target: Target) => void,
  ): void {
    if (!exceeds(memory, [vectors, target.sums])) {
      add(vectors, length, target);
      return;
    }
    memory.scope(() => {
      const elements = transpose(memory.view(vectors, [count, length]));
      const sums = memory.empty([length, segments]);
      inWindows(memory, [elements, sums], { extent: length, each: [count, segments] }, ([some, results], wide) => {
        const part = { sums: memory.empty([segments, wide]), totals: target.totals };
        add(transpose(memory.view(some, [wide, count])), wide, part);
        memory.copyInto(results, memory.view(transpose(part.sums), results.shape));
      });
      memory.copyInto(target.sums, memory.view(transpose(sums), target.sums.shape));
    });
  }

  /** Positions of the vectors, sorted by segment, and where those of each begin. */
  function sorted(indices: I32, { count, segments }: Extents, fault: { word: I32; number: number }) {
    const most = Math.min(MOST_CHUNKS, Math.ceil(count / CHUNK), Math.ceil((2 * count) / Math.max(1, segments)));
    const chunk = Math.ceil(count / most);
    const chunks = Math.ceil(count / chunk);
    const counts = memory.create([chunks, segments], "u32");
    memory.run(COUNT, {
      groups: chunks,
      tensors: [indices, counts, fault.word],
      numbers: [count, segments, chunk, fault.number],
    });
    const all = memory.empty([segments], "u32");
    const firsts = memory.empty([segments + 1], "u32");
    const order = memory.empty([count], "u32");
    if (segments === 0) return { firsts, order };
    const grouped = Math.ceil(segments / THREADS);
    memory.run(OFFSETS, { groups: grouped, tensors: [counts, all], numbers: [segments, chunks] });
    memory.run(FIRSTS, { groups: 1, tensors: [all, firsts], numbers: [segments] });
    memory.run(PLACE, {
      groups: chunks,
      tensors: [indices, firsts, counts, order],
      numbers: [count, segments, chunk],
    });
    counts.dispose();
    all.dispose();
    return { firsts, order };
  }

  return {
    segmentSum(vectors, weights, indices, segments) {
      const extents = checkSegmentSum(vectors, weights, indices, segments);
      const { count, vectorLength: length } = extents;
      memory.check(vectors, weights, indices);
      if (count === 0) return { sums: memory.create([segments, length]), totals: memory.create([segments]) };
      const target = { sums: memory.empty([segments, length]), totals: memory.empty([segments]) };
      const fault = memory.fault((value, at) =>
        usageError(`segmentSum: expected indices within 0 .. ${segments - 1}, got ${value} at ${at}`),
      );
      const scanned = segments > 0 && segments <= FEW_SEGMENTS && length > 0 && length <= SHORT;
      if (scanned && segments * count <= MOST_LOOKS) {
        byElements(vectors, length, { count, segments }, target, (some, wide, { sums, totals }) =>
          memory.run(SCAN, {
            groups: segments,
            tensors: [some, weights, indices, sums, totals, fault.word],
            numbers: [count, segments, fault.number],
            constants: [wide],
          }),
        );
        return target;
      }
      const pieces = Math.min(MOST_PIECES, Math.max(1, Math.ceil(count / (PIECE * Math.max(1, segments)))));
      memory.scope(() => {
        const { firsts, order } = sorted(indices, { count, segments }, fault);
        if (segments === 0) return;
        byElements(vectors, length, { count, segments }, target, (some, wide, { sums, totals }) => {
          const partial = memory.empty([segments, pieces, wide + 1, 2]);
          memory.run(ADD, {
            groups: Math.ceil((segments * pieces * (wide + 1)) / THREADS),
            tensors: [some, weights, firsts, order, partial],
            numbers: [segments, pieces, wide],
          });
          memory.run(REDUCE, {
            groups: Math.ceil((segments * (wide + 1)) / THREADS),
            tensors: [partial, sums, totals],
            numbers: [segments, pieces, wide],
          });
        });
      });
      return target;
    },
  };
}
