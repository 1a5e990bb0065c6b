import { usageError } from "../../errors.js";
import { sameShape, sizeOf, type Tensor } from "../../tensor/index.js";
import type { AttentionOptions } from "../engine.js";
import { isCount, isF32, misfit } from "./basis.js";

/** x [.., D], weight [D]. */
export function checkRmsNorm(x: Tensor, weight: Tensor): { rows: number; width: number } {
  const width = x.shape.at(-1);
  if (!isF32(x, weight) || width === undefined || !sameShape(weight.shape, [width]))
    throw misfit("rmsNorm", "f32 [.., D] and f32 [D]", x, weight);
  return { rows: sizeOf(x.shape.slice(0, -1)), width };
}

/** x [.., D], weight and bias [D]. */
export function checkLayerNorm(x: Tensor, weight: Tensor, bias: Tensor): { rows: number; width: number } {
  const width = x.shape.at(-1);
  const fits = width !== undefined && sameShape(weight.shape, [width]) && sameShape(bias.shape, [width]);
  if (!isF32(x, weight, bias) || !fits) throw misfit("layerNorm", "f32 [.., D] and twice f32 [D]", x, weight, bias);
  return { rows: sizeOf(x.shape.slice(0, -1)), width };
}

export interface RopeExtents {
  batch: number;
  tokens: number;
  heads: number;
  size: number;
  /** r. */
  pairs: number;
}

export function checkRope(x: Tensor, cos: Tensor, sin: Tensor, start: number): RopeExtents {
  const [batch, tokens, heads, size] = x.shape;
  const [positions, pairs] = cos.shape;
  if (
    !isF32(x, cos, sin) ||
    x.shape.length !== 4 ||
    cos.shape.length !== 2 ||
    !sameShape(cos.shape, sin.shape) ||
    2 * pairs > size
  )
    throw misfit("rope", "f32 [B, T, H, d] and twice f32 [positions, r] with 2r <= d", x, cos, sin);
  if (!isCount(start) || start + tokens > positions)
    throw usageError(`rope: expected tokens within ${positions} positions, got ${tokens} from position ${start} on`);
  return { batch, tokens, heads, size, pairs };
}

export interface AttentionExtents {
  batch: number;
  /** T. */
  tokens: number;
  /** S of the tensors. */
  capacity: number;
  /** Valid positions, T <= keyLength <= S. */
  keyLength: number;
  /** H and K; H / K query heads share a key-value head. */
  heads: number;
  keyValueHeads: number;
  size: number;
  /** Positions that a query sees at most, itself included. */
  window: number;
}

export function checkAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: AttentionOptions,
  operation = "attention",
): AttentionExtents {
  const [batch, tokens, heads, size] = q.shape;
  const [, capacity, keyValueHeads] = k.shape;
  const grouped = keyValueHeads > 0 ? heads % keyValueHeads === 0 : heads === 0;
  if (
    !isF32(q, k, v) ||
    q.shape.length !== 4 ||
    !sameShape(k.shape, [batch, capacity, keyValueHeads, size]) ||
    !sameShape(k.shape, v.shape) ||
    !grouped
  )
    throw misfit(operation, "f32 [B, T, H, d] and twice f32 [B, S, K, d] with H a multiple of K", q, k, v);
  const { scale, keyLength = capacity, window = Number.MAX_SAFE_INTEGER, slopes } = options;
  if (slopes && !(isF32(slopes) && sameShape(slopes.shape, [heads])))
    throw misfit(operation, `a slope for each of ${heads} heads, f32`, slopes);
  if (!isCount(keyLength) || keyLength > capacity || keyLength < tokens)
    throw usageError(`${operation}: expected a keyLength from T = ${tokens} to S = ${capacity}, got ${keyLength}`);
  if (!(window >= 1)) throw usageError(`${operation}: expected a window of at least 1, got ${window}`);
  if (!Number.isFinite(scale)) throw usageError(`${operation}: expected a finite scale, got ${scale}`);
  return {
    batch,
    tokens,
    capacity,
    keyLength,
    heads,
    keyValueHeads,
    size,
    window: Math.floor(Math.min(window, keyLength)),
  };
}

/** logits [T, V], targets i32 [T]. Their values are for `checkIndexValues`. */
export function checkCrossEntropy(logits: Tensor, targets: Tensor): { rows: number; columns: number } {
  const [rows, columns] = logits.shape;
  if (!isF32(logits) || logits.shape.length !== 2 || targets.dtype !== "i32" || !sameShape(targets.shape, [rows]))
    throw misfit("crossEntropy", "f32 [T, V] and i32 [T]", logits, targets);
  return { rows, columns };
}

/** [T, V] both; rows without elements are no distributions. */
export function checkKlDivergence(reference: Tensor, logits: Tensor): { rows: number; columns: number } {
  const [rows, columns] = logits.shape;
  const fits = logits.shape.length === 2 && sameShape(reference.shape, logits.shape) && (rows === 0 || columns > 0);
  if (!isF32(reference, logits) || !fits)
    throw misfit("klDivergence", "twice f32 [T, V] with V of at least 1", reference, logits);
  return { rows, columns };
}
