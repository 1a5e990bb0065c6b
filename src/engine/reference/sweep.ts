import { checkVectorSweep } from "../check.js";
import type { Engine } from "../engine.js";
import type { EngineMemory } from "../memory.js";
import { createStageSearch } from "./search.js";

export const sweepOperations = (memory: EngineMemory): Pick<Engine, "vectorSweep"> => ({
  vectorSweep(weights, feedback, segments, options) {
    const { columns, rows, beam } = checkVectorSweep(weights, feedback, segments, options);
    const compensated = memory.copy(weights);
    const quantized = memory.empty([columns, rows]);
    const [running, decoded] = [memory.host(compensated), memory.host(quantized)];
    const factor = feedback && memory.host(feedback);
    const indices = segments.map(({ begin, end, stages }) => {
      const v = stages[0].shape[1];
      const search = createStageSearch(
        stages.map((stage) => memory.host(stage)),
        v,
        beam,
      );
      const results = stages.map(() => memory.empty([end - begin, rows / v], "i32"));
      const index = results.map((result) => memory.host(result));
      for (let column = begin; column < end; column++) {
        for (let vector = 0; vector < rows / v; vector++) {
          const at = column * rows + vector * v;
          search.find(running, at);
          decoded.set(search.vector, at);
          for (let stage = 0; stage < stages.length; stage++)
            index[stage][(column - begin) * (rows / v) + vector] = search.chosen[stage];
        }
        if (factor) feedBack(running, decoded, factor, column, columns, rows);
      }
      return results;
    });
    return { indices, quantized, compensated };
  },
});

/**
 * w_j -= (w_i - q_i) feedback[i, j] for all j > i, each difference and product rounded to f32 so that all engines choose alike;
 * running, decoded [I, rows].
 */
export function feedBack(
  running: Float32Array,
  decoded: Float32Array,
  feedback: Float32Array,
  i: number,
  columns: number,
  rows: number,
): void {
  for (let j = i + 1; j < columns; j++) {
    const factor = feedback[i * columns + j];
    for (let row = 0; row < rows; row++)
      running[j * rows + row] -= Math.fround(Math.fround(running[i * rows + row] - decoded[i * rows + row]) * factor);
  }
}
