import { declareKernel } from "../device/device.js";
import type { DeviceMemory } from "../device/memory.js";
import type { Operand, Product, Walk } from "./matmul.js";

const FEW_ROWS = declareKernel("thinmatmul", "matmulFew", {
  reads: { x: "f32", weights: "f32" },
  writes: { y: "f32" },
  numbers: {
    ...({ rows: "u32", columns: "u32", depth: "u32" } as const),
    ...({ fromX: "u32", rowX: "u32", depthX: "u32", stackX: "u32" } as const),
    ...({ fromW: "u32", columnW: "u32", depthW: "u32", stackW: "u32" } as const),
    ...({ fromY: "u32", rowY: "u32", columnY: "u32", stackY: "u32", alpha: "f32", accumulate: "u32" } as const),
  },
  constants: ["ROWS", "ACROSS"],
  samples: [
    [1, 0],
    [8, 1],
  ],
});

interface Roles {
  /** Of up to 8 rows, and how it is walked; the other one is read once, from one end to the other. */
  few: Operand;
  fewWalk: Walk;
  many: Operand;
  manyWalk: Walk;
  /** y^T is computed: the few rows are columns of b. */
  turned: boolean;
}

/** A product of few rows (or of few columns): bound by reading the larger operand. */
export function multiplyFew(memory: DeviceMemory, product: Product, roles: Roles): void {
  const { y, batch, m, n, k, alpha, accumulate } = product;
  const { few, fewWalk, many, manyWalk, turned } = roles;
  const [rows, columns] = turned ? [n, m] : [m, n];
  const across = manyWalk.step === 1;
  const wide = across ? 32 : 8;
  memory.run(FEW_ROWS, {
    groups: batch * Math.ceil(columns / wide),
    tensors: [few.tensor, many.tensor, y.tensor],
    numbers: [
      ...[rows, columns, k],
      ...[few.from, fewWalk.step, fewWalk.depth, few.stack],
      ...[many.from, manyWalk.step, manyWalk.depth, many.stack],
      ...[y.from, turned ? 1 : y.stride, turned ? y.stride : 1, y.stack, alpha, Number(accumulate)],
    ],
    constants: [[1, 2, 4, 8].find((count) => count >= rows) as number, Number(across)],
  });
}
