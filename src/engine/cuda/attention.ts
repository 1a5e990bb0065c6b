import type { F32 } from "../../tensor/index.js";
import { type AttentionExtents, checkAttention, checkAttentionGrad } from "../check.js";
import { declareKernel } from "../device/device.js";
import type { DeviceMemory } from "../device/memory.js";
import { attentionOperations } from "../device/operations/attention.js";
import { attentionGradOperations, SUM_HEADS } from "../device/operations/attention-grad.js";
import type { Engine } from "../engine.js";
import type { HalfConversion } from "./halves.js";

const THREADS = 128;
const COMPILED = { constants: ["SIZE"], samples: [[32], [64], [96], [128]], threads: THREADS } as const;
const HEADS = { tokens: "u32", heads: "u32", keyHeads: "u32", size: "u32" } as const;
const RULE = { window: "u32", scale: "f32", sloped: "u32" } as const;

const ATTEND = declareKernel("tensorattention", "attendTensor", {
  reads: { q: "f16", k: "f16", v: "f16", slopes: "f32" },
  writes: { y: "f32" },
  numbers: { ...HEADS, capacity: "u32", keyLength: "u32", ...RULE },
  ...COMPILED,
});
const LARGEST = declareKernel("halfgrads", "largestOfBoth", {
  reads: { grad: "f32", v: "f32" },
  writes: { largest: "u32" },
  numbers: { gradSize: "u32", valueSize: "u32" },
});
const HALF_GRADS = declareKernel("halfgrads", "halfGrads", {
  reads: { grad: "f32", output: "f32", largest: "u32" },
  writes: { half: "f16", stats: "f32", scales: "f32" },
  numbers: { rows: "u32", tokens: "u32", heads: "u32", size: "u32", padded: "u32" },
});
const QUERIES = declareKernel("tensorattention", "attendTensorGradQueries", {
  reads: { q: "f16", k: "f16", v: "f16", grad: "f16", slopes: "f32", scales: "f32" },
  writes: { stats: "f32", y: "f32" },
  numbers: { ...HEADS, padded: "u32", ...RULE },
  ...COMPILED,
});
const KEYS = declareKernel("tensorattention", "attendTensorGradKeys", {
  reads: { q: "f16", k: "f16", v: "f16", grad: "f16", slopes: "f32", scales: "f32", stats: "f32" },
  writes: { keyGrad: "f32", valueGrad: "f32" },
  numbers: { ...HEADS, padded: "u32", ...RULE },
  ...COMPILED,
});

/** Rows of a group: 16 a warp. */
const ROWS = THREADS / 2;
/** Up to so many tokens the f32 kernels read keys and values as they are; conversions would cost more. */
const FEW_TOKENS = 16;
const [LEAST_SIZE, LARGEST_SIZE] = [16, 128];

/** Rows of heads are copied 16 bytes at a time. */
const fits = ({ tokens, size }: AttentionExtents) =>
  tokens > FEW_TOKENS && size % 8 === 0 && size >= LEAST_SIZE && size <= LARGEST_SIZE;

const paddedSize = (size: number) => Math.ceil(size / 32) * 32;

/** Attention with operands in f16 and sums in f32, for whole sequences; what does not fit goes the way of all devices. */
export function tensorAttentionOperations(
  memory: DeviceMemory,
  { halvesOf }: HalfConversion,
): Pick<Engine, "attention" | "attentionGrad"> {
  const plain = { ...attentionOperations(memory), ...attentionGradOperations(memory) };

  return {
    attention(q, k, v, options) {
      const extents = checkAttention(q, k, v, options);
      const { batch, tokens, capacity, keyLength, heads, keyValueHeads, size, window } = extents;
      if (q.size === 0 || !fits(extents)) return plain.attention(q, k, v, options);
      memory.check(q, k, v);
      const { scale, slopes } = options;
      const y = memory.empty(q.shape);
      memory.runOn(
        ATTEND,
        {
          groups: Math.ceil(tokens / ROWS) * batch * heads,
          numbers: [tokens, heads, keyValueHeads, size, capacity, keyLength, window, scale, slopes ? 1 : 0],
          constants: [paddedSize(size)],
        },
        [...[q, k, v].map(halvesOf), memory.bindingOf(slopes ?? q), memory.bindingOf(y)],
      );
      return y;
    },

    attentionGrad(q, k, v, output, grad, options) {
      const extents = checkAttentionGrad(q, k, v, output, grad, options);
      const { batch, tokens, heads, keyValueHeads, size, window } = extents;
      if (q.size === 0 || !fits(extents)) return plain.attentionGrad(q, k, v, output, grad, options);
      memory.check(q, k, v, output, grad);
      const gradients = { q: memory.empty(q.shape), k: memory.empty(k.shape), v: memory.empty(v.shape) };
      memory.scope(() => {
        const tiles = Math.ceil(tokens / ROWS);
        const padded = tiles * ROWS;
        const largest = memory.create([2], "u32");
        const halfGrad = memory.empty(grad.shape, "f16");
        const stats = memory.empty([batch * heads, padded, 2]);
        const scales = memory.empty([4]);
        const rows = batch * tokens * heads;
        memory.run(LARGEST, {
          groups: Math.ceil(grad.size / 4096) + Math.ceil(v.size / 4096),
          tensors: [grad, v, largest],
          numbers: [grad.size, v.size],
        });
        memory.run(HALF_GRADS, {
          groups: Math.ceil(rows / 8), // a warp each
          tensors: [grad, output, largest, halfGrad, stats, scales],
          numbers: [rows, tokens, heads, size, padded],
        });

        const { scale, slopes } = options;
        const call = {
          groups: tiles * batch * heads,
          numbers: [tokens, heads, keyValueHeads, size, padded, window, scale, slopes ? 1 : 0],
          constants: [paddedSize(size)],
        };
        const binding = (tensor: F32) => memory.bindingOf(tensor);
        const operands = [...[q, k, v].map(halvesOf), memory.bindingOf(halfGrad)];
        const reads = [...operands, ...[slopes ?? q, scales].map(binding)];
        memory.runOn(QUERIES, call, [...reads, ...[stats, gradients.q].map(binding)]);

        const shared = heads / keyValueHeads;
        const ofKeys = shared > 1 ? memory.empty(q.shape) : gradients.k;
        const ofValues = shared > 1 ? memory.empty(q.shape) : gradients.v;
        memory.runOn(KEYS, call, [...reads, ...[stats, ofKeys, ofValues].map(binding)]);
        if (shared > 1)
          memory.run(SUM_HEADS, {
            groups: Math.ceil(k.size / 256),
            tensors: [ofKeys, ofValues, gradients.k, gradients.v],
            numbers: [k.size, size, shared],
          });
      });
      return gradients;
    },
  };
}
