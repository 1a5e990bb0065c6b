import type { F32 } from "../../tensor/index.js";
import { checkColumns, checkRowDots } from "../check.js";
import type { Engine } from "../engine.js";
import type { WasmContext } from "./context.js";
import type { WasmRuntime } from "./runtime.js";

/** Elements worth a thread. */
const GRAIN = 2 ** 15;
/** Columns of a unit of work, as in assembly/columns.ts. */
const CHUNK = 1024;

/** Rows whose part of a reduction is one unit, decided by the shape alone: at least 64, at most 256 blocks. */
export function rowBlocks(rows: number): { rowsOfBlock: number; blocks: number } {
  const rowsOfBlock = Math.max(64, Math.ceil(rows / 256));
  return { rowsOfBlock, blocks: Math.max(1, Math.ceil(rows / rowsOfBlock)) };
}

/** target[c] = sum over r of a[r][c] for a [rows, width], by addresses. */
export function sumColumns(runtime: WasmRuntime, target: number, a: number, rows: number, width: number): void {
  const { rowsOfBlock, blocks } = rowBlocks(rows);
  const chunks = Math.ceil(width / CHUNK);
  runtime.withTemporary(8 * blocks * width, (partial) => {
    const grain = Math.ceil(GRAIN / (rowsOfBlock * Math.min(CHUNK, Math.max(1, width))));
    runtime.run("sumColumns", blocks * chunks, grain, [partial, a, rows, width, rowsOfBlock]);
    runtime.run("addPartials", chunks, Math.ceil(GRAIN / (CHUNK * blocks)), [target, partial, blocks, width]);
  });
}

/** Reductions of rows and columns (assembly/columns.ts). */
export function columnOperations({
  runtime,
  empty,
  address,
}: WasmContext): Pick<Engine, "sumRows" | "rowDots" | "columnAbsMax"> {
  function sumRows(a: F32): F32 {
    const { rows, width } = checkColumns("sumRows", a);
    const source = address(a);
    const target = empty([width]);
    sumColumns(runtime, address(target), source, rows, width);
    return target;
  }

  function columnAbsMax(a: F32): F32 {
    const { rows, width } = checkColumns("columnAbsMax", a);
    const source = address(a);
    const target = empty([width]);
    const { rowsOfBlock, blocks } = rowBlocks(rows);
    const chunks = Math.ceil(width / CHUNK);
    runtime.withTemporary(4 * blocks * width, (partial) => {
      const grain = Math.ceil(GRAIN / (rowsOfBlock * Math.min(CHUNK, Math.max(1, width))));
      runtime.run("absMaxColumns", blocks * chunks, grain, [partial, source, rows, width, rowsOfBlock]);
      const args = [address(target), partial, blocks, width, blocks];
      runtime.run("absMaxColumns", chunks, Math.ceil(GRAIN / (CHUNK * blocks)), args);
    });
    return target;
  }

  function rowDots(a: F32, b: F32): F32 {
    const { rows, width } = checkRowDots(a, b);
    const args = [address(a), address(b), width];
    const target = empty([rows]);
    runtime.run("rowDots", rows, Math.ceil(GRAIN / Math.max(1, width)), [address(target), ...args]);
    return target;
  }

  return { sumRows, rowDots, columnAbsMax };
}
