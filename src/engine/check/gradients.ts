import { usageError } from "../../errors.js";
import { sameShape, sizeOf, type Tensor } from "../../tensor/index.js";
import type { AdamwOptions, AttentionOptions } from "../engine.js";
import { checkApart, isF32, misfit } from "./basis.js";
import { type AttentionExtents, checkAttention } from "./decoder.js";

// Vector-Jacobian products and the step of training.

/** Inputs of an elementwise operation and the gradient of its result. */
export function checkSameShapes(operation: string, first: Tensor, ...others: Tensor[]): void {
  if (!isF32(first, ...others) || !others.every((other) => sameShape(other.shape, first.shape)))
    throw misfit(operation, "f32, all of one shape", first, ...others);
}

/** x and the gradient [.., D], weight [D]. */
export function checkNormGrad(
  operation: string,
  x: Tensor,
  weight: Tensor,
  grad: Tensor,
): { rows: number; width: number } {
  const width = x.shape.at(-1);
  const fits = width !== undefined && sameShape(weight.shape, [width]) && sameShape(grad.shape, x.shape);
  if (!isF32(x, weight, grad) || !fits)
    throw misfit(operation, "f32 [.., D], f32 [D] and a gradient in the shape of the first", x, weight, grad);
  return { rows: sizeOf(x.shape.slice(0, -1)), width };
}

/** q, output and the gradient [B, T, H, d], k and v [B, T, K, d]. */
export function checkAttentionGrad(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  output: Tensor,
  grad: Tensor,
  options: AttentionOptions,
): AttentionExtents {
  const extents = checkAttention(q, k, v, options, "attentionGrad");
  if (extents.capacity !== extents.tokens || extents.keyLength !== extents.tokens)
    throw usageError(
      `attentionGrad: expected keys of the ${extents.tokens} tokens of the queries, got ${extents.keyLength} of ${extents.capacity}`,
      "differentiate the attention of whole sequences, without a keyLength",
    );
  if (!isF32(output, grad) || !sameShape(output.shape, q.shape) || !sameShape(grad.shape, q.shape))
    throw misfit("attentionGrad", "an output and a gradient f32 in the shape of q", q, output, grad);
  return extents;
}

export function checkAdamwStep(
  parameter: Tensor,
  gradient: Tensor,
  first: Tensor,
  second: Tensor,
  { step, beta1, beta2 }: AdamwOptions,
): void {
  checkSameShapes("adamwStep", parameter, gradient, first, second);
  checkApart("adamwStep", parameter, gradient, first, second);
  checkApart("adamwStep", first, gradient, second);
  checkApart("adamwStep", second, gradient);
  if (!Number.isSafeInteger(step) || step < 1)
    throw usageError(`adamwStep: expected the number of the step from 1 on, got ${step}`);
  if (![beta1, beta2].every((beta) => beta >= 0 && beta < 1))
    throw usageError(`adamwStep: expected both betas from 0 to below 1, got ${beta1} and ${beta2}`);
}
