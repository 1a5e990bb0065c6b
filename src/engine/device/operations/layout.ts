import { usageError } from "../../../errors.js";
import { checkGatherRows, checkTranspose } from "../../check.js";
import type { Engine } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";
import { elementGroups } from "./elementwise.js";

/** Side of the tiles that `transpose` takes through shared memory. */
const TILE = 32;

const TRANSPOSE = declareKernel("layout", "transpose", {
  reads: { a: "f32" },
  writes: { y: "f32" },
  numbers: { rows: "u32", columns: "u32" },
});
const GATHER_ROWS = declareKernel("layout", "gatherRows", {
  reads: { table: "f32", indices: "i32" },
  writes: { y: "f32", fault: "i32" },
  numbers: { rows: "u32", width: "u32", size: "u32", check: "i32" },
});

export const layoutOperations = (memory: DeviceMemory): Pick<Engine, "transpose" | "gatherRows"> => ({
  transpose(a) {
    const { rows, columns } = checkTranspose(a);
    const y = memory.empty([columns, rows]);
    const groups = Math.ceil(rows / TILE) * Math.ceil(columns / TILE);
    memory.run(TRANSPOSE, { groups, tensors: [a, y], numbers: [rows, columns] });
    return y;
  },

  gatherRows(table, indices) {
    const { rows, width, shape } = checkGatherRows(table, indices);
    const y = memory.empty(shape);
    const fault = memory.fault((value, at) =>
      usageError(`gatherRows: expected indices within 0 .. ${rows - 1}, got ${value} at ${at}`),
    );
    memory.run(GATHER_ROWS, {
      groups: elementGroups(y.size),
      tensors: [table, indices, y, fault.word],
      numbers: [rows, width, y.size, fault.number],
    });
    return y;
  },
});
