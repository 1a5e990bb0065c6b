import { checkClippedFakeQuantize } from "./check.js";
import type { Engine } from "./engine.js";

type Parts = Pick<
  Engine,
  | "scope"
  | "multiply"
  | "scaleRows"
  | "addInto"
  | "sumRows"
  | "rowDots"
  | "clippedGrid"
  | "clippedGridGrad"
  | "fakeQuantize"
  | "fakeQuantizeGrad"
>;

/** Operations that are made of an engine's others: what they mean, and what they are where passes over memory cost little. */
export function compositeOperations(engine: Parts): Pick<Engine, "clippedFakeQuantize" | "clippedFakeQuantizeGrad"> {
  return {
    clippedFakeQuantize(weights, factors, clipping, options) {
      checkClippedFakeQuantize("clippedFakeQuantize", weights, factors, clipping, options);
      const { rows, columns } = factors;
      return engine.scope(() => {
        const wide = columns ? engine.multiply(weights, columns) : weights;
        const scaled = rows ? engine.scaleRows(wide, rows) : wide;
        if (wide !== weights && wide !== scaled) wide.dispose();
        return engine.fakeQuantize(scaled, engine.clippedGrid(scaled, clipping, options), options);
      });
    },

    clippedFakeQuantizeGrad(weights, factors, clipping, grad, options) {
      checkClippedFakeQuantize("clippedFakeQuantizeGrad", weights, factors, clipping, options, grad);
      const { rows, columns } = factors;
      if (!rows && !columns && !clipping) return {};
      return engine.scope(() => {
        const wide = columns ? engine.multiply(weights, columns) : weights;
        const scaled = rows ? engine.scaleRows(wide, rows) : wide;
        const wanted = { weights: rows !== undefined || columns !== undefined };
        const grid = engine.clippedGrid(scaled, clipping, options);
        const through = engine.fakeQuantizeGrad(scaled, grid, grad, options, wanted);
        const behind = engine.clippedGridGrad(scaled, clipping, through.scale, options, wanted);
        const ofLogits = clipping ? { upper: behind.upper, lower: behind.lower } : {};
        const ofScaled = through.weights;
        if (!ofScaled || !behind.weights) return ofLogits;
        if (scaled !== wide) scaled.dispose();
        engine.addInto(ofScaled, behind.weights);
        behind.weights.dispose();
        const ofRows = rows && engine.rowDots(ofScaled, wide);
        if (wide !== weights) wide.dispose();
        if (!columns) return { rows: ofRows, ...ofLogits };
        const ofWide = rows ? engine.scaleRows(ofScaled, rows) : ofScaled;
        if (ofWide !== ofScaled) ofScaled.dispose();
        const ofColumns = engine.sumRows(engine.multiply(ofWide, weights));
        return rows ? { rows: ofRows, columns: ofColumns, ...ofLogits } : { columns: ofColumns, ...ofLogits };
      });
    },
  };
}
