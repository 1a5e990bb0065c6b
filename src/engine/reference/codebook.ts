import { checkIndexValues, checkNearestCodeword, checkSegmentSum } from "../check.js";
import type { Engine } from "../engine.js";
import type { EngineMemory } from "../memory.js";
import { nearest, squaredDistance } from "./search.js";

export const codebookOperations = (memory: EngineMemory): Pick<Engine, "nearestCodeword" | "segmentSum"> => ({
  nearestCodeword(vectors, codebook, previous) {
    const { count, vectorLength: v } = checkNearestCodeword(vectors, codebook, previous);
    const [x, codewords] = [memory.host(vectors), memory.host(codebook)];
    const indices = memory.empty([count], "i32");
    const distances = memory.empty([count]);
    const [index, distance] = [memory.host(indices), memory.host(distances)];
    for (let i = 0; i < count; i++) {
      index[i] = nearest(x, i * v, codewords, v);
      distance[i] = squaredDistance(x, i * v, codewords, index[i] * v, v);
    }
    return { indices, distances };
  },

  segmentSum(vectors, weights, indices, segments) {
    const { count, vectorLength: v } = checkSegmentSum(vectors, weights, indices, segments);
    const [x, weight, segment] = [memory.host(vectors), memory.host(weights), memory.host(indices)];
    checkIndexValues("segmentSum", segment, segments);
    const sum = new Float64Array(segments * v);
    const total = new Float64Array(segments);
    for (let i = 0; i < count; i++) {
      for (let t = 0; t < v; t++) sum[segment[i] * v + t] += weight[i] * x[i * v + t];
      total[segment[i]] += weight[i];
    }
    const sums = memory.empty([segments, v]);
    const totals = memory.empty([segments]);
    memory.host(sums).set(sum);
    memory.host(totals).set(total);
    return { sums, totals };
  },
});
