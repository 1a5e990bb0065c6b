import type { F32, I32 } from "../../tensor/index.js";
import { checkSquare } from "../check.js";
import { declareKernel } from "../device/device.js";
import type { DeviceMemory } from "../device/memory.js";
import { elementGroups } from "../device/operations/elementwise.js";
import type { Engine } from "../engine.js";
import { floatOfBits, notPositive, zeroOnDiagonal } from "../factor-errors.js";

/** Sides of the blocks on the diagonal and of the tiles of products, as in kernels/factor.wgsl and doubleproduct.wgsl. */
const BLOCK = 32;
const TILE = 64;

const CHOLESKY_DIAGONAL = declareKernel("factor", "choleskyDiagonal", {
  writes: { hi: "f32", lo: "f32", inverted: "f32", outcome: "i32" },
  numbers: { size: "u32", first: "u32" },
});
const CHOLESKY_SOLVE = declareKernel("factor", "choleskySolve", {
  reads: { inverted: "f32" },
  writes: { hi: "f32", lo: "f32" },
  numbers: { size: "u32", first: "u32" },
});
const CHOLESKY_UPDATE = declareKernel("doubleproduct", "choleskyUpdate", {
  writes: { hi: "f32", lo: "f32" },
  numbers: { size: "u32", first: "u32" },
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
const CLEAR_UPPER = declareKernel("factor", "clearUpper", {
  writes: { hi: "f32", lo: "f32" },
  numbers: { size: "u32" },
});
const CHECK_DIAGONAL = declareKernel("factor", "checkDiagonal", {
  reads: { source: "f32" },
  writes: { hi: "f32", lo: "f32", fault: "i32" },
  numbers: { size: "u32", check: "i32" },
});

const triangle = (count: number): number => (count * (count + 1)) / 2;

/**
 * Factorisations in double floats: pairs of f32, some 47 bits. The result is the high part; the low one takes as much memory
 * again for a while.
 */
export function factorOperations(memory: DeviceMemory): Pick<Engine, "cholesky" | "triangularInverse"> {
  /** Right-looking, 32 columns at a time: factor their block on the diagonal, solve the rows below, update what is right. */
  function enqueueCholesky(a: F32, n: number): { factor: F32; outcome: I32 } {
    const factor = memory.copy(a);
    const low = memory.create([n, n]);
    const inverted = memory.empty([2, BLOCK, BLOCK]);
    const outcome = memory.create([3], "i32");
    for (let first = 0; first < n; first += BLOCK) {
      const rest = n - first - BLOCK;
      const numbers = [n, first];
      memory.run(CHOLESKY_DIAGONAL, { groups: 1, tensors: [factor, low, inverted, outcome], numbers });
      if (rest <= 0) break;
      memory.run(CHOLESKY_SOLVE, { groups: Math.ceil(rest / BLOCK), tensors: [inverted, factor, low], numbers });
      memory.run(CHOLESKY_UPDATE, { groups: triangle(Math.ceil(rest / TILE)), tensors: [factor, low], numbers });
    }
    memory.run(CLEAR_UPPER, { groups: elementGroups(n * n), tensors: [factor, low], numbers: [n] });
    return { factor, outcome };
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
  function triangularInverse(lower: F32): F32 {
    const n = checkSquare("triangularInverse", lower);
    memory.check(lower);
    const inverse = memory.empty([n, n]);
    if (n === 0) return inverse;
    const fault = memory.fault((_, at) => zeroOnDiagonal(at, n));
    memory.scope(() => {
      const low = memory.empty([n, n]);
      const tensors = [lower, inverse, low];
      memory.run(CHECK_DIAGONAL, { groups: 1, tensors: [...tensors, fault.word], numbers: [n, fault.number] });
      memory.run(INVERT_DIAGONAL, { groups: Math.ceil(n / BLOCK), tensors, numbers: [n] });
      for (let side = BLOCK; side < n; side *= 2) {
        const pairs = Math.ceil((n - side) / (2 * side));
        const groups = pairs * Math.ceil(side / TILE) ** 2;
        memory.run(INVERT_LEFT, { groups, tensors, numbers: [n, side] });
        memory.run(INVERT_RIGHT, { groups, tensors, numbers: [n, side] });
      }
      memory.run(CLEAR_UPPER, { groups: elementGroups(n * n), tensors: [inverse, low], numbers: [n] });
    });
    return inverse;
  }

  return { cholesky, triangularInverse };
}
