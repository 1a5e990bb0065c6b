import type { Engine } from "../engine/engine.js";
import type { F32, I32 } from "../tensor/index.js";

/** 0 .. count-1. */
export const identityOrder = (count: number): Int32Array => Int32Array.from({ length: count }, (_, i) => i);

/** Indices of `keys` from the largest to the smallest; of equals, the first comes first. */
export const descendingOrder = (keys: ArrayLike<number>): Int32Array =>
  identityOrder(keys.length).sort((a, b) => keys[b] - keys[a]);

/** a[order][:, order] for a symmetric a [N, N]. */
export function permuteSymmetric(engine: Engine, a: F32, order: Int32Array): F32 {
  return engine.scope(() => transposedPermutation(engine, a, engine.upload(order, [order.length], "i32")));
}

/** a[order][:, order], [N, N]. */
export function permuteBoth(engine: Engine, a: F32, order: Int32Array): F32 {
  return engine.scope(() => {
    const permuted = transposedPermutation(engine, a, engine.upload(order, [order.length], "i32"));
    return engine.transpose(permuted);
  });
}

/** (a[order][:, order])^T. Large matrices pass through here, so each step frees the one before. */
export function transposedPermutation(engine: Engine, a: F32, order: I32): F32 {
  const rows = engine.gatherRows(a, order);
  const turned = engine.transpose(rows);
  rows.dispose();
  const result = engine.gatherRows(turned, order);
  turned.dispose();
  return result;
}
