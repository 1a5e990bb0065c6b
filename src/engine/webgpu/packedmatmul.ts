import { declareKernel } from "../device/device.js";
import type { DeviceMemory } from "../device/memory.js";
import type { HalfConversion } from "./halves.js";
import type { Product, Walk } from "./matmul.js";

// Products of operands that are converted to f16 once and kept so while their tensor is unchanged.

const PACKED = declareKernel("packedmatmul", "matmulPacked", {
  reads: { a: "f16", b: "f16" },
  writes: { y: "f32" },
  numbers: {
    ...({ rows: "u32", columns: "u32", depth: "u32" } as const),
    ...({ fromA: "u32", rowA: "u32", depthA: "u32", stackA: "u32" } as const),
    ...({ fromB: "u32", columnB: "u32", depthB: "u32", stackB: "u32" } as const),
    ...({ fromY: "u32", rowY: "u32", stackY: "u32", alpha: "f32", accumulate: "u32" } as const),
  },
  constants: ["ALONG_A", "ALONG_B"],
  samples: [
    [1, 1],
    [0, 0],
  ],
  threads: 128,
});
/** Of a group's tile. */
const SIDE = 128;

/** Whether a product's operands can be walked by words of 8 numbers. */
export function canPack({ a, b, batch, m, n, k, lower = false }: Product, walkA: Walk, walkB: Walk): boolean {
  const eights = (...numbers: number[]) => numbers.every((number) => number % 8 === 0);
  const words = ({ step, depth }: Walk, side: number) =>
    depth === 1 ? eights(step, k) : step === 1 && eights(depth, side);
  if (lower || !words(walkA, m) || !words(walkB, n) || !eights(a.from, b.from)) return false;
  return batch === 1 || eights(a.stack, b.stack);
}

/** Enqueues a product for which `canPack` holds. */
export function multiplyPacked(
  memory: DeviceMemory,
  { packedOf }: HalfConversion,
  product: Product,
  walkA: Walk,
  walkB: Walk,
): void {
  const { a, b, y, batch, m, n, k, alpha, accumulate } = product;
  memory.runOn(
    PACKED,
    {
      groups: batch * Math.ceil(m / SIDE) * Math.ceil(n / SIDE),
      numbers: [
        ...[m, n, k],
        ...[a.from, walkA.step, walkA.depth, a.stack],
        ...[b.from, walkB.step, walkB.depth, b.stack],
        ...[y.from, y.stride, y.stack, alpha, Number(accumulate)],
      ],
      constants: [Number(walkA.depth === 1), Number(walkB.depth === 1)],
    },
    [packedOf(a.tensor), packedOf(b.tensor), memory.bindingOf(y.tensor)],
  );
}
