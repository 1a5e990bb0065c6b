import { checkSquare } from "../check.js";
import { declareKernel } from "../device/device.js";
import type { DeviceMemory } from "../device/memory.js";
import { elementGroups } from "../device/operations/elementwise.js";
import type { Engine } from "../engine.js";
import { floatOfBits, notPositive, zeroOnDiagonal } from "../factor-errors.js";
import { addressOf } from "./device.js";
import type { Cublas } from "./products.js";

// Factorisations in f64. Blocked and right-looking (Golub and Van Loan, Matrix Computations, 4.2.9): a kernel factors a
// diagonal block, cuBLAS solves the panel below it and updates what is left.

const BLOCK = 64;
const [LEFT, RIGHT, UPPER, PLAIN, TRANSPOSED, NON_UNIT] = [0, 1, 1, 0, 1, 0];

// f64 has no tensors: matrices of doubles are f32 tensors of twice the width
const WIDEN = declareKernel("factor", "widenLower", {
  reads: { a: "f32" },
  writes: { d: "f32" },
  numbers: { n: "u32" },
});
const NARROW = declareKernel("factor", "narrowLower", {
  reads: { d: "f32" },
  writes: { a: "f32" },
  numbers: { n: "u32" },
});
const IDENTITY = declareKernel("factor", "identity", {
  reads: { lower: "f32" },
  writes: { d: "f32", fault: "i32" },
  numbers: { n: "u32", check: "i32" },
});
const DIAGONAL_BLOCK = declareKernel("factor", "choleskyBlock", {
  writes: { d: "f32", fault: "i32" },
  numbers: { n: "u32", begin: "u32", size: "u32", check: "i32" },
  threads: BLOCK,
});

const one = Float64Array.of(1);
const minusOne = Float64Array.of(-1);

export const factorOperations = (
  memory: DeviceMemory,
  cublas: Cublas,
): Pick<Engine, "cholesky" | "triangularInverse"> => ({
  async cholesky(a) {
    const n = checkSquare("cholesky", a);
    memory.check(a);
    const result = memory.empty([n, n]);
    if (n === 0) return result;
    memory.scope(() => {
      const wide = memory.empty([n, 2 * n]);
      memory.run(WIDEN, { groups: elementGroups(n * n), tensors: [a, wide], numbers: [n] });
      const base = addressOf(memory.blockOf(wide));
      const at = (row: number, column: number) => base + 8 * (row * n + column);
      const fault = memory.fault((bits, pivot) => notPositive(floatOfBits(bits), pivot, n));
      for (let begin = 0; begin < n; begin += BLOCK) {
        const size = Math.min(BLOCK, n - begin);
        const end = begin + size;
        const rest = n - end;
        const numbers = [n, begin, size, fault.number];
        memory.run(DIAGONAL_BLOCK, { groups: 1, tensors: [wide, fault.word], numbers });
        if (rest === 0) break;
        // by columns, our lower triangle is an upper one: rows below the block are columns right of it, U^T X = A
        const { handle } = cublas;
        const solve = [handle, LEFT, UPPER, TRANSPOSED, NON_UNIT, size, rest, one];
        cublas.call("cublasDtrsm", ...solve, at(begin, begin), n, at(end, begin), n);
        const update = [handle, UPPER, TRANSPOSED, rest, size, minusOne];
        cublas.call("cublasDsyrk", ...update, at(end, begin), n, one, at(end, end), n);
      }
      memory.run(NARROW, { groups: elementGroups(n * n), tensors: [wide, result], numbers: [n] });
    });
    await memory.checkFaults();
    return result;
  },

  triangularInverse(lower) {
    const n = checkSquare("triangularInverse", lower);
    memory.check(lower);
    const result = memory.empty([n, n]);
    if (n === 0) return result;
    memory.scope(() => {
      const [wide, inverse] = [memory.empty([n, 2 * n]), memory.empty([n, 2 * n])];
      const fault = memory.fault((_, at) => zeroOnDiagonal(at, n));
      memory.run(WIDEN, { groups: elementGroups(n * n), tensors: [lower, wide], numbers: [n] });
      const numbers = [n, fault.number];
      memory.run(IDENTITY, { groups: elementGroups(n * n), tensors: [lower, inverse, fault.word], numbers });
      const [factor, identity] = [wide, inverse].map((tensor) => addressOf(memory.blockOf(tensor)));
      // by columns X U = I with U = L^T; X^T, which is what lies in our rows, is the inverse of L
      const solve = [cublas.handle, RIGHT, UPPER, PLAIN, NON_UNIT, n, n, one];
      cublas.call("cublasDtrsm", ...solve, factor, n, identity, n);
      memory.run(NARROW, { groups: elementGroups(n * n), tensors: [inverse, result], numbers: [n] });
    });
    return result;
  },
});
