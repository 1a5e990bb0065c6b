import { roundToEven, roundToF16 } from "../../tensor/index.js";
import { checkAffineGrid, checkAffineSweep } from "../check.js";
import type { AffineGridOptions, Engine } from "../engine.js";
import type { EngineMemory } from "../memory.js";
import { feedBack } from "./sweep.js";

const LEAST_SCALE = 2 ** -14; // the least normal f16
const LARGEST_SCALE = 65504; // the largest f16

export const affineOperations = (memory: EngineMemory): Pick<Engine, "affineGrid" | "affineSweep"> => ({
  affineGrid(weights, options) {
    const { rows } = checkAffineGrid(weights, options);
    const scale = memory.empty([options.groups, rows]);
    const zero = memory.empty([options.groups, rows]);
    const [w, s, z] = [weights, scale, zero].map((tensor) => memory.host(tensor));
    for (let group = 0; group < options.groups; group++) fitGroup(w, rows, group, options, s, z);
    return { scale, zero };
  },

  affineSweep(weights, feedback, options) {
    const { columns, rows } = checkAffineSweep(weights, feedback, options);
    const { bits, groups, groupOfColumn, grid } = options;
    const running = memory.host(weights).slice(); // [I, O]
    const factor = feedback && memory.host(feedback);
    const scale = grid ? memory.copy(grid.scale) : memory.empty([groups, rows]);
    const zero = grid ? memory.copy(grid.zero) : memory.empty([groups, rows]);
    const codes = memory.empty([columns, rows], "u8");
    const quantized = memory.empty([columns, rows]);
    const [s, z, decoded] = [scale, zero, quantized].map((tensor) => memory.host(tensor));
    const code = memory.host(codes);
    const fitted = new Uint8Array(groups).fill(grid ? 1 : 0);
    for (let column = 0; column < columns; column++) {
      const group = groupOfColumn[column];
      if (!fitted[group]) fitGroup(running, rows, group, options, s, z);
      fitted[group] = 1;
      for (let row = 0; row < rows; row++) {
        const at = column * rows + row;
        const on = group * rows + row;
        code[at] = clamp(roundToEven(Math.fround(running[at] / s[on])) + z[on], 2 ** bits - 1);
        decoded[at] = (code[at] - z[on]) * s[on];
      }
      if (factor) feedBack(running, decoded, factor, column, columns, rows);
    }
    for (
      let group = 0;
      group < groups;
      group++ // those without columns
    )
      if (!fitted[group]) fitGroup(running, rows, group, options, s, z);
    return { codes, quantized, scale, zero };
  },
});

/** Scale and zero of every row for one group of columns of weights [I, O]; written to row `group` of both. */
function fitGroup(
  weights: Float32Array,
  rows: number,
  group: number,
  { bits, symmetric, groupOfColumn }: AffineGridOptions,
  scale: Float32Array,
  zero: Float32Array,
): void {
  const levels = 2 ** bits - 1;
  for (let row = 0; row < rows; row++) {
    let low = 0;
    let high = 0;
    for (let column = 0; column < groupOfColumn.length; column++) {
      if (groupOfColumn[column] !== group) continue;
      low = Math.min(low, weights[column * rows + row]);
      high = Math.max(high, weights[column * rows + row]);
    }
    const range = symmetric ? 2 * Math.max(-low, high) : Math.fround(high - low);
    const step = range === 0 ? 1 : f16Scale(Math.fround(range / levels));
    scale[group * rows + row] = step;
    zero[group * rows + row] = symmetric ? 2 ** (bits - 1) : clamp(roundToEven(Math.fround(-low / step)), levels);
  }
}

/** The nearest f16 that is neither 0 nor infinite: 2^-14 for what rounds to 0. */
export function f16Scale(scale: number): number {
  const rounded = roundToF16(scale);
  return rounded === 0 ? LEAST_SCALE : Math.min(rounded, LARGEST_SCALE);
}

export const clamp = (value: number, high: number): number => Math.min(high, Math.max(0, value));
