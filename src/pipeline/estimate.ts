import type { Engine } from "../engine/engine.js";
import type { ModelConfig } from "../model/config.js";
import { stageSlots as slotsOf } from "../model/families/index.js";
import { blockParameters } from "../model/tensors.js";
import { createRandom } from "../random.js";
import { isTrained, needsCalibration, needsCorrection } from "./methods.js";
import type { PlannedLinear } from "./plan.js";
import type { Recipe } from "./recipe.js";

// Rough costs of a job, for the time left and for dry runs. Nothing depends on them but what people are told.

export interface JobCost {
  /**
   * Floating-point operations of a pass of one window: measuring the inputs of `slots`, and one of so many `parts` of the way through
   * the block. Parts that repeat the way of others are not counted twice: their sum is what was planned.
   */
  pass(slots: readonly string[], parts?: number): number;
  /** Operations of one training step on a window, forward and backward; 0 where nothing is trained. */
  step: number;
  /** Operations of the whole job, finished linears left out. */
  total: number;
}

/** Costs of a job with `windows` windows of `length` tokens. */
export function jobCost(
  planned: PlannedLinear[],
  stageSlots: string[][],
  recipe: Recipe,
  windows: number,
  length: number,
  isFinished: (name: string) => boolean = () => false,
): JobCost {
  const first = planned.filter(({ block }) => block === 0);
  const blocks = Math.max(0, ...planned.map(({ block }) => block + 1));
  const share = correctionShare(planned, recipe);
  const forward = first.reduce((sum, { spec }) => sum + 2 * length * spec.rows * spec.columns, 0);
  if (isTrained(planned)) return trainingCost(planned, recipe, windows, forward, isFinished);
  const full = recipe.propagate === "full";
  const passes = full ? [stageSlots.flat()] : [...stageSlots, []];
  const measure = (slots: readonly string[]) =>
    stageSlots
      .filter((stage) => stage.some((slot) => slots.includes(slot)))
      .map((stage) => first.find(({ spec }) => stage.includes(spec.slot))?.spec.columns ?? 0)
      .reduce((sum, columns) => sum + length * columns ** 2 * (1 + 2 * share), 0);
  const pass = (slots: readonly string[], parts = passes.length) =>
    measure(slots) + (forward * (full ? 1 : 1 + share)) / parts;
  const perBlock = passes.reduce((sum, slots) => sum + pass(slots), 0) * windows;
  const linears = planned
    .filter(({ spec }) => !isFinished(spec.name))
    .reduce((sum, { operations }) => sum + operations, 0);
  return { pass, step: 0, total: perBlock * blocks + linears };
}

/** A step is three forward passes (one forward, two backward); the rest passes through a block some twelve times. */
function trainingCost(
  planned: PlannedLinear[],
  recipe: Recipe,
  windows: number,
  forward: number,
  isFinished: (name: string) => boolean,
): JobCost {
  const blocks = new Set(planned.map(({ block }) => block));
  const open = new Set(planned.filter(({ spec }) => !isFinished(spec.name)).map(({ block }) => block));
  const epochs = recipe.epochs + (recipe.train === "clip" ? 0 : recipe.tuneEpochs);
  const linears = planned.filter(({ block }) => open.has(block)).reduce((sum, { operations }) => sum + operations, 0);
  const step = 3 * forward;
  return {
    pass: () => 2 * forward,
    step,
    total: blocks.size * windows * 4 * forward + open.size * epochs * windows * step + linears,
  };
}

/** Share of the windows on which the full-precision stream runs beside the quantized one. */
export const correctionShare = (planned: PlannedLinear[], recipe: Recipe): number =>
  recipe.propagate === "quantized" && planned.some(({ plan }) => needsCorrection(plan)) ? recipe.correctionShare : 0;

export interface JobEstimate {
  seconds: number;
  /** Most memory at a time, without what the program itself takes. */
  memoryBytes: number;
  activationBytes: number;
  /** f32 weights of one block. */
  blockBytes: number;
}

/** f32 copies of a block's weights that training it takes, activations of a window included. */
const TRAINING_WEIGHTS = 12;

/** Time and memory that a job will take on this engine; times a few matrix products to know its speed. */
export async function estimateJob(
  engine: Engine,
  config: ModelConfig,
  planned: PlannedLinear[],
  recipe: Recipe,
  activationMemory = Number.POSITIVE_INFINITY,
): Promise<JobEstimate> {
  const calibrated = planned.some(({ plan }) => needsCalibration(plan));
  const stageSlots = slotsOf(config);
  const windows = calibrated ? recipe.samples : 0;
  const { total } = jobCost(planned, stageSlots, recipe, windows, recipe.window);
  const tokens = windows * recipe.window;
  const widest = Math.max(config.hidden, config.heads * config.headSize, config.mlp);
  const trained = isTrained(planned);
  const streams = 1 + correctionShare(planned, recipe);
  // hidden states as f32; between stages of the quantized stream the wider carry, as f16, and what a parallel MLP reads
  const origin = config.layout.startsWith("parallel") ? 4 * config.hidden : 0;
  const carried = recipe.propagate === "quantized" ? 2 * widest + origin : 0;
  // training: both streams and the targets, as f16
  const activationBytes = tokens * (trained ? 6 * config.hidden : streams * (4 * config.hidden + carried));
  const weights = 4 * blockParameters(config);
  const working = 8 * widest * widest * 2 + 8 * recipe.window * widest * 4;
  return {
    seconds: total / (await measureSpeed(engine)),
    memoryBytes:
      weights * (trained ? TRAINING_WEIGHTS : streams > 1 ? 3 : 2) +
      working +
      Math.min(activationBytes, activationMemory),
    activationBytes,
    blockBytes: weights,
  };
}

/** Operations a second of a matrix product of middling size; half of it, for all that is not a matrix product. */
async function measureSpeed(engine: Engine): Promise<number> {
  const size = engine.name === "reference" ? 96 : 512;
  const random = createRandom(0, "speed");
  const data = Float32Array.from({ length: size * size }, () => random.next() - 0.5);
  return engine.scope(async () => {
    const a = engine.upload(data, [size, size], "f32");
    let best = 0;
    for (let trial = 0; trial < 4; trial++) {
      const since = performance.now();
      await engine.read(engine.view(engine.matmul(a, a), [1]));
      best = Math.max(best, (2 * size ** 3 * 1000) / Math.max(1e-3, performance.now() - since));
    }
    return best / 2;
  });
}
