import type { Engine } from "../engine/engine.js";
import { BitwrightError, numericError } from "../errors.js";
import type { F32 } from "../tensor/index.js";
import { identityOrder, permuteBoth, permuteSymmetric } from "./permute.js";

/** Largest damping that is tried, as a share of the mean diagonal. */
const MOST_DAMPING = 1;

/**
 * The upper triangular U with H^-1 = U^T U, of a positive definite H [N, N].
 *
 * One Cholesky and one triangular inverse: with J the reversal of the order, J H J = L L^T gives H = R R^T, R = J L J
 * upper triangular, and so U = R^-1 = J L^-1 J. (GPTQ, arXiv 2210.17323, section 3.3, inverts H first.) Rejects with
 * kind "numeric" when H is not positive definite.
 */
export function inverseFactor(engine: Engine, hessian: F32): Promise<F32> {
  const reversal = identityOrder(hessian.shape[0]).reverse();
  return engine.scope(async () => {
    const reversed = permuteSymmetric(engine, hessian, reversal);
    const lower = await engine.cholesky(reversed);
    reversed.dispose();
    const inverse = engine.triangularInverse(lower);
    lower.dispose();
    return permuteBoth(engine, inverse, reversal);
  });
}

/** The factor that the column sweeps take: each row of U divided by its diagonal, [N, N]. */
export async function feedbackOf(engine: Engine, factor: F32): Promise<F32> {
  const diagonal = await readDiagonal(engine, factor);
  return engine.scope(() => {
    const inverse = engine.upload(
      diagonal.map((value) => 1 / value),
      [diagonal.length],
      "f32",
    );
    return engine.scaleRows(factor, inverse);
  });
}

/** Diagonal of [N, N] on the host. */
export function readDiagonal(engine: Engine, matrix: F32): Promise<Float32Array> {
  return engine.scope(() => engine.read(engine.diagonal(matrix)));
}

export interface DampedFactor {
  /** H + damping * mean diagonal, in the given order, [N, N]. */
  hessian: F32;
  /** U with hessian^-1 = U^T U, [N, N]. */
  factor: F32;
  /** What was added, as a share of the mean diagonal. */
  damping: number;
}

/**
 * Puts H [N, N] into an order, adds `damping` times its mean diagonal (ten times more, again and again, while it cannot
 * be factored) and factors it. The factor is always computed in the order in which it is used: an upper triangle cannot
 * be put into another order. Dead columns (a diagonal of 0) need no other care than this: the damping makes them
 * positive, and nothing ties them to others.
 */
export function dampedFactor(
  engine: Engine,
  hessian: F32,
  order: Int32Array,
  damping: number,
  name: string,
): Promise<DampedFactor> {
  return engine.scope(async () => {
    const diagonal = await readDiagonal(engine, hessian);
    let mean = 0;
    for (const value of diagonal) mean += value / diagonal.length;
    const unit = mean > 0 ? mean : 1; // inputs that are always zero: any positive diagonal will do
    const damped = permuteSymmetric(engine, hessian, order);
    let applied = 0;
    let share = damping;
    for (;;) {
      engine.addDiagonal(damped, (share - applied) * unit);
      applied = share;
      try {
        return { hessian: damped, factor: await inverseFactor(engine, damped), damping: share };
      } catch (error) {
        if (!(error instanceof BitwrightError) || error.kind !== "numeric") throw error;
        if (share * 10 > MOST_DAMPING)
          throw numericError(
            `${name}: the Hessian of its inputs cannot be factored, even with ${share * 100} % of its mean diagonal added (${error.message})`,
            "calibrate on more, or more varied, text",
          );
        share = Math.max(share * 10, 1e-6);
      }
    }
  });
}
