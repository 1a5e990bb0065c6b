import { NoRoom } from "../engine/device/pool.js";
import type { Engine } from "../engine/engine.js";
import type { ActivationBudget } from "./activations.js";
import { needsCorrection, needsStatistics } from "./methods.js";
import type { PlannedLinear } from "./plan.js";
import type { QuantizeJob } from "./quantize.js";

// A block in an engine's own memory: what it takes, and what is done where there is less.

/** Bytes of an engine's own memory that a block takes, roughly: activations between blocks come on top. */
export interface BlockNeed {
  /** With the statistics of all its stages together. */
  whole: number;
  /** With those of a stage at a time. */
  byStage: number;
  /** Its weights in 16 bits, which may come while the block before it is worked on. */
  early: number;
}

/**
 * What a block takes whose linears are quantized one after the other, of windows of `tokens`. `staged`: each stage sees what the
 * quantized ones before it produce, and is measured on its own in any case. Linears that are not `isOpen` are only passed through.
 */
export function blockNeed(
  linears: readonly PlannedLinear[],
  stageSlots: readonly string[][],
  staged: boolean,
  tokens: number,
  isOpen: (linear: PlannedLinear) => boolean,
): BlockNeed {
  const corrected = staged && linears.some(({ plan }) => needsCorrection(plan));
  const count = linears.reduce((sum, { spec }) => sum + spec.rows * spec.columns, 0);
  const weights = 4 * count * (corrected ? 2 : 1);
  const pass = linears.reduce((sum, { spec }) => sum + 6 * tokens * (spec.rows + spec.columns), 0);
  const stages = stageSlots.map((slots) => {
    const open = linears.filter((linear) => slots.includes(linear.spec.slot) && isOpen(linear));
    const columns = open.some(({ plan }) => needsStatistics(plan)) ? open[0].spec.columns : 0;
    const sums = 4 * columns ** 2 * (corrected ? 2 : 1);
    return { sums, work: sums + Math.max(0, ...open.map(workOf)) };
  });
  const byStage = weights + Math.max(pass, ...stages.map(({ sums, work }) => sums + Math.max(pass, work)));
  const together = staged ? 0 : stages.reduce((sum, { sums }) => sum + sums, 0);
  const whole = Math.max(byStage, weights + together + Math.max(pass, ...stages.map(({ work }) => work)));
  return { whole, byStage, early: 2 * count };
}

/** The same of every block of a job. */
export const blockNeeds = (
  { planned, source, recipe, windows }: Pick<QuantizeJob, "planned" | "source" | "recipe" | "windows">,
  isOpen: (linear: PlannedLinear) => boolean,
): BlockNeed[] =>
  Array.from({ length: source.blocks }, (_, block) =>
    blockNeed(
      planned.filter((linear) => linear.block === block),
      source.stageSlots,
      recipe.propagate === "quantized",
      windows[0]?.length ?? 0,
      isOpen,
    ),
  );

/** Bytes of the engine's memory that activations may take beside the largest block, of `room` that are free at first. */
export function activationRoom(room: number, needs: readonly BlockNeed[]): number {
  const block = Math.max(0, ...needs.map(({ whole, early }) => whole + early));
  return Math.max(0, Math.min(Math.floor(room / 2), Math.floor(0.9 * room) - block)); // what else there is has a tenth
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
  /** By block. Absent where the engine's memory is the host's. */
  needs?: readonly BlockNeed[];
  /** Told, in words, what is done where the engine has less memory than that. */
  onShortage?: (measure: string) => void;
}

export interface BlockPlan {
  /** The block's stages are measured one after the other, each in a pass of its own. */
  byStage: boolean;
  /** There is room for the weights of the next block beside this one. */
  uploadsNext: boolean;
}

/**
 * Makes room for a block before it is loaded: activations give way first, then it is split where that helps. `held` bytes of its
 * weights are in the engine already.
 */
export async function planBlock(room: BlockRoom, block: number, held: number): Promise<BlockPlan> {
  const { engine, budget, onShortage } = room;
  const need = room.needs?.[block];
  if (!need) return { byStage: false, uploadsNext: false };
  const free = () => engine.roomBytes() + held;
  const splits = (bytes: number) => need.byStage < need.whole && need.whole > bytes;
  const least = splits(free() + budget.engineBytes) ? need.byStage : need.whole;
  if (least > free() && budget.engineBytes > 0) {
    onShortage?.(LEAVES);
    await budget.leaveEngine();
  }
  const byStage = splits(free());
  if (byStage) onShortage?.("the inputs of a block's linears are measured one after the other");
  return { byStage, uploadsNext: engine.uploadsBeside && need.whole + need.early <= free() };
}

/** Does what failed for want of memory again, once the activations have left the engine's. */
export async function withRoom<T>(
  budget: ActivationBudget,
  work: () => Promise<T>,
  onShortage: (error: NoRoom) => void,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    // what a device tells later has spoiled its buffers: only a refusal at once can be mended
    if (!(error instanceof NoRoom) || budget.engineBytes === 0) throw error;
    onShortage(error);
    await budget.leaveEngine();
    return work();
  }
}

/** The same in a scope of its own, so that what was made in vain is freed before. What cannot be done twice has no place in it. */
export const retried = <T>(
  { engine, budget, onShortage }: Omit<BlockRoom, "needs">,
  work: () => Promise<T>,
): Promise<T> =>
  withRoom(
    budget,
    () => engine.scope(work),
    () => onShortage?.(LEAVES),
  );
