import { unsupportedError } from "../../errors.js";
import type { F32 } from "../../tensor/index.js";
import { checkMatmul } from "../check.js";
import { declareKernel } from "../device/device.js";
import type { DeviceMemory } from "../device/memory.js";
import type { Engine } from "../engine.js";
import type { HalfConversion } from "./halves.js";
import { canPack, multiplyPacked } from "./packedmatmul.js";
import { multiplyFew } from "./thinmatmul.js";

/** What an adapter takes at once. */
export interface WebgpuLimits {
  /** Bytes of a binding; larger operands are walked in windows. */
  bindingBytes: number;
  /** Where products may round their operands to f16: the adapter can (halfmatmul.ts), and the user wants it. */
  half?: HalfConversion;
}

/**
 * y [m, n] = alpha op(a) op(b), plus y when `accumulate`, for each of a stack. Windows of larger matrices: `from` elements into
 * the tensor, rows `stride` elements apart.
 */
export interface Product {
  a: Operand;
  transposeA: boolean;
  b: Operand;
  transposeB: boolean;
  y: Operand;
  batch: number;
  m: number;
  n: number;
  k: number;
  alpha: number;
  accumulate: boolean;
  /** Operands may be rounded to f16. */
  half?: HalfConversion;
  /** Only tiles that touch the lower triangle are computed (m = n, no stack); the others are left as they may be. */
  lower?: boolean;
}

export interface Operand {
  tensor: F32;
  from: number;
  /** Elements from one row to the next. */
  stride: number;
  /** Elements from one matrix of the stack to the next. */
  stack: number;
}

/** How an operand is walked: elements from one row of y to the next (from one column, for b), and along the depth. */
export interface Walk {
  step: number;
  depth: number;
}
export const walkOf = ({ stride }: Operand, transposed: boolean): Walk =>
  transposed ? { step: 1, depth: stride } : { step: stride, depth: 1 };

const tileKernel = (name: string) =>
  declareKernel("matmul", name, {
    reads: { a: "f32", b: "f32" },
    writes: { y: "f32" },
    numbers: {
      ...({ rows: "u32", columns: "u32", depth: "u32", splits: "u32", splitDepth: "u32" } as const),
      ...({ fromA: "u32", rowA: "u32", depthA: "u32", stackA: "u32" } as const),
      ...({ fromB: "u32", columnB: "u32", depthB: "u32", stackB: "u32" } as const),
      ...({ fromY: "u32", rowY: "u32", stackY: "u32", alpha: "f32", accumulate: "u32" } as const),
    },
    constants: ["LOWER", "ALONG_A", "ALONG_B"],
    samples: [
      [0, 1, 0],
      [1, 0, 1],
    ],
  });
const LARGE = tileKernel("matmulLarge");
const SMALL = tileKernel("matmulSmall");
const HALF = tileKernel("matmulHalf");
const SUM_SPLITS = declareKernel("thinmatmul", "sumSplits", {
  reads: { parts: "f32" },
  writes: { y: "f32" },
  numbers: { total: "u32", size: "u32", splits: "u32", alpha: "f32", accumulate: "u32" },
});

/** Tiles of 128 where there are so many: they reuse more, but a card has some hundred processors. */
const ENOUGH_LARGE = 100;
/** The same for f16: a tile takes less time. */
const ENOUGH_HALF = 48;
/** Products of fewer tiles of 64 are split in depth, to so many parts and to depths of at least 256. */
const ENOUGH_SMALL = 96;
const SPLIT_TARGET = 192;
const LEAST_DEPTH = 256;
/** Sides of a y that is computed row by row. */
const FEW = 8;

const dense = (tensor: F32, rows: number, columns: number): Operand => {
  return { tensor, from: 0, stride: columns, stack: rows * columns };
};

export function matmulOperations(memory: DeviceMemory, limits: WebgpuLimits): Pick<Engine, "matmul"> {
  return {
    matmul(a, b, options = {}) {
      const { batch, m, k, n, shape } = checkMatmul(a, b, options);
      const { transposeA = false, transposeB = false, alpha = 1, accumulate, exact = false } = options;
      memory.check(a, b);
      const y = accumulate ?? memory.empty(shape);
      const [left, right] = [
        transposeA ? dense(a, k, m) : dense(a, m, k),
        transposeB ? dense(b, n, k) : dense(b, k, n),
      ];
      multiply(memory, limits, {
        ...{ a: left, transposeA, b: right, transposeB, y: dense(y, m, n) },
        ...{ batch, m, n, k, alpha, accumulate: accumulate !== undefined },
        half: exact ? undefined : limits.half,
      });
      return y;
    },
  };
}

/** Enqueues a product, in windows where an operand is larger than a binding. */
export function multiply(memory: DeviceMemory, limits: WebgpuLimits, product: Product): void {
  const { batch, m, n, k } = product;
  if (batch * m * n === 0) return;
  const most = elementsOf(limits);
  const largest = Math.max(m * k, k * n, m * n);
  if (batch * largest <= most) {
    run(memory, product);
    return;
  }
  const together = Math.max(1, Math.floor(most / largest));
  for (let first = 0; first < batch; first += together) {
    const part = { ...product, batch: Math.min(together, batch - first) };
    for (const name of ["a", "b", "y"] as const)
      part[name] = { ...product[name], from: product[name].from + first * product[name].stack };
    multiplyWindows(memory, most, part);
  }
}

/** Elements that a binding holds, wherever it begins: bindings begin at multiples of 256 bytes. */
export const elementsOf = ({ bindingBytes }: WebgpuLimits): number => Math.floor((bindingBytes - 256) / 4);

/** Windows of rows of y, columns of y and depth. */
function multiplyWindows(memory: DeviceMemory, most: number, product: Product): void {
  const { batch, m, n, k, transposeA, transposeB, a, b, y } = product;
  const single = batch === 1 ? most : Number.POSITIVE_INFINITY; // a part of a stack fits
  const rowsThatFit = (stride: number) => Math.floor(single / Math.max(1, stride));
  const blockM = inSteps(m, 128, rowsThatFit(y.stride), transposeA ? m : rowsThatFit(a.stride));
  const blockN = inSteps(n, 128, transposeB ? rowsThatFit(b.stride) : n);
  const blockK = inSteps(
    Math.max(1, k),
    16,
    transposeA ? rowsThatFit(a.stride) : Math.max(1, k),
    transposeB ? Math.max(1, k) : rowsThatFit(b.stride),
  );
  for (let row = 0; row < m; row += blockM)
    for (let column = 0; column < n; column += blockN)
      for (let depth = 0; depth < Math.max(1, k); depth += blockK) {
        const [rows, columns] = [Math.min(blockM, m - row), Math.min(blockN, n - column)];
        const deep = Math.min(blockK, k - depth);
        memory.scope(() =>
          run(memory, {
            ...product,
            ...{ m: rows, n: columns, k: deep, accumulate: product.accumulate || depth > 0 },
            a: window(memory, a, batch, transposeA ? [depth, row, deep, rows] : [row, depth, rows, deep]),
            b: window(memory, b, batch, transposeB ? [column, depth, columns, deep] : [depth, column, deep, columns]),
            y: window(memory, y, batch, [row, column, rows, columns]),
          }),
        );
      }
}

/** The extent of a window: all, or a multiple of `step` that is at most each of the bounds. */
function inSteps(extent: number, step: number, ...bounds: number[]): number {
  const bound = Math.min(extent, ...bounds);
  if (bound === extent) return extent;
  const result = bound > step ? bound - (bound % step) : bound;
  if (result > 0) return result;
  throw unsupportedError(
    "matmul: one row of a matrix is larger than the WebGPU device takes at once",
    "another card, or --engine wasm",
  );
}

/** A view of the rows and columns [row, column, rows, columns] of each matrix of a stack. */
function window(
  memory: DeviceMemory,
  operand: Operand,
  batch: number,
  [row, column, rows, columns]: [number, number, number, number],
): Operand {
  const { tensor, from, stride, stack } = operand;
  const begin = from + row * stride + column;
  const length = rows * columns === 0 ? 0 : (batch - 1) * stack + (rows - 1) * stride + columns;
  return { tensor: memory.view(tensor, [length], length === 0 ? 0 : begin), from: 0, stride, stack };
}

/** One product whose operands can be bound. */
function run(memory: DeviceMemory, product: Product): void {
  const { a, b, m, n, lower } = product;
  const [walkA, walkB] = [walkOf(a, product.transposeA), walkOf(b, !product.transposeB)];
  if (!lower && m <= FEW)
    multiplyFew(memory, product, { few: a, fewWalk: walkA, many: b, manyWalk: walkB, turned: false });
  else if (!lower && n <= FEW)
    multiplyFew(memory, product, { few: b, fewWalk: walkB, many: a, manyWalk: walkA, turned: true });
  else multiplyTiles(memory, product, walkA, walkB);
}

function multiplyTiles(memory: DeviceMemory, product: Product, walkA: Walk, walkB: Walk): void {
  const { a, b, y, batch, m, n, k, alpha, accumulate, lower = false } = product;
  const tilesOf = (side: number) => {
    const [down, across] = [Math.ceil(m / side), Math.ceil(n / side)];
    return batch * (lower ? (down * (down + 1)) / 2 : down * across);
  };
  const half = tilesOf(128) >= ENOUGH_HALF ? product.half : undefined;
  if (half && canPack(product, walkA, walkB)) {
    multiplyPacked(memory, half, product, walkA, walkB);
    return;
  }
  half?.lookThrough(a.tensor);
  half?.lookThrough(b.tensor);
  const large = half !== undefined || tilesOf(128) >= ENOUGH_LARGE;
  const tiles = tilesOf(large ? 128 : 64);
  const splittable = !large && tiles < ENOUGH_SMALL && y.stride === n && (batch === 1 || y.stack === m * n);
  const parts = splittable ? Math.min(Math.ceil(SPLIT_TARGET / tiles), Math.floor(k / LEAST_DEPTH)) : 1;
  const splitDepth = parts > 1 ? 16 * Math.ceil(k / parts / 16) : k;
  const splits = parts > 1 ? Math.ceil(k / splitDepth) : 1;

  const tile = (target: Operand, factor: number, adds: boolean) =>
    memory.run(half ? HALF : large ? LARGE : SMALL, {
      groups: tiles * splits,
      tensors: [a.tensor, b.tensor, target.tensor],
      numbers: [
        ...[m, n, k, splits, splitDepth],
        ...[a.from, walkA.step, walkA.depth, a.stack],
        ...[b.from, walkB.step, walkB.depth, b.stack],
        ...[target.from, target.stride, target.stack, factor, Number(adds)],
      ],
      constants: [Number(lower), Number(walkA.depth === 1), Number(walkB.depth === 1)],
    });
  if (splits === 1) {
    tile(y, alpha, accumulate);
    return;
  }
  memory.scope(() => {
    const sums = memory.empty([batch * splits, m, n]);
    tile(dense(sums, m, n), 1, false);
    const target = memory.view(y.tensor, [batch * m * n], y.from);
    memory.run(SUM_SPLITS, {
      groups: Math.ceil(target.size / 1024),
      tensors: [sums, target],
      numbers: [target.size, m * n, splits, alpha, Number(accumulate)],
    });
  });
}
