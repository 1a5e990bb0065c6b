import type { F32, Tensor } from "../../../tensor/index.js";
import { checkAllFinite, checkArgmax, checkColumns, checkDot, checkRowDots } from "../../check.js";
import type { Engine } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";
import { inWindows, putLast, runWindows, takeLast, windowsOf } from "../windows.js";

type Operations = Pick<Engine, "dot" | "allFinite" | "argmax" | "sumRows" | "rowDots" | "columnAbsMax">;

// Kernels that look at bits have f32 declared as u32.
const DOT_PARTS = declareKernel("reductions", "dotParts", {
  reads: { a: "f32", b: "f32" },
  writes: { sums: "f32" },
  numbers: { size: "u32", part: "u32" },
});
const FINITE_PARTS = declareKernel("reductions", "finiteParts", {
  reads: { a: "u32" },
  writes: { flags: "i32" },
  numbers: { size: "u32", part: "u32" },
});
const ARGMAX = declareKernel("reductions", "argmax", {
  reads: { a: "u32" },
  writes: { y: "i32" },
  numbers: { width: "u32" },
});
const ROW_DOTS = declareKernel("reductions", "rowDots", {
  reads: { a: "f32", b: "f32" },
  writes: { y: "f32" },
  numbers: { rows: "u32", width: "u32" },
  constants: ["TEAM"],
  samples: [[32], [256]],
});
const SUM_COLUMNS = declareKernel("reductions", "sumColumns", {
  reads: { a: "f32" },
  writes: { y: "f32" },
  numbers: { rows: "u32", width: "u32", part: "u32" },
  constants: ["FROM_PARTS", "TO_PARTS"],
  samples: [
    [0, 0],
    [0, 1],
    [1, 0],
  ],
});
const ABS_MAX_COLUMNS = declareKernel("reductions", "absMaxColumns", {
  reads: { a: "u32" },
  writes: { y: "u32" },
  numbers: { rows: "u32", width: "u32", part: "u32" },
});

/** Elements of a part, at most 1024 parts: decided by the size alone. */
function partsOf(size: number): { part: number; parts: number } {
  const part = Math.max(2048, Math.ceil(size / 1024));
  return { part, parts: Math.ceil(size / part) };
}

/** Rows that one group adds up, by the shape alone: about a thousand groups, of at least 32 rows. */
function rowBlocks(rows: number, width: number): { part: number; blocks: number; chunks: number } {
  const chunks = Math.ceil(width / 32);
  const wanted = Math.min(Math.ceil(rows / 32), Math.ceil(1024 / Math.max(1, chunks)));
  const part = Math.max(1, Math.ceil(rows / Math.max(1, wanted)));
  return { part, blocks: Math.max(1, Math.ceil(rows / part)), chunks };
}

/** Reductions to a number, of rows and of columns. */
export function reductionOperations(memory: DeviceMemory): Operations {
  /** A number for each part, which `run` enqueues, on the host. */
  async function onHost<T extends "f32" | "i32">(parts: Tensor<T>, run: () => void) {
    try {
      run();
      return await memory.read(parts);
    } finally {
      parts.dispose();
    }
  }

  /** Of columns whose blocks of rows can be seen. */
  function absMaxColumns(a: F32, y: F32, width: number, part: number, blocks: number): void {
    const rows = a.size / Math.max(1, width);
    const over = (from: F32, to: F32, of: number, by: number) =>
      memory.run(ABS_MAX_COLUMNS, {
        groups: Math.ceil(width / 32) * Math.max(1, Math.ceil(of / by)),
        tensors: [from, to],
        numbers: [of, width, by],
      });
    if (blocks === 1) over(a, y, rows, part);
    else
      withParts(memory, [blocks, width], (parts) => {
        const division = { extent: rows, step: part, each: [part * width, width] };
        inWindows(memory, [a, parts], division, ([from, to], count) => over(from, to, count, part));
        over(parts, y, blocks, blocks);
      });
  }

  return {
    async dot(a, b) {
      checkDot(a, b);
      memory.check(a, b);
      const { part, parts } = partsOf(a.size);
      const sums = memory.empty([parts, 2]);
      const halves = await onHost(sums, () =>
        runWindows(memory, DOT_PARTS, [a, b, sums], { extent: a.size, step: part, each: [part, part, 2] }, (count) => {
          return { groups: Math.ceil(count / part), numbers: [count, part] };
        }),
      );
      return halves.reduce((sum, half) => sum + half, 0);
    },

    async allFinite(a) {
      checkAllFinite(a);
      memory.check(a);
      const { part, parts } = partsOf(a.size);
      const flags = memory.empty([parts], "i32");
      const spoiled = await onHost(flags, () =>
        runWindows(memory, FINITE_PARTS, [a, flags], { extent: a.size, step: part, each: [part, 1] }, (count) => {
          return { groups: Math.ceil(count / part), numbers: [count, part] };
        }),
      );
      return spoiled.every((flag) => flag === 0);
    },

    argmax(a) {
      const { rows, columns } = checkArgmax(a);
      const y = memory.empty([rows], "i32");
      const call = (groups: number) => ({ groups, numbers: [columns] });
      runWindows(memory, ARGMAX, [a, y], { extent: rows, each: [columns, 1] }, call);
      return y;
    },

    sumRows(a) {
      const { rows, width } = checkColumns("sumRows", a);
      const y = memory.empty([width]);
      sumColumns(memory, a, y, rows, width);
      return y;
    },

    rowDots(a, b) {
      const { rows, width } = checkRowDots(a, b);
      const y = memory.empty([rows]);
      const team = width <= 1024 ? 32 : 256;
      runWindows(memory, ROW_DOTS, [a, b, y], { extent: rows, each: [width, width, 1] }, (count) => {
        return { groups: Math.ceil(count / (256 / team)), numbers: [count, width], constants: [team] };
      });
      return y;
    },

    columnAbsMax(a) {
      const { rows, width } = checkColumns("columnAbsMax", a);
      const y = memory.empty([width]);
      const { part, blocks } = rowBlocks(rows, width);
      inColumnWindows(memory, [a, y], rows, width, part, ([from, to], wide) =>
        absMaxColumns(from, to, wide, part, blocks),
      );
      return y;
    },
  };
}

/** y [C] = sum over r of a[r][c], a of `rows` rows of `width`: for operations that add up rows, too. */
export function sumColumns(memory: DeviceMemory, a: F32, y: F32, rows: number, width: number): void {
  const { part, blocks } = rowBlocks(rows, width);
  const sum = (from: F32, to: F32, of: number, wide: number, by: number, constants: number[]) =>
    memory.run(SUM_COLUMNS, {
      groups: Math.ceil(wide / 32) * Math.max(1, Math.ceil(of / by)),
      tensors: [from, to],
      numbers: [of, wide, by],
      constants,
    });
  inColumnWindows(memory, [a, y], rows, width, part, ([all, result], wide) => {
    if (blocks === 1) {
      sum(all, result, rows, wide, part, [0, 0]);
      return;
    }
    withParts(memory, [2, blocks, wide], (parts) => {
      const division = { extent: rows, step: part, each: [part * wide] };
      inWindows(memory, [all], division, ([some], count, first) => {
        if (count === rows) {
          sum(some, parts, rows, wide, part, [0, 1]);
          return;
        }
        // the parts of a window lie together, and those of all beside them
        const window = { first: (first / part) * wide, count: Math.ceil(count / part) * wide };
        const own = memory.empty([2, window.count]);
        sum(some, own, count, wide, part, [0, 1]);
        putLast(memory, memory.view(parts, [2, blocks * wide]), own, blocks * wide, window);
      });
      sum(parts, result, blocks, wide, blocks, [1, 0]);
    });
  });
}

/** Copies of columns of a and their places in y, where `part` rows of all of them are too large; a and y otherwise. */
function inColumnWindows(
  memory: DeviceMemory,
  [a, y]: [F32, F32],
  rows: number,
  width: number,
  part: number,
  body: (tensors: [F32, F32], width: number) => void,
): void {
  if (4 * part * width <= memory.windowBytes) {
    body([a, y], width);
    return;
  }
  for (const window of windowsOf(memory, width, 4 * part))
    memory.scope(() => {
      const columns = takeLast(memory, memory.view(a, [rows, width]), width, window);
      body([columns, memory.view(y, [window.count], window.first)], window.count);
    });
}

function withParts(memory: DeviceMemory, shape: readonly number[], body: (parts: F32) => void): void {
  const parts = memory.empty(shape);
  try {
    body(parts);
  } finally {
    parts.dispose();
  }
}
