import type { AffineGrid, ClippingLogits, Engine, GroupGridOptions } from "../../engine/engine.js";
import type { BlockWeights, LinearWeights } from "../../model/block.js";
import type { F32 } from "../../tensor/index.js";
import type { GridScheme } from "./scheme.js";
import { type FactoredWeights, scaledWeight } from "./transform.js";

// Fake quantization of a block's weights, as the training's forward pass sees them.

/** Grid options of a linear with `columns` inputs. */
export const gridOptions = ({ bits, group, symmetric }: GridScheme, columns: number): GroupGridOptions => ({
  bits,
  group: group === "channel" ? columns : Math.min(group, columns),
  symmetric,
});

/** G of a linear with `columns` inputs. */
export const groupsOf = (scheme: GridScheme, columns: number): number =>
  Math.ceil(columns / gridOptions(scheme, columns).group);

/** The block with its factors multiplied in, and each linear in `grids` on its min-max grid, clipped where logits are given. */
export function clippedBlock(
  engine: Engine,
  weights: FactoredWeights,
  grids: Record<string, GridScheme>,
  clipping: Record<string, ClippingLogits>,
): BlockWeights {
  return replaceWeights(weights, (slot, { weight }) => {
    const factors = weights.factors[slot];
    if (!grids[slot]) return scaledWeight(engine, weight, factors);
    return engine.clippedFakeQuantize(weight, factors, clipping[slot], gridOptions(grids[slot], weight.shape[1]));
  });
}

/** The block with each linear in `grids` on a grid of its own: scales exp(log scale) rounded to f16, and zeros. */
export function griddedBlock(
  engine: Engine,
  weights: BlockWeights,
  grids: Record<string, GridScheme>,
  trained: Record<string, { logScale: F32; zero: F32 }>,
): BlockWeights {
  return replaceWeights(weights, (slot, { weight }) => {
    if (!grids[slot]) return weight;
    return engine.fakeQuantize(weight, trainedGrid(engine, trained[slot]), gridOptions(grids[slot], weight.shape[1]));
  });
}

/** The grid that log scales and zeros stand for. */
export const trainedGrid = (engine: Engine, { logScale, zero }: { logScale: F32; zero: F32 }): AffineGrid => ({
  scale: engine.cast(engine.cast(engine.exp(logScale), "f16"), "f32"),
  zero,
});

function replaceWeights(weights: BlockWeights, replace: (slot: string, linear: LinearWeights) => F32): BlockWeights {
  const linears: Record<string, LinearWeights> = {};
  for (const [slot, linear] of Object.entries(weights.linears))
    linears[slot] = { ...linear, weight: replace(slot, linear) };
  return { linears, vectors: weights.vectors };
}
