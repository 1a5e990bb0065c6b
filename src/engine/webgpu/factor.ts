import type { F32, I32 } from "../../tensor/index.js";
import { checkSquare } from "../check.js";
import { declareKernel } from "../device/device.js";
import type { DeviceMemory } from "../device/memory.js";
import { elementGroups } from "../device/operations/elementwise.js";
import { matrixOperations } from "../device/operations/matrices.js";
import { copyRows, exceeds, windowsOf } from "../device/windows.js";
import type { Engine } from "../engine.js";
import { floatOfBits, notPositive, zeroOnDiagonal } from "../factor-errors.js";

/** Sides of the blocks on the diagonal and of the tiles of products, as in kernels/factor.wgsl and doubleproduct.wgsl. */
const BLOCK = 32;
const TILE = 64;

// Of rows begin .. of a matrix: the columns of a step begin at `first`, its rows at `top` and end before `end`.
const STEP = { size: "u32", begin: "u32", first: "u32", top: "u32", end: "u32" } as const;
const CHOLESKY_DIAGONAL = declareKernel("factor", "choleskyDiagonal", {
  writes: { hi: "f32", lo: "f32", inverted: "f32", outcome: "i32" },
  numbers: { size: "u32", begin: "u32", first: "u32" },
});
const CHOLESKY_SOLVE = declareKernel("factor", "choleskySolve", {
  reads: { inverted: "f32" },
  writes: { hi: "f32", lo: "f32", panel: "f32" },
  numbers: STEP,
});
const CHOLESKY_UPDATE = declareKernel("doubleproduct", "choleskyUpdate", {
  reads: { panel: "f32" },
  writes: { hi: "f32", lo: "f32" },
  numbers: { ...STEP, across: "u32" },
});
const INVERT_DIAGONAL = declareKernel("factor", "invertDiagonal", {
  reads: { source: "f32" },
  writes: { hi: "f32", lo: "f32" },
  numbers: { size: "u32" },
});
const invertKernel = (name: string) =>
  declareKernel("doubleproduct", name, {
    reads: { source: "f32" },
    writes: { hi: "f32", lo: "f32" },
    numbers: { size: "u32", side: "u32" },
  });
const INVERT_LEFT = invertKernel("invertLeft");
const INVERT_RIGHT = invertKernel("invertRight");
const PRODUCT = declareKernel("doubleproduct", "doubleProduct", {
  reads: { aHi: "f32", aLo: "f32", bHi: "f32", bLo: "f32" },
  writes: { hi: "f32", lo: "f32" },
  numbers: { rows: "u32", columns: "u32", size: "u32", keep: "u32", negative: "u32" },
});
const CLEAR_UPPER = declareKernel("factor", "clearUpper", {
  writes: { hi: "f32", lo: "f32" },
  numbers: { size: "u32", begin: "u32", rows: "u32" },
});
const CHECK_DIAGONAL = declareKernel("factor", "checkDiagonal", {
  reads: { source: "f32" },
  writes: { hi: "f32", lo: "f32", fault: "i32" },
  numbers: { size: "u32", step: "u32", check: "i32" },
});

const triangle = (count: number): number => (count * (count + 1)) / 2;

/**
 * Factorisations in double floats: pairs of f32, some 47 bits. The result is the high part; the low one takes as much memory
 * again for a while.
 */
export function factorOperations(memory: DeviceMemory): Pick<Engine, "cholesky" | "triangularInverse"> {
  /**
   * Right-looking, 32 columns at a time: factor their block on the diagonal, solve the rows below, update what is right; in windows of
   * rows, which see each other's columns of the step in `panel`.
   */
  function enqueueCholesky(a: F32, n: number): { factor: F32; outcome: I32 } {
    const factor = memory.copy(a);
    const low = memory.create([n, n]);
    const inverted = memory.empty([2, BLOCK, BLOCK]);
    const panel = memory.empty([2, n, BLOCK]);
    const outcome = memory.create([3], "i32");
    const windows = windowsOf(memory, n, 4 * n * BLOCK, BLOCK).map(({ first, count }) => ({
      begin: first,
      end: first + count,
      tensors: [factor, low].map((one) => memory.view(one, [count, n], first * n)),
    }));
    for (let first = 0; first < n; first += BLOCK) {
      const next = first + BLOCK;
      for (const { begin, end, tensors } of windows)
        if (begin <= first && first < end)
          memory.run(CHOLESKY_DIAGONAL, {
            groups: 1,
            tensors: [...tensors, inverted, outcome],
            numbers: [n, begin, first],
          });
      const below = windows
        .filter(({ end }) => end > next)
        .map((window) => ({ ...window, top: Math.max(window.begin, next) }));
      for (const { begin, top, end, tensors } of below)
        memory.run(CHOLESKY_SOLVE, {
          groups: Math.ceil((end - top) / BLOCK),
          tensors: [inverted, ...tensors, panel],
          numbers: [n, begin, first, top, end],
        });
      for (const { begin, top, end, tensors } of below) {
        const tiles = Math.ceil((end - top) / TILE);
        const across = top > next ? Math.ceil((end - next) / TILE) : 0;
        memory.run(CHOLESKY_UPDATE, {
          groups: across > 0 ? tiles * across : triangle(tiles),
          tensors: [panel, ...tensors],
          numbers: [n, begin, first, top, end, across],
        });
      }
    }
    for (const { begin, end, tensors } of windows) clearUpper(tensors, n, begin, end - begin);
    return { factor, outcome };
  }

  /** Of rows [begin, begin + rows) of a matrix of n columns. */
  function clearUpper(tensors: readonly F32[], n: number, begin: number, rows: number): void {
    memory.run(CLEAR_UPPER, { groups: elementGroups(rows * n), tensors, numbers: [n, begin, rows] });
  }

  async function cholesky(a: F32): Promise<F32> {
    const n = checkSquare("cholesky", a);
    memory.check(a);
    if (n === 0) return memory.empty([0, 0]);
    const { factor, outcome } = memory.scope(() => enqueueCholesky(a, n));
    try {
      const [failed, pivot, bits] = await memory.read(outcome);
      if (failed === 0) return factor;
      throw notPositive(floatOfBits(bits), pivot, n);
    } catch (error) {
      factor.dispose();
      throw error;
    } finally {
      outcome.dispose();
    }
  }

  /** The inverses of blocks on the diagonal, then of blocks of twice the side from those of pairs, until one is left. */
  function invert(lower: F32, inverse: F32, low: F32, n: number): void {
    const tensors = [lower, inverse, low];
    memory.run(INVERT_DIAGONAL, { groups: Math.ceil(n / BLOCK), tensors, numbers: [n] });
    for (let side = BLOCK; side < n; side *= 2) {
      const pairs = Math.ceil((n - side) / (2 * side));
      const groups = pairs * Math.ceil(side / TILE) ** 2;
      memory.run(INVERT_LEFT, { groups, tensors, numbers: [n, side] });
      memory.run(INVERT_RIGHT, { groups, tensors, numbers: [n, side] });
    }
    clearUpper([inverse, low], n, 0, n);
  }

  function triangularInverse(lower: F32): F32 {
    const n = checkSquare("triangularInverse", lower);
    memory.check(lower);
    const large = exceeds(memory, [lower]);
    const inverse = large ? memory.create([n, n]) : memory.empty([n, n]);
    if (n === 0) return inverse;
    const fault = memory.fault((_, at) => zeroOnDiagonal(at, n));
    memory.scope(() => {
      const low = large ? memory.create([n, n]) : memory.empty([n, n]);
      const diagonal = large ? matrixOperations(memory).diagonal(lower) : lower;
      const two = large ? [memory.empty([1]), memory.empty([1])] : [inverse, low]; // not looked at
      const numbers = [n, large ? 1 : n + 1, fault.number];
      memory.run(CHECK_DIAGONAL, { groups: 1, tensors: [diagonal, ...two, fault.word], numbers });
      if (large) invertInBlocks(memory, lower, { hi: inverse, lo: low }, invert);
      else invert(lower, inverse, low, n);
    });
    return inverse;
  }

  return { cholesky, triangularInverse };
}

/** A matrix in double floats. */
interface Doubles {
  hi: F32;
  lo: F32;
}

/**
 * The same inverse where the matrix cannot be bound: in blocks that can, copied out and back. `inverse` is 0 before; `invert` fills
 * hi and lo of a block on the diagonal.
 */
function invertInBlocks(
  memory: DeviceMemory,
  lower: F32,
  inverse: Doubles,
  invert: (lower: F32, hi: F32, lo: F32, n: number) => void,
): void {
  const n = lower.shape[0];
  let block = BLOCK;
  while (16 * block ** 2 <= memory.windowBytes) block *= 2;
  const place = (tensor: F32, row: number, column: number) => ({ tensor, at: row * n + column, stride: n });
  const dense = (tensor: F32) => ({ tensor, at: 0, stride: tensor.shape[1] });
  const empty = (rows: number, columns: number): Doubles => {
    return { hi: memory.empty([rows, columns]), lo: memory.empty([rows, columns]) };
  };
  const take = (from: F32, row: number, column: number, rows: number, columns: number): F32 => {
    const part = memory.empty([rows, columns]);
    copyRows(memory, place(from, row, column), dense(part), rows, columns);
    return part;
  };
  const put = ({ hi, lo }: Doubles, row: number, column: number) => {
    const [rows, columns] = hi.shape;
    copyRows(memory, dense(hi), place(inverse.hi, row, column), rows, columns);
    copyRows(memory, dense(lo), place(inverse.lo, row, column), rows, columns);
  };
  const takeInverse = (row: number, column: number, rows: number, columns: number): Doubles => {
    return { hi: take(inverse.hi, row, column, rows, columns), lo: take(inverse.lo, row, column, rows, columns) };
  };
  const multiply = (a: Doubles, b: Doubles, y: Doubles, keep: boolean, negative: boolean) => {
    const [rows, columns] = y.hi.shape;
    memory.run(PRODUCT, {
      groups: Math.ceil(rows / TILE) * Math.ceil(columns / TILE),
      tensors: [a.hi, a.lo, b.hi, b.lo, y.hi, y.lo],
      numbers: [rows, columns, a.hi.shape[1], Number(keep), Number(negative)],
    });
  };
  /** [begin, begin + size) of each block of `extent` rows or columns. */
  const blocks = (extent: number) =>
    Array.from({ length: Math.ceil(extent / block) }, (_, index) => {
      const begin = index * block;
      return { begin, size: Math.min(block, extent - begin) };
    });

  for (const { begin, size } of blocks(n))
    memory.scope(() => {
      const { hi, lo } = empty(size, size);
      invert(take(lower, begin, begin, size, size), hi, lo, size);
      memory.run(CLEAR_UPPER, { groups: elementGroups(size * size), tensors: [lo, hi], numbers: [size, 0, size] });
      put({ hi, lo }, begin, begin);
    });
  // [[A, 0], [B, C]]: B A^-1, then -C^-1 times it
  for (let side = block; side < n; side *= 2)
    for (let first = 0; first + side < n; first += 2 * side) {
      const second = first + side;
      const [ofRows, ofColumns] = [blocks(Math.min(side, n - second)), blocks(side)];
      for (const column of ofColumns)
        memory.scope(() => {
          const products = ofRows.map((row) => {
            const y = empty(row.size, column.size);
            for (const { begin, size } of ofColumns)
              if (begin >= column.begin)
                memory.scope(() => {
                  const b = take(lower, second + row.begin, first + begin, row.size, size);
                  const a = takeInverse(first + begin, first + column.begin, size, column.size);
                  multiply({ hi: b, lo: memory.create(b.shape) }, a, y, begin > column.begin, false);
                });
            return y;
          });
          for (const row of ofRows)
            memory.scope(() => {
              const y = empty(row.size, column.size);
              for (const [index, { begin, size }] of ofRows.entries())
                if (begin <= row.begin)
                  memory.scope(() => {
                    const c = takeInverse(second + row.begin, second + begin, row.size, size);
                    multiply(c, products[index], y, begin > 0, true);
                  });
              put(y, second + row.begin, first + column.begin);
            });
        });
    }
}
