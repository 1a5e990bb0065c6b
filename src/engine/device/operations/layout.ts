import { usageError } from "../../../errors.js";
import type { F32 } from "../../../tensor/index.js";
import { checkGatherRows, checkTranspose } from "../../check.js";
import type { Engine } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";
import { copyRows, exceeds, inWindows, windowsOf } from "../windows.js";
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
  numbers: { rows: "u32", first: "u32", count: "u32", width: "u32", size: "u32", check: "i32" },
});

export function layoutOperations(memory: DeviceMemory): Pick<Engine, "transpose" | "gatherRows"> {
  /** y [columns, rows] from a [rows, columns]. */
  function turn(a: F32, y: F32, rows: number, columns: number): void {
    const groups = Math.ceil(rows / TILE) * Math.ceil(columns / TILE);
    memory.run(TRANSPOSE, { groups, tensors: [a, y], numbers: [rows, columns] });
  }

  /** Blocks of rows of a or of y are transposed, and copied into y or from a, by rows of which there are fewer. */
  function turnInWindows(a: F32, y: F32, rows: number, columns: number): void {
    const byRows = rows >= columns;
    const [long, short] = byRows ? [rows, columns] : [columns, rows];
    for (const { first, count } of windowsOf(memory, long, 4 * short))
      memory.scope(() => {
        const between = memory.empty([short, count]);
        const dense = { tensor: between, at: 0, stride: count };
        const block = memory.view(byRows ? a : y, [count, short], first * short);
        if (byRows) {
          turn(block, between, count, short);
          copyRows(memory, dense, { tensor: y, at: first, stride: rows }, short, count);
        } else {
          copyRows(memory, { tensor: a, at: first, stride: columns }, dense, short, count);
          turn(between, block, short, count);
        }
      });
  }

  return {
    transpose(a) {
      const { rows, columns } = checkTranspose(a);
      const y = memory.empty([columns, rows]);
      if (exceeds(memory, [a])) turnInWindows(a, y, rows, columns);
      else turn(a, y, rows, columns);
      return y;
    },

    gatherRows(table, indices) {
      const { rows, width, shape } = checkGatherRows(table, indices);
      const y = memory.empty(shape);
      memory.check(table);
      const division = { extent: indices.size, each: [1, width] };
      inWindows(memory, [indices, y], division, ([some, result], _, begin) => {
        const fault = memory.fault((value, at) =>
          usageError(`gatherRows: expected indices within 0 .. ${rows - 1}, got ${value} at ${begin + at}`),
        );
        inWindows(memory, [table], { extent: rows, each: [width] }, ([part], count, first) =>
          memory.run(GATHER_ROWS, {
            groups: elementGroups(result.size),
            tensors: [part, some, result, fault.word],
            numbers: [rows, first, count, width, result.size, fault.number],
          }),
        );
      });
      return y;
    },
  };
}
