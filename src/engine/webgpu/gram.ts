import type { F32 } from "../../tensor/index.js";
import { checkGram } from "../check.js";
import { declareKernel } from "../device/device.js";
import type { DeviceMemory } from "../device/memory.js";
import { elementGroups, elementwiseOperations } from "../device/operations/elementwise.js";
import type { Engine } from "../engine.js";
import { elementsOf, multiply, type WebgpuLimits } from "./matmul.js";

const MIRROR = declareKernel("gram", "mirrorLower", { writes: { y: "f32" }, numbers: { side: "u32" } });
const ADD = declareKernel("gram", "gramAdd", {
  writes: { y: "f32", p: "f32" },
  numbers: { size: "u32", columns: "u32", side: "u32", begin: "u32" },
});
const TURN = declareKernel("gram", "gramTurn", {
  reads: { p: "f32" },
  writes: { y: "f32" },
  numbers: { size: "u32", rows: "u32", columns: "u32", side: "u32", begin: "u32", diagonal: "u32" },
});

/** Rows [first, first + count) of a matrix. */
const rowsOf = (memory: DeviceMemory, a: F32, width: number, first: number, count: number): F32 =>
  memory.view(a, [count, width], first * width);

export function gramOperations(memory: DeviceMemory, limits: WebgpuLimits): Pick<Engine, "gram"> {
  const { scaleRows } = elementwiseOperations(memory);
  const most = elementsOf(limits);

  /** target [height, width] (+)= columns [row, row + height) of x, transposed, times columns [column, ..) of the weighted x. */
  function multiplyColumns(
    target: F32,
    [row, column, height, width]: readonly [number, number, number, number],
    { x, weighted, adds }: { x: F32; weighted: F32; adds: boolean },
    lower: boolean,
  ): void {
    const [rows, n] = x.shape;
    multiply(memory, limits, {
      a: { tensor: x, from: row, stride: n, stack: 0 },
      transposeA: true,
      b: { tensor: weighted, from: column, stride: n, stack: 0 },
      transposeB: false,
      y: { tensor: target, from: 0, stride: width, stack: 0 },
      ...{ batch: 1, m: height, n: width, k: rows, alpha: 1, accumulate: adds, lower },
    });
  }

  /** Calls `body` with so many rows of x at a time as can be bound; at least once. */
  function windows(x: F32, weights: F32 | undefined, body: (x: F32, weighted: F32) => void): void {
    const [rows, n] = x.shape;
    const together = Math.max(1, Math.min(rows, Math.floor(most / Math.max(1, n))));
    let first = 0;
    do {
      const count = Math.min(together, rows - first);
      memory.scope(() => {
        const part = count === rows ? x : rowsOf(memory, x, n, first, count);
        body(part, weights ? scaleRows(part, memory.view(weights, [count], first)) : part);
      });
      first += together;
    } while (first < rows);
  }

  /** The lower triangle in blocks, for matrices that cannot be bound. */
  function gramInBlocks(accumulator: F32, x: F32, weights: F32 | undefined): void {
    const n = x.shape[1];
    const side = Math.max(1, Math.min(Math.floor(most / n), Math.floor(Math.sqrt(most))));
    for (let row = 0; row < n; row += side)
      for (let column = 0; column <= row; column += side)
        memory.scope(() => {
          const [height, width] = [Math.min(side, n - row), Math.min(side, n - column)];
          const p = memory.empty([height, width]);
          let adds = false;
          windows(x, weights, (part, weighted) => {
            multiplyColumns(p, [row, column, height, width], { x: part, weighted, adds }, false);
            adds = true;
          });
          memory.run(ADD, {
            groups: elementGroups(p.size),
            tensors: [rowsOf(memory, accumulator, n, row, height), p],
            numbers: [p.size, width, n, column],
          });
          memory.run(TURN, {
            groups: elementGroups(p.size),
            tensors: [p, rowsOf(memory, accumulator, n, column, width)],
            numbers: [p.size, height, width, n, row, Number(row === column)],
          });
        });
  }

  return {
    gram(accumulator, x, weights) {
      const { columns: n } = checkGram(accumulator, x, weights);
      memory.check(accumulator, x);
      if (n === 0) return;
      if (n * n > most) {
        gramInBlocks(accumulator, x, weights);
        return;
      }
      windows(x, weights, (part, weighted) =>
        multiplyColumns(accumulator, [0, 0, n, n], { x: part, weighted, adds: true }, true),
      );
      const tiles = Math.ceil(n / 32);
      memory.run(MIRROR, { groups: (tiles * (tiles + 1)) / 2, tensors: [accumulator], numbers: [n] });
    },
  };
}
