import { roundToEven } from "../../tensor/index.js";
import { checkFakeQuantizeRows } from "../check.js";
import type { Engine } from "../engine.js";
import type { EngineMemory } from "../memory.js";
import { clamp } from "./affine.js";

const LEAST_STEP = Math.fround(1e-8);

/** The grid of one row: codes 0 .. levels after `shift` was added. */
interface RowGrid {
  step: number;
  shift: number;
  /** What the codes less `shift` are multiples of: 0 for symmetric codes, which have their own negative half. */
  most: number;
  least: number;
  /** The step before its floor. */
  exact: number;
}

/** Dynamic quantization of rows [.., C] and its straight-through gradient. */
export const rowGridOperations = (memory: EngineMemory): Pick<Engine, "fakeQuantizeRows" | "fakeQuantizeRowsGrad"> => ({
  fakeQuantizeRows(x, bits, symmetric = false) {
    const { rows, width } = checkFakeQuantizeRows("fakeQuantizeRows", x, bits);
    const levels = 2 ** bits - 1;
    const source = memory.host(x);
    const result = memory.empty(x.shape);
    const out = memory.host(result);
    for (let row = 0; row < rows; row++) {
      const values = source.subarray(row * width, (row + 1) * width);
      const { step, shift } = rowGrid(values, bits, symmetric);
      for (let i = 0; i < width; i++) {
        const code = clamp(roundToEven(Math.fround(values[i] / step)) + shift, levels);
        out[row * width + i] = (code - shift) * step;
      }
    }
    return result;
  },

  fakeQuantizeRowsGrad(x, bits, grad, symmetric = false) {
    const { rows, width } = checkFakeQuantizeRows("fakeQuantizeRowsGrad", x, bits, grad);
    const levels = 2 ** bits - 1;
    const [source, given] = [memory.host(x), memory.host(grad)];
    const result = memory.create(x.shape);
    const out = memory.host(result);
    for (let row = 0; row < rows; row++) {
      const begin = row * width;
      const values = source.subarray(begin, begin + width);
      const { step, shift, most, least, exact } = rowGrid(values, bits, symmetric);
      let ofStep = 0;
      for (let i = 0; i < width; i++) {
        const ratio = Math.fround(values[i] / step);
        const code = roundToEven(ratio) + shift;
        const inside = code >= 0 && code <= levels;
        if (inside) out[begin + i] = given[begin + i];
        ofStep += given[begin + i] * (inside ? Math.fround(code - shift - ratio) : clamp(code, levels) - shift);
      }
      if (exact < LEAST_STEP) continue;
      const ofRange = ((symmetric ? 2 : 1) * ofStep) / levels;
      if (symmetric) {
        const at = values.findIndex((value) => Math.abs(value) === Math.max(most, -least));
        out[begin + at] += values[at] > 0 ? ofRange : -ofRange;
      } else {
        if (most > 0) out[begin + values.indexOf(most)] += ofRange;
        if (least < 0) out[begin + values.indexOf(least)] -= ofRange;
      }
    }
    return result;
  },
});

function rowGrid(values: Float32Array, bits: number, symmetric: boolean): RowGrid {
  const levels = 2 ** bits - 1;
  let [most, least] = [0, 0];
  for (const value of values) {
    most = Math.max(most, value);
    least = Math.min(least, value);
  }
  const range = symmetric ? 2 * Math.max(most, -least) : Math.fround(most - least);
  const exact = Math.fround(range / levels);
  const step = Math.max(exact, LEAST_STEP);
  const shift = symmetric ? 2 ** (bits - 1) : clamp(roundToEven(Math.fround(-least / step)), levels);
  return { step, shift, most, least, exact };
}
