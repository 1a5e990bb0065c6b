import { unsupportedError, usageError } from "../../../errors.js";
import type { F32, I32 } from "../../../tensor/index.js";
import { checkGatherRows, checkTranspose } from "../../check.js";
import type { Engine } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";
import { copyRows, exceeds, inWindows, windowsOf } from "../windows.js";
import { castOperations } from "./cast.js";
import { elementGroups, elementwiseOperations } from "./elementwise.js";

/** Side of the tiles that `transpose` takes through shared memory. */
const TILE = 32;
/** Whole numbers up to it are exact in f32. */
const MOST_EXACT = 2 ** 24;

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

export function layoutOperations(memory: DeviceMemory): Pick<Engine, "transpose" | "gatherRows"> {
  const { cast } = castOperations(memory);
  const { subtract } = elementwiseOperations(memory);

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

  /** `rows` of a table, as many as `y` has room for; what is outside goes to the fault word, by its place from `first` on. */
  function gather(table: F32, rows: number, indices: I32, y: F32, first: number): void {
    const fault = memory.fault((value, at) =>
      usageError(`gatherRows: expected indices within 0 .. ${rows - 1}, got ${value} at ${first + at}`),
    );
    const numbers = [rows, y.size / Math.max(1, indices.size), y.size, fault.number];
    memory.run(GATHER_ROWS, { groups: elementGroups(y.size), tensors: [table, indices, y, fault.word], numbers });
  }

  /**
   * Each window of the table with indices that begin there: the kernel leaves alone what is outside of it, and notes it where
   * nobody looks. Indices are exact in f32, or too large to become small.
   */
  function gatherFromWindows(table: F32, rows: number, width: number, indices: I32, y: F32, first: number): void {
    const { size } = indices;
    if (rows > MOST_EXACT)
      throw unsupportedError(
        `gatherRows: a table of ${rows} rows that exceeds a binding of the device, which takes ${MOST_EXACT} rows then`,
        "another card, or --engine wasm",
      );
    gather(memory.view(table, [rows]), rows, indices, memory.empty([size]), first);
    const [exact, unseen] = [cast(memory.view(indices, [size, 1]), "f32"), memory.empty([3], "i32")];
    inWindows(memory, [table], { extent: rows, each: [width] }, ([part], count, begin) => {
      const from = memory.upload(Float32Array.of(begin), [1], "f32");
      const within = begin === 0 ? indices : cast(subtract(exact, from), "i32");
      memory.run(GATHER_ROWS, {
        groups: elementGroups(y.size),
        tensors: [part, within, y, unseen],
        numbers: [count, width, y.size, 1],
      });
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
      inWindows(memory, [indices, y] as const, division, ([some, result], _, first) => {
        if (!exceeds(memory, [table])) gather(table, rows, some, result, first);
        else if (some.size > 0) memory.scope(() => gatherFromWindows(table, rows, width, some, result, first));
      });
      return y;
    },
  };
}
