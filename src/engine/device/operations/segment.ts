import { usageError } from "../../../errors.js";
import { checkSegmentSum } from "../../check.js";
import type { Engine } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";

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

/** By a scan or a stable sort, so that the order of a sum is that of the vectors: what decides it are the extents and the indices. */
export const segmentOperations = (memory: DeviceMemory): Pick<Engine, "segmentSum"> => ({
  segmentSum(vectors, weights, indices, segments) {
    const { count, vectorLength: length } = checkSegmentSum(vectors, weights, indices, segments);
    memory.check(vectors, weights, indices);
    if (count === 0) return { sums: memory.create([segments, length]), totals: memory.create([segments]) };
    const sums = memory.empty([segments, length]);
    const totals = memory.empty([segments]);
    const fault = memory.fault((value, at) =>
      usageError(`segmentSum: expected indices within 0 .. ${segments - 1}, got ${value} at ${at}`),
    );
    if (segments > 0 && segments <= FEW_SEGMENTS && length > 0 && length <= SHORT && segments * count <= MOST_LOOKS) {
      memory.run(SCAN, {
        groups: segments,
        tensors: [vectors, weights, indices, sums, totals, fault.word],
        numbers: [count, segments, fault.number],
        constants: [length],
      });
      return { sums, totals };
    }
    const most = Math.min(MOST_CHUNKS, Math.ceil(count / CHUNK), Math.ceil((2 * count) / Math.max(1, segments)));
    const chunk = Math.ceil(count / most);
    const chunks = Math.ceil(count / chunk);
    const pieces = Math.min(MOST_PIECES, Math.max(1, Math.ceil(count / (PIECE * Math.max(1, segments)))));
    const grouped = Math.ceil(segments / THREADS);
    memory.scope(() => {
      const counts = memory.create([chunks, segments], "u32");
      memory.run(COUNT, {
        groups: chunks,
        tensors: [indices, counts, fault.word],
        numbers: [count, segments, chunk, fault.number],
      });
      if (segments === 0) return;
      const all = memory.empty([segments], "u32");
      const firsts = memory.empty([segments + 1], "u32");
      const order = memory.empty([count], "u32");
      const partial = memory.empty([segments, pieces, length + 1, 2]);
      memory.run(OFFSETS, { groups: grouped, tensors: [counts, all], numbers: [segments, chunks] });
      memory.run(FIRSTS, { groups: 1, tensors: [all, firsts], numbers: [segments] });
      memory.run(PLACE, {
        groups: chunks,
        tensors: [indices, firsts, counts, order],
        numbers: [count, segments, chunk],
      });
      memory.run(ADD, {
        groups: Math.ceil((segments * pieces * (length + 1)) / THREADS),
        tensors: [vectors, weights, firsts, order, partial],
        numbers: [segments, pieces, length],
      });
      memory.run(REDUCE, {
        groups: Math.ceil((segments * (length + 1)) / THREADS),
        tensors: [partial, sums, totals],
        numbers: [segments, pieces, length],
      });
    });
    return { sums, totals };
  },
});
