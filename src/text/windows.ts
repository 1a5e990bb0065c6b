import { usageError } from "../errors.js";
import { createRandom, shuffled } from "../random.js";

export interface DrawOptions {
  /** Number of windows. */
  count: number;
  /** Tokens in a window. */
  length: number;
  seed: number;
  /** Name of the text, for messages. */
  name?: string;
}

/**
 * Calibration windows: `count` of the text's non-overlapping windows of `length` tokens, chosen and ordered by the seed.
 * The windows are views of `tokens`. Throws "usage" when the text has too few, with the number that it has.
 */
export function drawWindows(tokens: Int32Array, options: DrawOptions): Int32Array[] {
  const { count, length, seed, name = "the calibration text" } = options;
  requireWhole("samples", count, 1);
  requireWhole("window", length, 1);
  const available = Math.floor(tokens.length / length);
  if (available < count) {
    const fits = Math.floor(tokens.length / count);
    const remedies = [
      ...(available > 0 ? [`--samples ${available}`] : []),
      ...(fits >= 2 ? [`--window ${fits}`] : []),
      "a longer text",
    ];
    throw usageError(
      `${name} has ${tokens.length} tokens and gives ${available} windows of ${length}: ${count} were asked for`,
      `use ${remedies.join(", or ")}`,
    );
  }
  const order = shuffled(available, createRandom(seed, "calibration windows"));
  return Array.from(order.subarray(0, count), (window) => windowAt(tokens, window, length));
}

/**
 * Evaluation windows: the text cut into consecutive windows of `length` tokens, the last partial one dropped, at most
 * `limit` of them. Views of `tokens`. Throws "usage" when there is not one.
 */
export function consecutiveWindows(
  tokens: Int32Array,
  length: number,
  limit = Number.POSITIVE_INFINITY,
  name = "the text",
): Int32Array[] {
  requireWhole("window", length, 2);
  if (limit !== Number.POSITIVE_INFINITY) requireWhole("limit", limit, 1);
  const available = Math.floor(tokens.length / length);
  if (available === 0) {
    throw usageError(
      `${name} has ${tokens.length} tokens: not one window of ${length}`,
      tokens.length >= 2 ? `use --window ${tokens.length} or less, or a longer text` : "use a longer text",
    );
  }
  return Array.from({ length: Math.min(available, limit) }, (_, window) => windowAt(tokens, window, length));
}

const windowAt = (tokens: Int32Array, window: number, length: number): Int32Array =>
  tokens.subarray(window * length, (window + 1) * length);

function requireWhole(name: string, value: number, least: number): void {
  if (!Number.isInteger(value) || value < least)
    throw usageError(`--${name}: expected a whole number of at least ${least}, got ${value}`);
}
