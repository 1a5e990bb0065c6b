import { roundToEven } from "../../tensor/index.js";
import { checkClippedGrid, checkFakeQuantize } from "../check.js";
import type { AffineGrid, ClippingLogits, Engine, GroupGridOptions } from "../engine.js";
import type { EngineMemory } from "../memory.js";
import { clamp, f16Scale } from "./affine.js";

type Operations = Pick<Engine, "clippedGrid" | "clippedGridGrad" | "fakeQuantize" | "fakeQuantizeGrad" | "affineCodes">;

/** Grids of rows of weights [O, I] by groups of consecutive columns, and their gradients. */
export function gridOperations(memory: EngineMemory): Operations {
  /** Calls `each` with the elements [begin, end) of every group and its place in a grid [O, G]. */
  function eachGroup(
    { rows, columns, groups }: { rows: number; columns: number; groups: number },
    group: number,
    each: (begin: number, end: number, on: number) => void,
  ): void {
    for (let row = 0; row < rows; row++)
      for (let g = 0; g < groups; g++)
        each(row * columns + g * group, row * columns + Math.min(columns, (g + 1) * group), row * groups + g);
  }

  const logitsOf = (clipping: ClippingLogits | undefined) =>
    clipping && { upper: memory.host(clipping.upper), lower: memory.host(clipping.lower) };

  function eachCode(
    weights: Float32Array,
    { scale, zero }: AffineGrid,
    extents: { rows: number; columns: number; groups: number },
    { bits, group }: GroupGridOptions,
    each: (at: number, on: number, step: number, code: number, shift: number, ratio: number) => void,
  ): void {
    const levels = 2 ** bits - 1;
    const [steps, zeros] = [memory.host(scale), memory.host(zero)];
    eachGroup(extents, group, (begin, end, on) => {
      const shift = clamp(roundToEven(zeros[on]), levels);
      for (let at = begin; at < end; at++) {
        const ratio = Math.fround(weights[at] / steps[on]);
        each(at, on, steps[on], Math.fround(roundToEven(ratio) + shift), shift, ratio);
      }
    });
  }

  return {
    clippedGrid(weights, clipping, options) {
      const extents = checkClippedGrid("clippedGrid", weights, clipping, options);
      const { bits, group, symmetric } = options;
      const levels = 2 ** bits - 1;
      const w = memory.host(weights);
      const logits = logitsOf(clipping);
      const scale = memory.empty([extents.rows, extents.groups]);
      const zero = memory.empty(scale.shape);
      const [steps, zeros] = [memory.host(scale), memory.host(zero)];
      eachGroup(extents, group, (begin, end, on) => {
        const { high, low } = clippedRange(w, begin, end, logits, on);
        const step = stepOf(high, low, levels, symmetric);
        steps[on] = step;
        zeros[on] = symmetric ? 2 ** (bits - 1) : clamp(roundToEven(Math.fround(-low / step)), levels);
      });
      return { scale, zero };
    },

    clippedGridGrad(weights, clipping, scaleGrad, options, wanted) {
      const extents = checkClippedGrid("clippedGridGrad", weights, clipping, options, scaleGrad);
      const { bits, group, symmetric } = options;
      const levels = 2 ** bits - 1;
      const [w, given] = [memory.host(weights), memory.host(scaleGrad)];
      const logits = logitsOf(clipping);
      const [ofWeights, upper, lower] = [weights, scaleGrad, scaleGrad].map(({ shape }) => memory.create(shape));
      const [outWeights, outUpper, outLower] = [ofWeights, upper, lower].map((tensor) => memory.host(tensor));
      eachGroup(extents, group, (begin, end, on) => {
        const { high, low, most, least } = clippedRange(w, begin, end, logits, on);
        const exact = Math.fround(rangeOf(high, low, symmetric) / levels);
        if (!isFree(exact)) return;
        const shrinkHigh = logits ? sigmoid(logits.upper[on]) : 1;
        const shrinkLow = logits ? sigmoid(logits.lower[on]) : 1;
        const ofRange = ((symmetric ? 2 : 1) * given[on]) / levels;
        if (most > 0 && (!symmetric || high >= -low)) {
          outWeights[w.indexOf(most, begin)] = ofRange * shrinkHigh;
          outUpper[on] = ofRange * shrinkHigh * (1 - shrinkHigh) * most;
        }
        if (least < 0 && (!symmetric || high < -low)) {
          outWeights[w.indexOf(least, begin)] = -ofRange * shrinkLow;
          outLower[on] = -ofRange * shrinkLow * (1 - shrinkLow) * least;
        }
      });
      if (wanted?.weights !== false) return { weights: ofWeights, upper, lower };
      ofWeights.dispose();
      return { upper, lower };
    },

    fakeQuantize(weights, grid, options) {
      const extents = checkFakeQuantize("fakeQuantize", weights, grid, options);
      const levels = 2 ** options.bits - 1;
      const result = memory.empty(weights.shape);
      const out = memory.host(result);
      eachCode(memory.host(weights), grid, extents, options, (at, _on, step, code, shift) => {
        out[at] = (clamp(code, levels) - shift) * step;
      });
      return result;
    },

    fakeQuantizeGrad(weights, grid, grad, options, wanted) {
      const extents = checkFakeQuantize("fakeQuantizeGrad", weights, grid, options, grad);
      const levels = 2 ** options.bits - 1;
      const [given, zeros] = [memory.host(grad), memory.host(grid.zero)];
      const [ofWeights, scale, zero] = [weights, grid.scale, grid.zero].map(({ shape }) => memory.create(shape));
      const [outWeights, outScale, outZero] = [ofWeights, scale, zero].map((tensor) => memory.host(tensor));
      const sums = new Float64Array(2 * scale.size); // of h and of z
      eachCode(memory.host(weights), grid, extents, options, (at, on, step, code, shift, ratio) => {
        if (code >= 0 && code <= levels) {
          outWeights[at] = given[at];
          sums[2 * on] += given[at] * Math.fround(code - shift - ratio);
        } else {
          sums[2 * on] += given[at] * (clamp(code, levels) - shift);
          sums[2 * on + 1] -= given[at] * step;
        }
      });
      for (let on = 0; on < outScale.length; on++) {
        outScale[on] = sums[2 * on];
        outZero[on] = zeros[on] >= 0 && zeros[on] <= levels ? sums[2 * on + 1] : 0;
      }
      if (wanted?.weights !== false) return { weights: ofWeights, scale, zero };
      ofWeights.dispose();
      return { scale, zero };
    },

    affineCodes(weights, grid, options) {
      const extents = checkFakeQuantize("affineCodes", weights, grid, options);
      const result = memory.empty(weights.shape, "u8");
      const out = memory.host(result);
      eachCode(memory.host(weights), grid, extents, options, (at, _on, _step, code) => {
        out[at] = clamp(code, 2 ** options.bits - 1);
      });
      return result;
    },
  };
}

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

/** Extremes of elements [begin, end), 0 among them, as they are and clipped. Sigmoid in f64, its product rounded to f32 once. */
function clippedRange(
  w: Float32Array,
  begin: number,
  end: number,
  logits: { upper: Float32Array; lower: Float32Array } | undefined,
  on: number,
): { most: number; least: number; high: number; low: number } {
  let [most, least] = [0, 0];
  for (let at = begin; at < end; at++) {
    most = Math.max(most, w[at]);
    least = Math.min(least, w[at]);
  }
  if (!logits) return { most, least, high: most, low: least };
  const high = Math.fround(sigmoid(logits.upper[on]) * most);
  return { most, least, high, low: Math.fround(sigmoid(logits.lower[on]) * least) };
}

const rangeOf = (high: number, low: number, symmetric: boolean): number =>
  symmetric ? 2 * Math.max(high, -low) : Math.fround(high - low);

function stepOf(high: number, low: number, levels: number, symmetric: boolean): number {
  const range = rangeOf(high, low, symmetric);
  return range === 0 ? 1 : f16Scale(Math.fround(range / levels));
}

/** Does a step keep its value up to the rounding to f16? The ties at both ends round away from it. */
const isFree = (step: number): boolean => step > 2 ** -25 && step < 65520;
