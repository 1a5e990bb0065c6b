import { unsupportedError } from "../../../errors.js";
import type { F32 } from "../../../tensor/index.js";
import { type AttentionExtents, checkAttention } from "../../check.js";
import type { AttentionOptions, Engine } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";
import { inWindows } from "../windows.js";

const ATTEND_TILES = declareKernel("attention", "attendTiles", {
  reads: { q: "f32", k: "f32", v: "f32", slopes: "f32" },
  writes: { y: "f32" },
  numbers: {
    tokens: "u32",
    heads: "u32",
    keyHeads: "u32",
    size: "u32",
    capacity: "u32",
    keyLength: "u32",
    window: "u32",
    scale: "f32",
    sloped: "u32",
  },
  constants: ["SIZE"],
  samples: [[32], [64], [128], [256]],
  threads: 128,
});
const ATTEND_ROWS = declareKernel("attentionrows", "attendRows", {
  reads: { q: "f32", k: "f32", v: "f32", slopes: "f32" },
  writes: { y: "f32", stats: "f32" },
  numbers: {
    tokens: "u32",
    heads: "u32",
    keyHeads: "u32",
    size: "u32",
    capacity: "u32",
    keyLength: "u32",
    window: "u32",
    first: "u32",
    range: "u32",
    parts: "u32",
    scale: "f32",
    sloped: "u32",
  },
  constants: ["SIZE", "ROWS"],
  samples: [
    [32, 1],
    [64, 8],
    [128, 8],
    [256, 4],
  ],
});
const JOIN_PARTS = declareKernel("attentionrows", "joinParts", {
  reads: { sums: "f32", stats: "f32" },
  writes: { y: "f32" },
  numbers: { rows: "u32", size: "u32", parts: "u32" },
});

/** Queries, or keys of the gradients, of a group. */
export const TILE = 64;
/** Tokens up to which keys and values are read once for few rows instead of in tiles of queries. */
const FEW_TOKENS = 16;
/** Keys of a step of `attendRows`. */
const STEP = 64;
/** Groups that keep a card busy, and the parts to which positions are cut at most for them. */
const GROUPS = 1024;
const PARTS = 64;
const LARGEST = 256;

/** Head sizes that kernels are compiled for: a head is padded to the next. */
export function paddedSize(size: number): number {
  return Math.max(32, 2 ** Math.ceil(Math.log2(size)));
}

/** By items of the batch; `shapes` has a letter for each tensor: "q" where it has the queries' shape, "k" where the keys'. */
export function divisionOf({ batch, tokens, capacity, heads, keyValueHeads, size }: AttentionExtents, shapes: string) {
  const items: Readonly<Record<string, number>> = { q: tokens * heads * size, k: capacity * keyValueHeads * size };
  return { extent: batch, each: Array.from(shapes, (shape) => items[shape]) };
}

export function checkHeadSize(operation: string, size: number): void {
  if (size > LARGEST)
    throw unsupportedError(`${operation}: the kernels have heads of up to ${LARGEST}, got one of ${size}`);
}

export function attentionOperations(memory: DeviceMemory): Pick<Engine, "attention"> {
  /** Few queries of `batch` items over what may be many positions; how these are cut depends on the whole batch. */
  function attendRows(
    [q, k, v, y]: readonly F32[],
    batch: number,
    { scale, slopes }: AttentionOptions,
    extents: AttentionExtents,
  ): void {
    const { tokens, capacity, keyLength, heads, keyValueHeads, size, window } = extents;
    const padded = paddedSize(size);
    const rowsOfKeys = (tokens * heads) / keyValueHeads;
    const most = Math.min(8, 1024 / padded);
    const rows = Math.min(most, 2 ** Math.ceil(Math.log2(rowsOfKeys)));
    const ofItem = keyValueHeads * Math.ceil(rowsOfKeys / rows);
    const groups = extents.batch * ofItem;

    const first = Math.max(0, keyLength - tokens - window + 1); // nobody sees what is before
    const steps = Math.ceil((keyLength - first) / STEP);
    const stepsOfPart = steps <= 2 ? steps : Math.ceil(steps / Math.min(PARTS, Math.ceil(GROUPS / groups)));
    const parts = Math.ceil(steps / stepsOfPart);

    const sums = parts > 1 ? memory.empty([parts, q.size]) : y;
    const stats = memory.empty([parts, batch * tokens * heads, 2]);
    memory.run(ATTEND_ROWS, {
      groups: batch * ofItem * parts,
      tensors: [q, k, v, slopes ?? q, sums, stats],
      numbers: [
        ...[tokens, heads, keyValueHeads, size, capacity, keyLength, window, first, stepsOfPart * STEP, parts],
        ...[scale, slopes ? 1 : 0],
      ],
      constants: [padded, rows],
    });
    if (parts > 1) {
      memory.run(JOIN_PARTS, {
        groups: Math.ceil(q.size / 256),
        tensors: [sums, stats, y],
        numbers: [batch * tokens * heads, size, parts],
      });
      sums.dispose();
    }
    stats.dispose();
  }

  return {
    attention(q, k, v, options) {
      const extents = checkAttention(q, k, v, options);
      const { tokens, capacity, keyLength, heads, keyValueHeads, size, window } = extents;
      checkHeadSize("attention", size);
      memory.check(q, k, v);
      if (q.size === 0) return memory.empty(q.shape);
      const y = memory.empty(q.shape);
      const { scale, slopes } = options;
      inWindows(memory, [q, k, v, y], divisionOf(extents, "qkkq"), (tensors, batch) => {
        if (tokens <= FEW_TOKENS) {
          attendRows(tensors, batch, options, extents);
          return;
        }
        const [queries, keys, values, result] = tensors;
        memory.run(ATTEND_TILES, {
          groups: Math.ceil(tokens / TILE) * batch * heads,
          tensors: [queries, keys, values, slopes ?? queries, result],
          numbers: [tokens, heads, keyValueHeads, size, capacity, keyLength, window, scale, slopes ? 1 : 0],
          constants: [paddedSize(size)],
        });
      });
      return y;
    },
  };
}
