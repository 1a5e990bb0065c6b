import {
  ADAMW,
  AdamW,
  type OptimizerState,
  type Parameter,
  scheduleFactor,
  Tape,
  warmUpFactor,
} from "../../autograd/index.js";
import type { Engine } from "../../engine/engine.js";
import { BitwrightError } from "../../errors.js";
import type { BlockWeights } from "../../model/block.js";
import { forwardBlock } from "../../model/stages.js";
import { createRandom, shuffled } from "../../random.js";
import type { F32 } from "../../tensor/index.js";
import { breathe } from "../../turns.js";
import { blockLoss, type TrainingBlock, type TrainingStreams } from "./block.js";
import { activationBytes, forwardCheckpointed } from "./checkpointed.js";
import type { OmniquantScheme } from "./scheme.js";

// Block-wise gradient descent on the distance between a quantized block's outputs and their targets (OmniQuant, section 3.1).

/** Clipping and transformation; then scales, zeros and weights. */
export const TRAINING_STAGES = ["clip", "tune"] as const;
export type TrainingStage = (typeof TRAINING_STAGES)[number];

/** What of the scheme a training goes by; `epochs` are those of its stage. */
type StageScheme = Pick<
  OmniquantScheme,
  "epochs" | "batch" | "schedule" | "warmUp" | "clipNorm" | "clipSpikes" | "activations"
>;

export interface TrainingJob extends StageScheme {
  block: TrainingBlock;
  streams: TrainingStreams;
  /** Trained in place. */
  parameters: Parameter[];
  /** The block's weights as the parameters have them; on the base engine or on one that records. */
  weights(engine: Engine): BlockWeights;
  seed: number;
  stage: TrainingStage;
  progress: TrainingProgress;
  /** Bytes that a step's activations may take; beyond it they are computed again for the gradient. Default: no bound. */
  memory?: number;
  signal?: AbortSignal;
}

/** Where training tells what it does, and keeps what a killed run needs. */
export interface TrainingProgress {
  onEpoch?(epoch: EpochDone): void;
  /** A stage of a block's training is over. */
  onTrained?(stage: string, result: TrainingResult): void;
  onStep?(stage: string, step: number, steps: number): void;
  /** Something that people should know. */
  onWarning?(message: string): void;
  load?(stage: string): Promise<TrainingState | undefined>;
  save?(state: TrainingState): Promise<void>;
}

export interface EpochDone {
  stage: string;
  /** From 1 on. */
  epoch: number;
  epochs: number;
  /** Mean squared error over the epoch's steps, and before the first. */
  loss: number;
  startLoss: number;
}

/** All that decides how training goes on. */
export interface TrainingState {
  stage: string;
  step: number;
  /** Of the running epoch. */
  lossSum: number;
  lossCount: number;
  startLoss: number;
  optimizer: OptimizerState;
  /** Values before the first step. */
  start: Record<string, Float32Array>;
}

export interface TrainingResult {
  startLoss: number;
  endLoss: number;
  /** False: training did not beat the start, whose values were put back. */
  improved: boolean;
  /** Steps left out because a loss or gradient was not finite. */
  skippedSteps: number;
  steps: number;
}

/** Seconds between two saved states. */
const SAVE_EVERY = 30;
/** What a training does to fit where a step did not. */
interface Economy {
  /** Activations are computed again for the gradient. The same numbers, more time. */
  checkpoints: boolean;
  /** A batch is taken a window at a time, and gradients added up: the last digits differ. */
  bySample: boolean;
}

/**
 * Decay of AdamW's mean of squares. Of the second training's 900 steps the first have the largest gradients; 0.999 would
 * remember them to the end and keep all later steps small. The first training's is that of the released code.
 */
const BETA2 = { clip: ADAMW.beta2, tune: 0.95 } as const satisfies Record<TrainingStage, number>;

/** Share of the steps that the rise of the learning rates may take. */
const MOST_WARM_UP = 0.1;

/** Windows on which start and end are compared. */
const COMPARED = 32;

/** Trains a block's parameters; they end at the better of start and end. */
export async function trainBlock(job: TrainingJob): Promise<TrainingResult> {
  const { block, streams, parameters, batch, epochs, stage, progress, signal } = job;
  const { engine } = block;
  const perEpoch = Math.ceil(streams.windows / batch);
  const steps = epochs * perEpoch;
  const warmUp = Math.min(job.warmUp, steps * MOST_WARM_UP);
  const loss = () =>
    engine.scope(() => blockLoss(block, job.weights(engine), streams, COMPARED, job.activations, signal));
  const { optimizer, current } = await begin(job, loss);
  const economy: Economy = { checkpoints: false, bySample: false };
  try {
    const save = async () => progress.save?.({ ...current, optimizer: await optimizer.save() });
    let savedAt = performance.now();
    let order: Int32Array | undefined; // of the running epoch
    while (current.step < steps) {
      if (signal?.aborted) await save();
      await breathe(signal);
      const epoch = Math.floor(current.step / perEpoch);
      order ??= shuffled(streams.windows, createRandom(job.seed, block.name, stage, epoch));
      const first = (current.step % perEpoch) * batch;
      const windows = order.subarray(first, first + batch);
      const factor = scheduleFactor(job.schedule, current.step, steps) * warmUpFactor(current.step, warmUp);
      const value = await fittingStep(job, optimizer, windows, factor, economy);
      if (Number.isFinite(value)) {
        current.lossSum += value;
        current.lossCount++;
      }
      current.step++;
      progress.onStep?.(stage, current.step, steps);
      if (current.step % perEpoch === 0) {
        const mean = current.lossSum / Math.max(1, current.lossCount);
        progress.onEpoch?.({ stage, epoch: epoch + 1, epochs, loss: mean, startLoss: current.startLoss });
        current.lossSum = current.lossCount = 0;
        order = undefined;
      }
      if (performance.now() - savedAt > SAVE_EVERY * 1000) {
        await save();
        savedAt = performance.now();
      }
    }
    await save(); // a later stage that is stopped need not do this one again
    const endLoss = await loss().catch((error: unknown) => {
      if (error instanceof BitwrightError && error.kind === "numeric") return Number.POSITIVE_INFINITY; // the start is kept
      throw error;
    });
    const improved = endLoss < current.startLoss;
    if (!improved) for (const { name, tensor } of parameters) engine.write(tensor, current.start[name]);
    const result = {
      startLoss: current.startLoss,
      endLoss: improved ? endLoss : current.startLoss,
      improved,
      skippedSteps: optimizer.skipped,
      steps,
    };
    progress.onTrained?.(stage, result);
    return result;
  } finally {
    optimizer.dispose();
  }
}

/** The state to go on from: the saved one, if there is one. A function of its own, so that nothing holds on to what was saved. */
async function begin(
  job: TrainingJob,
  loss: () => Promise<number>,
): Promise<{ optimizer: AdamW; current: Omit<TrainingState, "optimizer"> }> {
  const { block, parameters, stage, progress } = job;
  const saved = await progress.load?.(stage);
  const optimizer = new AdamW(block.engine, parameters, {
    ...ADAMW,
    beta2: BETA2[stage],
    clipNorm: job.clipNorm || undefined,
    clipSpikes: job.clipSpikes || undefined,
  });
  try {
    if (saved) {
      const { optimizer: state, ...current } = saved;
      optimizer.restore(state);
      return { optimizer, current };
    }
    const start: Record<string, Float32Array> = {};
    for (const { name, tensor } of parameters) start[name] = await block.engine.read(tensor);
    const current = { stage, step: 0, lossSum: 0, lossCount: 0, startLoss: await loss(), start };
    return { optimizer, current };
  } catch (error) {
    optimizer.dispose();
    throw error;
  }
}

/** A step, with more economy where the engine has no room for it. */
async function fittingStep(
  job: TrainingJob,
  optimizer: AdamW,
  windows: Int32Array,
  factor: number,
  economy: Economy,
): Promise<number> {
  for (;;) {
    try {
      return await step(job, optimizer, windows, factor, economy);
    } catch (error) {
      if (!(error instanceof BitwrightError && error.kind === "memory")) throw error;
      const { block, progress } = job;
      const tell = (what: string) => progress.onWarning?.(`${block.name}: ${error.message}; from here on ${what}`);
      if (!economy.checkpoints) {
        economy.checkpoints = true;
        tell("activations are computed again for the gradient");
      } else if (!economy.bySample && windows.length > 1) {
        economy.bySample = true;
        tell("a batch is taken a window at a time");
      } else throw error;
    }
  }
}

/** One step on these windows; `factor` is that of the learning rates. Returns the loss. */
async function step(
  job: TrainingJob,
  optimizer: AdamW,
  windows: Int32Array,
  factor: number,
  economy: Economy,
): Promise<number> {
  const { engine } = job.block;
  return engine.scope(async () => {
    const parts = economy.bySample ? Array.from(windows, (window) => Int32Array.of(window)) : [windows];
    const { value, gradients } = await meanOfParts(job, parts, economy.checkpoints);
    // a gradient beyond the precision of products is as bad as a loss that is not finite
    if (!Number.isFinite(value) || (await engine.overflowed())) {
      optimizer.skipped++;
      return value;
    }
    await optimizer.step(gradients, factor);
    for (const gradient of gradients) gradient.dispose();
    return value;
  });
}

/** Loss and gradients over all parts, each of as many windows; none where a loss is not finite. */
async function meanOfParts(job: TrainingJob, parts: readonly Int32Array[], checkpoints: boolean) {
  const { block, streams } = job;
  const { engine } = block;
  let sum = 0;
  let total: F32[] | undefined;
  for (const windows of parts) {
    const { value, gradients } = await engine.scope(async () => {
      const input = await stack(engine, windows, (window) => streams.input(window));
      const target = await stack(engine, windows, (window) => streams.target(window));
      return lossAndGradients(job, input, target, checkpoints || undefined);
    });
    sum += value / parts.length;
    if (!Number.isFinite(value)) return { value, gradients: [] };
    if (parts.length === 1) return { value, gradients };
    for (const [index, gradient] of gradients.entries()) {
      if (total) engine.addInto(total[index], gradient, 1 / parts.length);
      else gradients[index] = engine.scale(gradient, 1 / parts.length);
      gradient.dispose();
    }
    total ??= gradients;
  }
  return { value: sum, gradients: total ?? [] };
}

/** Mean squared error of the block on input [B, T, D], and its gradients by the parameters. */
export async function lossAndGradients(
  job: Pick<TrainingJob, "block" | "parameters" | "weights" | "activations" | "memory">,
  input: F32,
  target: F32,
  checkpoints = needsCheckpoints(job, input),
): Promise<{ value: number; gradients: F32[] }> {
  const { block, parameters } = job;
  const { engine } = block;
  return engine.scope(async () => {
    const tape = new Tape(engine);
    try {
      const leaves = parameters.map(({ tensor }) => tape.watch(tensor));
      // what the tape does not keep is let go of at once
      const output = engine.scope(() =>
        checkpoints
          ? forwardCheckpointed(
              tape,
              (running) => block.context(running, job.activations),
              job.weights(tape.engine),
              input,
            )
          : forwardBlock(block.context(tape.engine, job.activations), job.weights(tape.engine), input),
      );
      const difference = engine.subtract(output, target);
      const squares = engine.dot(difference, difference);
      squares.catch(() => {}); // it is awaited below, unless the call between fails
      // f16 has no room for 2 / size times a difference: gradients are taken of size / 2 times the loss
      const scaling = engine.precision === "f16" ? difference.size / 2 : 1;
      const seed = scaling === 1 ? engine.scale(difference, 2 / difference.size) : difference;
      const gradients = tape.backward(output, seed, leaves); // for the card to work on while we wait
      const value = (await squares) / difference.size;
      if (!Number.isFinite(value)) return { value, gradients: [] };
      if (scaling === 1) return { value, gradients };
      return {
        value,
        gradients: gradients.map((gradient) => {
          const own = engine.scale(gradient, 1 / scaling);
          gradient.dispose();
          return own;
        }),
      };
    } finally {
      tape.clear();
    }
  });
}

/** Whether what a step keeps for its gradient exceeds the memory it may take. */
function needsCheckpoints(
  { block, activations, memory }: Pick<TrainingJob, "block" | "activations" | "memory">,
  input: F32,
) {
  const tokens = input.size / block.config.hidden;
  return memory !== undefined && activationBytes(block.config, tokens, activations !== undefined) > memory;
}

/** [1, T, D] of each window one below the other, [B, T, D]. */
async function stack(engine: Engine, windows: Int32Array, load: (window: number) => Promise<F32>): Promise<F32> {
  if (windows.length === 1) return load(windows[0]);
  return engine.scope(async () => {
    let whole: F32 | undefined;
    for (const [index, window] of windows.entries()) {
      const one = await load(window);
      whole ??= engine.create([windows.length, ...one.shape.slice(1)]);
      engine.copyInto(whole, one, index * one.size);
      one.dispose();
    }
    return whole as F32;
  });
}
