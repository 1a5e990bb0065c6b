import { checkFakeQuantizeRows } from "../../check.js";
import type { Engine } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";
import { runWindows } from "../windows.js";
import { lanesFor, runGroups } from "./grid.js";

const FAKE_QUANTIZE_ROWS = declareKernel("rowgrid", "fakeQuantizeRows", {
  reads: { x: "f32" },
  writes: { y: "f32" },
  numbers: { rows: "u32", width: "u32", levels: "u32", symmetric: "u32", lanes: "u32" },
});
const FAKE_QUANTIZE_ROWS_GRAD = declareKernel("rowgrid", "fakeQuantizeRowsGrad", {
  reads: { x: "f32", grad: "f32" },
  writes: { xGrad: "f32" },
  numbers: { rows: "u32", width: "u32", levels: "u32", symmetric: "u32", lanes: "u32" },
});

/** Dynamic quantization of rows [.., C] and its straight-through gradient. */
export const rowGridOperations = (memory: DeviceMemory): Pick<Engine, "fakeQuantizeRows" | "fakeQuantizeRowsGrad"> => ({
  fakeQuantizeRows(x, bits, symmetric = false) {
    const { rows, width } = checkFakeQuantizeRows("fakeQuantizeRows", x, bits);
    const y = memory.empty(x.shape);
    const lanes = lanesFor(width);
    runWindows(memory, FAKE_QUANTIZE_ROWS, [x, y], { extent: rows, each: [width, width] }, (count) => ({
      groups: runGroups(count, lanes),
      numbers: [count, width, 2 ** bits - 1, Number(symmetric), lanes],
    }));
    return y;
  },

  fakeQuantizeRowsGrad(x, bits, grad, symmetric = false) {
    const { rows, width } = checkFakeQuantizeRows("fakeQuantizeRowsGrad", x, bits, grad);
    const xGrad = memory.empty(x.shape);
    const lanes = lanesFor(width);
    const division = { extent: rows, each: [width, width, width] };
    runWindows(memory, FAKE_QUANTIZE_ROWS_GRAD, [x, grad, xGrad], division, (count) => ({
      groups: runGroups(count, lanes),
      numbers: [count, width, 2 ** bits - 1, Number(symmetric), lanes],
    }));
    return xGrad;
  },
});
