import type { F32, I32 } from "../../tensor/index.js";
import {
  checkAddInto,
  checkAllFinite,
  checkArgmax,
  checkDot,
  checkElementwise,
  checkGatherRows,
  checkIndexValues,
  checkScale,
  checkSiluMultiply,
  checkTranspose,
  checkWithRows,
} from "../check.js";
import type { Engine } from "../engine.js";
import type { WasmContext } from "./context.js";
import { BLOCK } from "./memory.js";

type Operations = Pick<
  Engine,
  | "add"
  | "subtract"
  | "multiply"
  | "divide"
  | "scale"
  | "addInto"
  | "scaleRows"
  | "divideRows"
  | "siluMultiply"
  | "transpose"
  | "gatherRows"
  | "dot"
  | "allFinite"
  | "argmax"
>;

/** Blocks worth a thread: 32k elements take about 10 us. */
const GRAIN = 8;
const blocksOf = (size: number): number => Math.ceil(size / BLOCK);
/** Rows worth a thread. */
const rowGrain = (width: number): number => Math.ceil((GRAIN * BLOCK) / Math.max(1, width));

/** Elementwise operations, layout and reductions (assembly/elementwise.ts, layout.ts, reduce.ts). */
export function elementwiseOperations({ runtime, empty, address, view }: WasmContext): Operations {
  function binary(kernel: "add" | "subtract" | "multiply" | "divide", a: F32, b: F32): F32 {
    checkElementwise(kernel, a, b);
    const args = [address(a), address(b), a.size, Math.max(1, b.size)];
    const target = empty(a.shape);
    runtime.run(kernel, blocksOf(a.size), GRAIN, [address(target), ...args]);
    return target;
  }

  function scale(a: F32, factor: number): F32 {
    checkScale(a);
    const source = address(a);
    const target = empty(a.shape);
    runtime.run("scale", blocksOf(a.size), GRAIN, [address(target), source, a.size, { f32: factor }]);
    return target;
  }

  function addInto(target: F32, a: F32, factor = 1): void {
    checkAddInto(target, a);
    runtime.run("addInto", blocksOf(a.size), GRAIN, [address(target), address(a), a.size, { f32: factor }]);
  }

  function scaleRows(a: F32, factors: F32): F32 {
    const { rows, width } = checkWithRows("scaleRows", a, factors);
    const args = [address(a), address(factors), width];
    const target = empty(a.shape);
    runtime.run("scaleRows", width > 0 ? rows : 0, rowGrain(width), [address(target), ...args]);
    return target;
  }

  /** On the host: for means of k-means, a few thousand numbers. */
  function divideRows(a: F32, divisors: F32): F32 {
    const { rows, width } = checkWithRows("divideRows", a, divisors);
    const [source, divisor] = [view(a), view(divisors)];
    const target = empty(a.shape);
    const out = view(target);
    for (let row = 0; row < rows; row++)
      for (let i = row * width; i < (row + 1) * width; i++) out[i] = source[i] / divisor[row];
    return target;
  }

  function siluMultiply(gate: F32, up: F32): F32 {
    checkSiluMultiply(gate, up);
    const args = [address(gate), address(up), gate.size];
    const target = empty(gate.shape);
    runtime.run("siluMultiply", blocksOf(gate.size), GRAIN / 2, [address(target), ...args]);
    return target;
  }

  function transpose(a: F32): F32 {
    const { rows, columns } = checkTranspose(a);
    const source = address(a);
    const target = empty([columns, rows]);
    if (a.size > 0)
      runtime.run(
        "transpose",
        Math.ceil(columns / 16),
        rowGrain(16 * rows),
        [address(target), source, rows, columns],
        1024,
      );
    return target;
  }

  function gatherRows(table: F32, indices: I32): F32 {
    const { rows, width, count, shape } = checkGatherRows(table, indices);
    checkIndexValues("gatherRows", view(indices) as Int32Array, rows);
    const args = [address(table), address(indices), 4 * width];
    const target = empty(shape);
    if (target.size > 0) runtime.run("gatherRows", count, rowGrain(width), [address(target), ...args]);
    return target;
  }

  async function dot(a: F32, b: F32): Promise<number> {
    checkDot(a, b);
    const blocks = blocksOf(a.size);
    return runtime.withTemporary(8 * blocks, (partial) => {
      runtime.run("dot", blocks, GRAIN, [partial, address(a), address(b), a.size]);
      return new Float64Array(runtime.buffer, partial, blocks).reduce((sum, part) => sum + part, 0);
    });
  }

  async function allFinite(a: F32): Promise<boolean> {
    checkAllFinite(a);
    const blocks = blocksOf(a.size);
    return runtime.withTemporary(4 * blocks, (partial) => {
      runtime.run("allFinite", blocks, GRAIN, [partial, address(a), a.size]);
      return new Int32Array(runtime.buffer, partial, blocks).every((flag) => flag === 1);
    });
  }

  function argmax(a: F32): I32 {
    const { rows, columns } = checkArgmax(a);
    const source = address(a);
    const target = empty([rows], "i32");
    runtime.run("argmax", rows, rowGrain(columns), [address(target), source, columns]);
    return target;
  }

  return {
    add: (a, b) => binary("add", a, b),
    subtract: (a, b) => binary("subtract", a, b),
    multiply: (a, b) => binary("multiply", a, b),
    divide: (a, b) => binary("divide", a, b),
    scale,
    addInto,
    scaleRows,
    divideRows,
    siluMultiply,
    transpose,
    gatherRows,
    dot,
    allFinite,
    argmax,
  };
}
