import { checkAttention, checkLayerNorm, checkRmsNorm, checkRope } from "../check.js";
import type { Engine } from "../engine.js";
import type { EngineMemory } from "../memory.js";

export const normOperations = (memory: EngineMemory): Pick<Engine, "rmsNorm" | "layerNorm" | "rope"> => ({
  rmsNorm(x, weight, epsilon) {
    const { rows, width } = checkRmsNorm(x, weight);
    const [source, factor] = [memory.host(x), memory.host(weight)];
    const result = memory.empty(x.shape);
    const out = memory.host(result);
    for (let row = 0; row < rows; row++) {
      const at = row * width;
      let squares = 0;
      for (let i = 0; i < width; i++) squares += source[at + i] ** 2;
      const size = Math.sqrt(squares / width + epsilon);
      for (let i = 0; i < width; i++) out[at + i] = (source[at + i] / size) * factor[i];
    }
    return result;
  },

  layerNorm(x, weight, bias, epsilon) {
    const { rows, width } = checkLayerNorm(x, weight, bias);
    const [source, factor, shift] = [memory.host(x), memory.host(weight), memory.host(bias)];
    const result = memory.empty(x.shape);
    const out = memory.host(result);
    for (let row = 0; row < rows; row++) {
      const { mean, deviation } = moments(source, row * width, width, epsilon);
      for (let i = 0; i < width; i++)
        out[row * width + i] = ((source[row * width + i] - mean) / deviation) * factor[i] + shift[i];
    }
    return result;
  },

  rope(x, cos, sin, start) {
    const { batch, tokens, heads, size, pairs } = checkRope(x, cos, sin, start);
    const [source, c, s] = [memory.host(x), memory.host(cos), memory.host(sin)];
    const result = memory.copy(x);
    const out = memory.host(result);
    for (let b = 0; b < batch; b++)
      for (let t = 0; t < tokens; t++)
        for (let h = 0; h < heads; h++) {
          const at = ((b * tokens + t) * heads + h) * size;
          for (let i = 0; i < pairs; i++) {
            const angle = (start + t) * pairs + i;
            const [first, second] = [at + i, at + i + pairs];
            out[first] = source[first] * c[angle] - source[second] * s[angle];
            out[second] = source[second] * c[angle] + source[first] * s[angle];
          }
        }
    return result;
  },
});

/** Mean and sqrt(variance + epsilon) of `width` elements from `at` on. */
export function moments(
  x: Float32Array,
  at: number,
  width: number,
  epsilon: number,
): { mean: number; deviation: number } {
  let sum = 0;
  for (let i = at; i < at + width; i++) sum += x[i];
  const mean = sum / width;
  let squares = 0;
  for (let i = at; i < at + width; i++) squares += (x[i] - mean) ** 2;
  return { mean, deviation: Math.sqrt(squares / width + epsilon) };
}

export const attentionOperations = (memory: EngineMemory): Pick<Engine, "attention"> => ({
  attention(q, k, v, options) {
    const extents = checkAttention(q, k, v, options);
    const { batch, tokens, capacity, keyLength, heads, keyValueHeads, size, window } = extents;
    const [query, key, value] = [memory.host(q), memory.host(k), memory.host(v)];
    const slopes = options.slopes && memory.host(options.slopes);
    const result = memory.empty(q.shape);
    const out = memory.host(result);
    const scores = new Float64Array(keyLength);
    const mixed = new Float64Array(size);
    for (let b = 0; b < batch; b++)
      for (let t = 0; t < tokens; t++)
        for (let h = 0; h < heads; h++) {
          const shared = Math.floor((h * keyValueHeads) / heads);
          const atQuery = ((b * tokens + t) * heads + h) * size;
          const position = keyLength - tokens + t;
          const first = Math.max(0, position - window + 1);
          const at = (s: number) => ((b * capacity + s) * keyValueHeads + shared) * size;
          let largest = Number.NEGATIVE_INFINITY;
          for (let s = first; s <= position; s++) {
            let product = 0;
            for (let i = 0; i < size; i++) product += query[atQuery + i] * key[at(s) + i];
            scores[s] = product * options.scale + (slopes ? slopes[h] * (s - position) : 0);
            largest = Math.max(largest, scores[s]);
          }
          let total = 0;
          mixed.fill(0);
          for (let s = first; s <= position; s++) {
            const weight = Math.exp(scores[s] - largest);
            total += weight;
            for (let i = 0; i < size; i++) mixed[i] += weight * value[at(s) + i];
          }
          for (let i = 0; i < size; i++) out[atQuery + i] = mixed[i] / total;
        }
    return result;
  },
});
