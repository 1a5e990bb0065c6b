import type { F32 } from "../../../tensor/index.js";
import { checkAttentionGrad } from "../../check.js";
import type { Engine } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";
import { inWindows } from "../windows.js";
import { checkHeadSize, divisionOf, paddedSize, TILE } from "./attention.js";

const NUMBERS = {
  tokens: "u32",
  heads: "u32",
  keyHeads: "u32",
  size: "u32",
  window: "u32",
  scale: "f32",
  sloped: "u32",
} as const;
const SIZES = { constants: ["SIZE"], samples: [[32], [64], [128], [256]] } as const;

const QUERIES = declareKernel("attention", "attendGradQueries", {
  reads: { q: "f32", k: "f32", v: "f32", output: "f32", grad: "f32", slopes: "f32" },
  writes: { y: "f32", stats: "f32" },
  numbers: NUMBERS,
  threads: 128,
  ...SIZES,
});
const KEYS = declareKernel("attention", "attendGradKeys", {
  reads: { q: "f32", k: "f32", v: "f32", grad: "f32", slopes: "f32", stats: "f32" },
  writes: { keyGrad: "f32", valueGrad: "f32" },
  numbers: NUMBERS,
  threads: 256,
  ...SIZES,
});
/** Adds what heads that share a key-value head have made, in their order. */
export const SUM_HEADS = declareKernel("attentionrows", "sumHeads", {
  reads: { a: "f32", b: "f32" },
  writes: { y: "f32", z: "f32" },
  numbers: { count: "u32", size: "u32", sharing: "u32" },
});

/** Scores are computed again, in tiles: once for q and the numbers of each row, once for k and v. */
export const attentionGradOperations = (memory: DeviceMemory): Pick<Engine, "attentionGrad"> => ({
  attentionGrad(q, k, v, output, grad, options) {
    const extents = checkAttentionGrad(q, k, v, output, grad, options);
    const { tokens, heads, keyValueHeads, size, window } = extents;
    checkHeadSize("attentionGrad", size);
    memory.check(q, k, v, output, grad);
    if (q.size === 0) return { q: memory.empty(q.shape), k: memory.create(k.shape), v: memory.create(v.shape) };

    const numbers = [tokens, heads, keyValueHeads, size, window, options.scale, options.slopes ? 1 : 0];
    const constants = [paddedSize(size)];
    const gradients = { q: memory.empty(q.shape), k: memory.empty(k.shape), v: memory.empty(v.shape) };
    const attend = ([queries, keys, values, result, given, ...to]: readonly F32[], batch: number) => {
      const groups = Math.ceil(tokens / TILE) * batch * heads;
      const slopes = options.slopes ?? queries;
      const stats = memory.empty([batch * heads, tokens, 3]);
      memory.run(QUERIES, {
        groups,
        tensors: [queries, keys, values, result, given, slopes, to[0], stats],
        numbers,
        constants,
      });

      const shared = heads / keyValueHeads;
      const ofKeys = shared > 1 ? memory.empty(queries.shape) : to[1];
      const ofValues = shared > 1 ? memory.empty(queries.shape) : to[2];
      const tensors = [queries, keys, values, given, slopes, stats, ofKeys, ofValues];
      memory.run(KEYS, { groups, tensors, numbers, constants });
      stats.dispose();
      if (shared === 1) return;
      memory.run(SUM_HEADS, {
        groups: Math.ceil(keys.size / 256),
        tensors: [ofKeys, ofValues, to[1], to[2]],
        numbers: [keys.size, size, shared],
      });
      ofKeys.dispose();
      ofValues.dispose();
    };
    const tensors = [q, k, v, output, grad, gradients.q, gradients.k, gradients.v];
    inWindows(memory, tensors, divisionOf(extents, "qkkqqqkk"), attend);
    return gradients;
  },
});
