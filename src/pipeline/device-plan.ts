import type { Engine } from "../engine/engine.js";
import { BitwrightError } from "../errors.js";
import type { ActivationBudget } from "./activations.js";
import { needsCorrection, needsStatistics } from "./methods.js";
import type { PlannedLinear } from "./plan.js";
import type { Recipe } from "./recipe.js";

// A block in an engine's own memory: what it takes, and what is done where there is less.

/** Bytes of an engine's own memory that a block takes, roughly: activations between blocks come on top. */
export interface BlockNeed {
  /** With the statistics of all its stages together. */
  whole: number;
  /** With those of a stage at a time. */
  byStage: number;
}

/** What the largest block of a job takes whose linears are quantized one after the other, of windows of `tokens`. */
export function blockNeed(
  planned: readonly PlannedLinear[],
  stageSlots: readonly string[][],
  recipe: Pick<Recipe, "propagate">,
  tokens: number,
): BlockNeed {
  const blocks = new Set(planned.map(({ block }) => block));
  const needs = Array.from(blocks, (block) =>
    needOf(
      planned.filter((linear) => linear.block === block),
      stageSlots,
      recipe.propagate === "quantized",
      tokens,
    ),
  );
  return {
    whole: Math.max(0, ...needs.map(({ whole }) => whole)),
    byStage: Math.max(0, ...needs.map(({ byStage }) => byStage)),
  };
}

function needOf(
  linears: readonly PlannedLinear[],
  stageSlots: readonly string[][],
  staged: boolean,
  tokens: number,
): BlockNeed {
  const corrected = staged && linears.some(({ plan }) => needsCorrection(plan));
  const weights = linears.reduce((sum, { spec }) => sum + 4 * spec.rows * spec.columns, 0) * (corrected ? 2 : 1);
  const pass = linears.reduce((sum, { spec }) => sum + 6 * tokens * (spec.rows + spec.columns), 0);
  const stages = stageSlots.map((slots) => {
    const own = linears.filter(({ spec }) => slots.includes(spec.slot));
    const columns = own.some(({ plan }) => needsStatistics(plan)) ? own[0].spec.columns : 0;
    const sums = 4 * columns ** 2 * (corrected ? 2 : 1);
    return { sums, work: sums + Math.max(0, ...own.map(workOf)) };
  });
  const together = staged ? 0 : stages.reduce((sum, { sums }) => sum + sums, 0);
  return {
    whole: Math.max(weights + together + Math.max(pass, ...stages.map(({ work }) => work)), byStage()),
    byStage: byStage(),
  };

  function byStage(): number {
    return weights + Math.max(0, ...stages.map(({ sums, work }) => sums + Math.max(pass, work)));
  }
}

/** The Hessian in its order, its factors, of which some in f64, and the weights some times over. */
function workOf({ spec, plan }: PlannedLinear): number {
  const { rows, columns } = spec;
  if (plan.method === "keep") return 0;
  return (needsStatistics(plan) ? 20 * columns ** 2 : 0) + 32 * rows * columns;
}

/** A measure, in words. */
export const LEAVES = "activations go to the host's memory";

export interface BlockRoom {
  engine: Engine;
  budget: ActivationBudget;
  /** Absent where the engine's memory is the host's. */
  need?: BlockNeed;
  /** Told, in words, what is done where the engine has less memory than that. */
  onShortage?: (measure: string) => void;
}

/**
 * Makes room for a block before it is loaded: activations give way first. Returns whether its stages must be measured one at a time;
 * where they are anyway (`staged`), false.
 */
export async function planBlock({ engine, budget, need, onShortage }: BlockRoom, staged: boolean): Promise<boolean> {
  if (!need) return false;
  const fits = need.whole <= engine.roomBytes() + budget.engineBytes;
  if ((fits ? need.whole : need.byStage) > engine.roomBytes() && budget.engineBytes > 0) {
    onShortage?.(LEAVES);
    await budget.leaveEngine();
  }
  if (staged || need.whole <= engine.roomBytes()) return false;
  onShortage?.("the inputs of a block's linears are measured one after the other");
  return true;
}

/** Does what failed for want of memory again, once the activations have left the engine's. */
export async function withRoom<T>(
  budget: ActivationBudget,
  work: () => Promise<T>,
  onShortage: (error: BitwrightError) => void,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof BitwrightError && error.kind === "memory") || budget.engineBytes === 0) throw error;
    onShortage(error);
    await budget.leaveEngine();
    return work();
  }
}
