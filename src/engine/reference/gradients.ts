import type { F32 } from "../../tensor/index.js";
import { checkAttentionGrad, checkNormGrad, checkSameShapes } from "../check.js";
import type { Engine } from "../engine.js";
import type { EngineMemory } from "../memory.js";
import { moments } from "./decoder.js";
import { normalDensity, normalDistribution } from "./normal.js";

type Elementwise = Pick<Engine, "siluMultiplyGrad" | "reluGrad" | "geluGrad">;

export function elementwiseGradOperations(memory: EngineMemory): Elementwise {
  const unary = (name: string, derivative: (a: number) => number) => (a: F32, grad: F32) => {
    checkSameShapes(name, a, grad);
    const [source, given] = [memory.host(a), memory.host(grad)];
    const result = memory.create(a.shape);
    const out = memory.host(result);
    for (let i = 0; i < out.length; i++) out[i] = given[i] * derivative(source[i]);
    return result;
  };

  return {
    siluMultiplyGrad(gate, up, grad) {
      checkSameShapes("siluMultiplyGrad", gate, up, grad);
      const [g, u, given] = [memory.host(gate), memory.host(up), memory.host(grad)];
      const [ofGate, ofUp] = [memory.empty(gate.shape), memory.empty(up.shape)];
      const [outGate, outUp] = [memory.host(ofGate), memory.host(ofUp)];
      for (let i = 0; i < g.length; i++) {
        const sigmoid = 1 / (1 + Math.exp(-g[i]));
        outGate[i] = given[i] * u[i] * sigmoid * (1 + g[i] * (1 - sigmoid));
        outUp[i] = given[i] * g[i] * sigmoid;
      }
      return { gate: ofGate, up: ofUp };
    },

    reluGrad: unary("reluGrad", (a) => (a > 0 ? 1 : 0)),
    geluGrad: unary("geluGrad", (a) => normalDistribution(a) + a * normalDensity(a)),
  };
}

export const normGradOperations = (memory: EngineMemory): Pick<Engine, "rmsNormGrad" | "layerNormGrad"> => ({
  rmsNormGrad(x, weight, epsilon, grad, wanted) {
    const { rows, width } = checkNormGrad("rmsNormGrad", x, weight, grad);
    const [source, factor, given] = [memory.host(x), memory.host(weight), memory.host(grad)];
    const ofX = memory.empty(x.shape);
    const out = memory.host(ofX);
    const sums = new Float64Array(width); // of the weight
    for (let row = 0; row < rows; row++) {
      const at = row * width;
      let squares = 0;
      let along = 0; // the gradient of x / size, along x
      for (let i = 0; i < width; i++) {
        squares += source[at + i] ** 2;
        along += given[at + i] * factor[i] * source[at + i];
      }
      const size = Math.sqrt(squares / width + epsilon);
      const back = along / (width * size * size);
      for (let i = 0; i < width; i++) {
        out[at + i] = (given[at + i] * factor[i] - source[at + i] * back) / size;
        sums[i] += (given[at + i] * source[at + i]) / size;
      }
    }
    if (wanted?.weight === false) return { x: ofX };
    const ofWeight = memory.empty(weight.shape);
    memory.host(ofWeight).set(sums);
    return { x: ofX, weight: ofWeight };
  },

  layerNormGrad(x, weight, epsilon, grad, wanted) {
    const { rows, width } = checkNormGrad("layerNormGrad", x, weight, grad);
    const [source, factor, given] = [memory.host(x), memory.host(weight), memory.host(grad)];
    const ofX = memory.empty(x.shape);
    const out = memory.host(ofX);
    const [sums, biasSums] = [new Float64Array(width), new Float64Array(width)];
    for (let row = 0; row < rows; row++) {
      const at = row * width;
      const { mean, deviation } = moments(source, at, width, epsilon);
      let total = 0; // of the gradient of the normalized row, and along it
      let along = 0;
      for (let i = 0; i < width; i++) {
        total += given[at + i] * factor[i];
        along += given[at + i] * factor[i] * ((source[at + i] - mean) / deviation);
      }
      for (let i = 0; i < width; i++) {
        const normalized = (source[at + i] - mean) / deviation;
        out[at + i] = (given[at + i] * factor[i] - (total + normalized * along) / width) / deviation;
        sums[i] += given[at + i] * normalized;
        biasSums[i] += given[at + i];
      }
    }
    if (wanted?.weight === false) return { x: ofX };
    const [ofWeight, bias] = [memory.empty(weight.shape), memory.empty(weight.shape)];
    memory.host(ofWeight).set(sums);
    memory.host(bias).set(biasSums);
    return { x: ofX, weight: ofWeight, bias };
  },
});

export const attentionGradOperations = (memory: EngineMemory): Pick<Engine, "attentionGrad"> => ({
  attentionGrad(q, k, v, output, grad, options) {
    const extents = checkAttentionGrad(q, k, v, output, grad, options);
    const { batch, tokens, heads, keyValueHeads, size, window } = extents;
    const [query, key, value] = [memory.host(q), memory.host(k), memory.host(v)];
    const [result, given] = [memory.host(output), memory.host(grad)];
    const slopes = options.slopes && memory.host(options.slopes);
    const [ofQ, ofK, ofV] = [q, k, v].map(({ size: count }) => new Float64Array(count));
    const weights = new Float64Array(tokens); // a row of scores, then of probabilities
    for (let b = 0; b < batch; b++)
      for (let t = 0; t < tokens; t++)
        for (let h = 0; h < heads; h++) {
          const shared = Math.floor((h * keyValueHeads) / heads);
          const atQuery = ((b * tokens + t) * heads + h) * size;
          const at = (s: number) => ((b * tokens + s) * keyValueHeads + shared) * size;
          const first = Math.max(0, t - window + 1);
          let largest = Number.NEGATIVE_INFINITY;
          for (let s = first; s <= t; s++) {
            let product = 0;
            for (let i = 0; i < size; i++) product += query[atQuery + i] * key[at(s) + i];
            weights[s] = product * options.scale + (slopes ? slopes[h] * (s - t) : 0);
            largest = Math.max(largest, weights[s]);
          }
          let total = 0;
          for (let s = first; s <= t; s++) {
            weights[s] = Math.exp(weights[s] - largest);
            total += weights[s];
          }
          let mean = 0; // sum over s of a probability times its gradient
          for (let i = 0; i < size; i++) mean += given[atQuery + i] * result[atQuery + i];
          for (let s = first; s <= t; s++) {
            const weight = weights[s] / total;
            let ofWeight = 0;
            for (let i = 0; i < size; i++) {
              ofWeight += given[atQuery + i] * value[at(s) + i];
              ofV[at(s) + i] += weight * given[atQuery + i];
            }
            const ofProduct = weight * (ofWeight - mean) * options.scale;
            for (let i = 0; i < size; i++) {
              ofQ[atQuery + i] += ofProduct * key[at(s) + i];
              ofK[at(s) + i] += ofProduct * query[atQuery + i];
            }
          }
        }
    const gradients = { q: memory.empty(q.shape), k: memory.empty(k.shape), v: memory.empty(v.shape) };
    memory.host(gradients.q).set(ofQ);
    memory.host(gradients.k).set(ofK);
    memory.host(gradients.v).set(ofV);
    return gradients;
  },
});
