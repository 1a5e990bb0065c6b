import type { F32, I32, Tensor } from "../../../tensor/index.js";
import { checkCoordinateSweep } from "../../check.js";
import type { CodebookSegment, Engine } from "../../engine.js";
import { declareKernel } from "../device.js";
import type { DeviceMemory } from "../memory.js";
import { exceeds, putLast, takeLast } from "../windows.js";
import { elementwiseOperations } from "./elementwise.js";
import { layoutOperations } from "./layout.js";
import {
  BLOCK_CONSTANTS,
  BLOCK_NUMBERS,
  BLOCK_SAMPLES,
  PRODUCT,
  productGroups,
  stageViews,
  sweepWindows,
  sweptSegment,
} from "./sweep.js";

const BLOCK = declareKernel("search", "coordinateBlock", {
  reads: { books: "f32", weights: "f32", hessian: "f32", gradient: "f32" },
  writes: { quantized: "f32", error: "f32", indices: "i32" },
  numbers: BLOCK_NUMBERS,
  constants: BLOCK_CONSTANTS,
  samples: BLOCK_SAMPLES,
});

export function coordinateOperations(memory: DeviceMemory): Pick<Engine, "coordinateSweep"> {
  const { subtract } = elementwiseOperations(memory);
  const { transpose } = layoutOperations(memory);

  /** Sweeps `result` [I, P] and `chosen` [stages, columns, P / v] in place. */
  function sweep(
    weights: F32,
    hessian: F32,
    result: F32,
    chosen: readonly I32[],
    { segments, beam, allRows }: { segments: readonly CodebookSegment[]; beam: number; allRows: number },
  ): void {
    const [columns, rows] = weights.shape;
    const error = subtract(weights, result);
    for (const [number, segment] of segments.entries()) {
      if (chosen[number].size === 0) continue;
      const swept = sweptSegment(memory, "coordinateSweep", segment, { rows, allRows }, beam);
      const { begin, end, books, groups, width, constants } = swept;
      const gradient = memory.empty([swept.columns, rows]);
      for (let from = begin; from < end; from += swept.columns) {
        const to = Math.min(end, from + swept.columns);
        memory.scope(() => {
          const ofBlock = memory.view(hessian, [to - from, columns], from * columns);
          // rows from .. to of H E; H is symmetric, so its columns serve, one element behind the other, where they can be bound
          const [part, stride] = exceeds(memory, [hessian])
            ? [transpose(ofBlock), to - from]
            : [memory.view(hessian, [columns * columns - from], from), columns];
          memory.run(PRODUCT, {
            groups: productGroups(to - from, rows),
            tensors: [part, error, gradient],
            numbers: [to - from, rows, columns, stride, 0, 1],
          });
          const tensors = [books, weights, ofBlock, gradient, result, error, chosen[number]];
          memory.run(BLOCK, { groups, tensors, numbers: [columns, rows, begin, end, from, to, width], constants });
        });
      }
    }
  }

  return {
    coordinateSweep(weights, hessian, quantized, segments, indices, options) {
      const { rows, beam } = checkCoordinateSweep(weights, hessian, quantized, segments, indices, options);
      memory.check(weights, hessian, quantized, ...indices.flat());
      const result = memory.copy(quantized);
      const chosen = indices.map((given) => {
        const all = memory.empty([given.length, ...given[0].shape], "i32");
        for (const [stage, one] of given.entries()) memory.copyInto(all, one, stage * one.size);
        return all;
      });
      for (const window of sweepWindows(memory, weights, segments))
        memory.scope(() => {
          if (window.count === rows) {
            sweep(weights, hessian, result, chosen, { segments, beam, allRows: rows });
            return;
          }
          const take = <T extends Tensor>(tensor: T) => takeLast(memory, tensor, rows, window);
          const [part, own] = [take(result), chosen.map(take)];
          sweep(take(weights), hessian, part, own, { segments, beam, allRows: rows });
          putLast(memory, result, part, rows, window);
          for (const [number, all] of chosen.entries()) putLast(memory, all, own[number], rows, window);
        });
      const views = chosen.map((all, number) =>
        stageViews(memory, all, [...indices[number][0].shape], indices[number].length),
      );
      return { indices: views, quantized: result };
    },
  };
}
