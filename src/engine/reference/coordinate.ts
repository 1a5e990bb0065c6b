import { checkCoordinateSweep } from "../check.js";
import type { Engine } from "../engine.js";
import type { EngineMemory } from "../memory.js";
import { createStageSearch, squaredDistance } from "./search.js";

export const coordinateOperations = (memory: EngineMemory): Pick<Engine, "coordinateSweep"> => ({
  coordinateSweep(weights, hessian, quantized, segments, indices, options) {
    const { columns, rows, beam } = checkCoordinateSweep(weights, hessian, quantized, segments, indices, options);
    const [w, h] = [memory.host(weights), memory.host(hessian)];
    const result = memory.copy(quantized);
    const q = memory.host(result);
    const error = new Float32Array(columns * rows); // E = W - Q
    for (let i = 0; i < error.length; i++) error[i] = w[i] - q[i];
    const gradient = new Float64Array(rows); // (H E)_i
    const wanted = new Float32Array(rows); // x
    const chosen = segments.map(({ begin, end, stages }, number) => {
      const v = stages[0].shape[1];
      const search = createStageSearch(
        stages.map((stage) => memory.host(stage)),
        v,
        beam,
      );
      const results = indices[number].map((given) => memory.copy(given));
      const index = results.map((one) => memory.host(one));
      for (let i = begin; i < end; i++) {
        const curvature = h[i * columns + i];
        if (!(curvature > 0)) continue; // the objective does not depend on this column
        gradient.fill(0);
        for (let j = 0; j < columns; j++)
          for (let row = 0; row < rows; row++) gradient[row] += h[i * columns + j] * error[j * rows + row];
        for (let row = 0; row < rows; row++) wanted[row] = q[i * rows + row] + Math.fround(gradient[row] / curvature);
        for (let vector = 0; vector < rows / v; vector++) {
          const at = i * rows + vector * v;
          search.find(wanted, vector * v);
          const now = squaredDistance(wanted, vector * v, q, at, v);
          if (!(squaredDistance(wanted, vector * v, search.vector, 0, v) < now)) continue;
          q.set(search.vector, at);
          for (let t = at; t < at + v; t++) error[t] = w[t] - q[t];
          for (let stage = 0; stage < stages.length; stage++)
            index[stage][(i - begin) * (rows / v) + vector] = search.chosen[stage];
        }
      }
      return results;
    });
    return { indices: chosen, quantized: result };
  },
});
