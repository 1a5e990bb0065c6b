import { usageError } from "../errors.js";
import type { Random } from "../random.js";
import { createRandom } from "../random.js";

export interface SamplingOptions {
  /** 0 takes the likeliest token each time; larger is more varied. Default 0. */
  temperature?: number;
  /** Draw from the likeliest tokens that together have this probability, (0, 1]. Default 1: from all. */
  topP?: number;
  /** Default 0. */
  seed?: number;
}

/** Chooses the next token from its logits [V]. */
export type Sampler = (logits: Float32Array) => number;

/** A sampler; the same options give the same choices. Throws "usage" for numbers out of range. */
export function createSampler(options: SamplingOptions = {}): Sampler {
  const { temperature = 0, topP = 1, seed = 0 } = options;
  if (!(temperature >= 0 && temperature <= 100))
    throw usageError(`temperature: expected a number from 0 to 100, got ${temperature}`);
  if (!(topP > 0 && topP <= 1)) throw usageError(`top-p: expected a number above 0 and up to 1, got ${topP}`);
  if (temperature === 0) return likeliest;
  const random = createRandom(seed, "sampling");
  return (logits) => drawFrom(logits, temperature, topP, random);
}

/** The first of the largest logits. */
function likeliest(logits: Float32Array): number {
  let best = 0;
  for (let token = 1; token < logits.length; token++) if (logits[token] > logits[best]) best = token;
  return best;
}

/** Nucleus sampling (Holtzman et al. 2020, arXiv 1904.09751, section 3.1), after softmax(logits / temperature). */
function drawFrom(logits: Float32Array, temperature: number, topP: number, random: Random): number {
  const largest = logits[likeliest(logits)];
  const weights = Float64Array.from(logits, (logit) => Math.exp((logit - largest) / temperature));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  if (topP === 1) return pick(weights, undefined, random.next() * total);
  const order = Uint32Array.from(weights, (_, token) => token).sort((a, b) => weights[b] - weights[a] || a - b);
  let kept = 0;
  let size = 0;
  while (size < order.length && kept < topP * total) kept += weights[order[size++]];
  return pick(weights, order.subarray(0, size), random.next() * kept);
}

/** The token at which the running sum of weights passes `target`. */
function pick(weights: Float64Array, order: Uint32Array | undefined, target: number): number {
  const count = order?.length ?? weights.length;
  let sum = 0;
  let last = 0;
  for (let i = 0; i < count; i++) {
    const token = order ? order[i] : i;
    if (weights[token] === 0) continue;
    sum += weights[token];
    last = token;
    if (sum > target) return token;
  }
  return last; // rounding left the target above the sum
}
