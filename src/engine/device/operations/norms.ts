import type { F32 } from "../../../tensor/index.js";
import { checkLayerNorm, checkNormGrad, checkRmsNorm, checkRope } from "../../check.js";
import type { Engine } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";
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
  function slabCall(rows: number, width: number): { slabs: number; groups: number; numbers: number[] } {
    const slab = Math.max(SLAB_ROWS, Math.ceil(rows / SLABS));
    const slabs = Math.ceil(rows / slab);
    return { slabs, groups: slabs * Math.ceil(width / THREADS), numbers: [rows, width, slab] };
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
      memory.run(RMS_NORM, {
        ...rowCall(rows, width),
        tensors: [x, weight, y],
        numbers: [rows, width, epsilon],
      });
      return y;
    },

    layerNorm(x, weight, bias, epsilon) {
      const { rows, width } = checkLayerNorm(x, weight, bias);
      const y = memory.empty(x.shape);
      memory.run(LAYER_NORM, {
        ...rowCall(rows, width),
        tensors: [x, weight, bias, y],
        numbers: [rows, width, epsilon],
      });
      return y;
    },

    rmsNormGrad(x, weight, epsilon, grad, wanted) {
      const { rows, width } = checkNormGrad("rmsNormGrad", x, weight, grad);
      const y = memory.empty(x.shape);
      const inverses = memory.empty([rows]);
      memory.run(RMS_NORM_GRAD, {
        ...rowCall(rows, width),
        tensors: [x, weight, grad, y, inverses],
        numbers: [rows, width, epsilon],
      });
      if (wanted?.weight === false) {
        inverses.dispose();
        return { x: y };
      }
      const { slabs, groups, numbers } = slabCall(rows, width);
      const sums = memory.empty([slabs, width]);
      memory.run(RMS_WEIGHT_GRAD, { groups, tensors: [x, grad, inverses, sums], numbers });
      inverses.dispose();
      return { x: y, weight: sumSlabs(sums) };
    },

    layerNormGrad(x, weight, epsilon, grad, wanted) {
      const { rows, width } = checkNormGrad("layerNormGrad", x, weight, grad);
      const y = memory.empty(x.shape);
      const moments = memory.empty([rows, 2]);
      memory.run(LAYER_NORM_GRAD, {
        ...rowCall(rows, width),
        tensors: [x, weight, grad, y, moments],
        numbers: [rows, width, epsilon],
      });
      if (wanted?.weight === false) {
        moments.dispose();
        return { x: y };
      }
      const { slabs, groups, numbers } = slabCall(rows, width);
      const [sums, biasSums] = [memory.empty([slabs, width]), memory.empty([slabs, width])];
      memory.run(LAYER_WEIGHT_GRAD, { groups, tensors: [x, grad, moments, sums, biasSums], numbers });
      moments.dispose();
      return { x: y, weight: sumSlabs(sums), bias: sumSlabs(biasSums) };
    },

    rope(x, cos, sin, start) {
      const { tokens, heads, size, pairs } = checkRope(x, cos, sin, start);
      const y = memory.empty(x.shape);
      memory.run(ROPE, {
        groups: elementGroups(x.size),
        tensors: [x, cos, sin, y],
        numbers: [x.size, tokens, heads, size, pairs, start],
      });
      return y;
    },
  };
}
