import type { F32 } from "../../../tensor/index.js";
import { checkLayerNorm, checkNormGrad, checkRmsNorm, checkRope } from "../../check.js";
import type { Engine } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";
import { exceeds, inWindows, runWindows } from "../windows.js";
import { elementGroups } from "./elementwise.js";

type Operations = Pick<Engine, "rmsNorm" | "layerNorm" | "rope" | "rmsNormGrad" | "layerNormGrad">;

// LANES threads share a row: 32 of a short one, all of a long one.
const ROW = {
  numbers: { rows: "u32", width: "u32", epsilon: "f32" },
  constants: ["LANES"],
  samples: [[32], [256]],
} as const;
const SLAB = { rows: "u32", width: "u32", slab: "u32" } as const;

const RMS_NORM = declareKernel("norms", "rmsNorm", {
  reads: { x: "f32", weight: "f32" },
  writes: { y: "f32" },
  ...ROW,
});
const LAYER_NORM = declareKernel("norms", "layerNorm", {
  reads: { x: "f32", weight: "f32", bias: "f32" },
  writes: { y: "f32" },
  ...ROW,
});
const RMS_NORM_GRAD = declareKernel("norms", "rmsNormGrad", {
  reads: { x: "f32", weight: "f32", grad: "f32" },
  writes: { y: "f32", inverses: "f32" },
  ...ROW,
});
const LAYER_NORM_GRAD = declareKernel("norms", "layerNormGrad", {
  reads: { x: "f32", weight: "f32", grad: "f32" },
  writes: { y: "f32", moments: "f32" },
  ...ROW,
});
const RMS_WEIGHT_GRAD = declareKernel("norms", "rmsWeightGrad", {
  reads: { x: "f32", grad: "f32", inverses: "f32" },
  writes: { sums: "f32" },
  numbers: SLAB,
});
const LAYER_WEIGHT_GRAD = declareKernel("norms", "layerWeightGrad", {
  reads: { x: "f32", grad: "f32", moments: "f32" },
  writes: { sums: "f32", biasSums: "f32" },
  numbers: SLAB,
});
const SUM_SLABS = declareKernel("norms", "sumSlabs", {
  reads: { sums: "f32" },
  writes: { y: "f32" },
  numbers: { slabs: "u32", width: "u32" },
});
const ROPE = declareKernel("norms", "rope", {
  reads: { x: "f32", cos: "f32", sin: "f32" },
  writes: { y: "f32" },
  numbers: { size: "u32", tokens: "u32", heads: "u32", width: "u32", pairs: "u32", start: "u32" },
});

const THREADS = 256;
/** Width up to which a row is the work of 32 threads. */
const SHORT = 1024;
/** Rows that one thread sums of a column at least, and slabs at most. */
const SLAB_ROWS = 32;
const SLABS = 256;
/** Columns of a group of `sumSlabs`. */
const SUMMED = 32;

/** Groups and lanes of a kernel that works on rows. */
function rowCall(rows: number, width: number): { groups: number; constants: number[] } {
  const lanes = width <= SHORT ? 32 : THREADS;
  return { groups: width > 0 ? Math.ceil(rows / (THREADS / lanes)) : 0, constants: [lanes] };
}

export function normOperations(memory: DeviceMemory): Operations {
  /** Slabs of rows whose sums are added afterwards, always in the same order. */
  function slabsOf(rows: number, width: number) {
    const slab = Math.max(SLAB_ROWS, Math.ceil(rows / SLABS));
    const call = (count: number) => {
      return { groups: Math.ceil(count / slab) * Math.ceil(width / THREADS), numbers: [count, width, slab] };
    };
    return { slab, slabs: Math.ceil(rows / slab), call };
  }
  function sumSlabs(sums: F32): F32 {
    const [slabs, width] = sums.shape;
    const y = memory.empty([width]);
    memory.run(SUM_SLABS, { groups: Math.ceil(width / SUMMED), tensors: [sums, y], numbers: [slabs, width] });
    sums.dispose();
    return y;
  }

  return {
    rmsNorm(x, weight, epsilon) {
      const { rows, width } = checkRmsNorm(x, weight);
      const y = memory.empty(x.shape);
      runWindows(memory, RMS_NORM, [x, weight, y], { extent: rows, each: [width, 0, width] }, (count) => {
        return { ...rowCall(count, width), numbers: [count, width, epsilon] };
      });
      return y;
    },

    layerNorm(x, weight, bias, epsilon) {
      const { rows, width } = checkLayerNorm(x, weight, bias);
      const y = memory.empty(x.shape);
      const division = { extent: rows, each: [width, 0, 0, width] };
      runWindows(memory, LAYER_NORM, [x, weight, bias, y], division, (count) => {
        return { ...rowCall(count, width), numbers: [count, width, epsilon] };
      });
      return y;
    },

    rmsNormGrad(x, weight, epsilon, grad, wanted) {
      const { rows, width } = checkNormGrad("rmsNormGrad", x, weight, grad);
      const y = memory.empty(x.shape);
      const inverses = memory.empty([rows]);
      const division = { extent: rows, each: [width, 0, width, width, 1] };
      runWindows(memory, RMS_NORM_GRAD, [x, weight, grad, y, inverses], division, (count) => {
        return { ...rowCall(count, width), numbers: [count, width, epsilon] };
      });
      if (wanted?.weight === false) {
        inverses.dispose();
        return { x: y };
      }
      const { slab, slabs, call } = slabsOf(rows, width);
      const sums = memory.empty([slabs, width]);
      const bySlabs = { extent: rows, step: slab, each: [slab * width, slab * width, slab, width] };
      runWindows(memory, RMS_WEIGHT_GRAD, [x, grad, inverses, sums], bySlabs, call);
      inverses.dispose();
      return { x: y, weight: sumSlabs(sums) };
    },

    layerNormGrad(x, weight, epsilon, grad, wanted) {
      const { rows, width } = checkNormGrad("layerNormGrad", x, weight, grad);
      const y = memory.empty(x.shape);
      const moments = memory.empty([rows, 2]);
      const division = { extent: rows, each: [width, 0, width, width, 2] };
      runWindows(memory, LAYER_NORM_GRAD, [x, weight, grad, y, moments], division, (count) => {
        return { ...rowCall(count, width), numbers: [count, width, epsilon] };
      });
      if (wanted?.weight === false) {
        moments.dispose();
        return { x: y };
      }
      const { slab, slabs, call } = slabsOf(rows, width);
      const [sums, biasSums] = [memory.empty([slabs, width]), memory.empty([slabs, width])];
      const bySlabs = { extent: rows, step: slab, each: [slab * width, slab * width, 2 * slab, width, width] };
      runWindows(memory, LAYER_WEIGHT_GRAD, [x, grad, moments, sums, biasSums], bySlabs, call);
      moments.dispose();
      return { x: y, weight: sumSlabs(sums), bias: sumSlabs(biasSums) };
    },

    rope(x, cos, sin, start) {
      const { batch, tokens, heads, size, pairs } = checkRope(x, cos, sin, start);
      const y = memory.empty(x.shape);
      const turn = (from: F32, to: F32, of: number, position: number) =>
        memory.run(ROPE, {
          groups: elementGroups(from.size),
          tensors: [from, cos, sin, to],
          numbers: [from.size, of, heads, size, pairs, position],
        });
      if (!exceeds(memory, [x])) turn(x, y, tokens, start);
      else {
        const item = [tokens, heads, size];
        for (let index = 0; index < batch; index++)
          memory.scope(() => {
            const both = [x, y].map((one) => memory.view(one, item, index * tokens * heads * size));
            const each = [heads * size, heads * size];
            inWindows(memory, both, { extent: tokens, each }, ([from, to], count, first) =>
              turn(from, to, count, start + first),
            );
          });
      }
      return y;
    },
  };
}
