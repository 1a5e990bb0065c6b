import { requireNoOverflow } from "../engine/overflow.js";
import type { BlockState, BlockWeights, Stage } from "../model/block.js";
import type { LinearStatistics } from "../quant/method.js";
import {
  accumulate,
  createStatistics,
  finishStatistics,
  type StatisticsAccumulator,
  shortfallOf,
} from "../quant/statistics.js";
import type { F32 } from "../tensor/index.js";
import { breathe } from "../turns.js";
import { type BlockRoom, planBlock, retried } from "./device-plan.js";
import { HIDDEN_ONLY, Stream } from "./stream.js";

// THE block loop: decoder blocks in order, each loaded alone, measured, quantized and freed, while the calibration windows'
// activations wait outside the engine's scopes. Peak memory is one block and the activations, whatever the model's size.

export interface NextBlock {
  block: number;
  /** Its weights may come into the engine early. */
  upload: boolean;
}

/** What the loop needs of a model: blocks by number. */
export interface BlockSource {
  readonly blocks: number;
  /** Slots of the linears of each stage; the same for every block. */
  readonly stageSlots: string[][];
  /** `next` is what will be wanted then: the block behind, on the host, where nothing else is said. */
  load(block: number, next?: NextBlock): Promise<BlockWeights>;
  /** Bytes of the next block's weights that are in the engine. */
  earlyBytes(): number;
  stages(block: number, weights: BlockWeights): Stage[];
  /** Hidden state [1, T, D] of a window before the first block. */
  embed(window: number): Promise<F32>;
}

/** What the loop asks of the job. */
export interface BlockWork {
  /** False where the block is only passed through. Default: true. */
  hasWork?(block: number): boolean;
  /** True when the linear in this slot still has to be quantized with statistics of its inputs. */
  needsStatistics(block: number, slot: string): boolean;
  /**
   * Called once for each stage, with the statistics of the linears' shared input (undefined when none was needed). Quantizes
   * the stage's linears and returns what they decode to, [O, I] by slot, for the quantized stream; a slot left out keeps its weights.
   */
  quantizeStage(
    block: number,
    slots: string[],
    weights: BlockWeights,
    statistics: LinearStatistics | undefined,
  ): Promise<Record<string, Float32Array>>;
  onBlock(block: number): void;
  /** A window has passed, in one of so many `parts` of the pass through the block. */
  onWindow(block: number, slots: string[], window: number, parts: number): void;
}

export interface BlockLoopOptions extends BlockRoom {
  windows: number;
  propagate: "full" | "quantized";
  /**
   * Windows, from the first on, with the full-precision stream beside the quantized one, for E[(x_full - x) x^T]. None where
   * that is not wanted.
   */
  correctionWindows: number;
  signal?: AbortSignal;
}

/** Runs every block through `work`. */
export async function runBlocks(source: BlockSource, work: BlockWork, options: BlockLoopOptions): Promise<void> {
  const { engine, windows, budget, signal } = options;
  const main = new Stream(engine, windows, budget);
  const full =
    options.propagate === "quantized" && options.correctionWindows > 0
      ? new Stream(engine, windows, budget)
      : undefined;
  try {
    for (let window = 0; window < windows; window++) {
      await breathe(signal);
      await engine.scope(async () => {
        const hidden = await retried(options, () => source.embed(window));
        await retried(options, () => main.start(window, hidden));
        if (full && window < options.correctionWindows) await retried(options, () => full.start(window, hidden));
      });
    }
    const last = lastMeasured(source, work);
    // nothing waits behind the others
    const wanted = Array.from({ length: source.blocks }, (_, block) => block).filter(
      (block) => block <= last || options.propagate !== "full" || work.hasWork?.(block) !== false,
    );
    for (const [at, block] of wanted.entries()) {
      await breathe(signal);
      work.onBlock(block);
      const { byStage, uploadsNext } = await planBlock(options, block, source.earlyBytes());
      await engine.scope(async () => {
        const next = { block: wanted[at + 1] ?? source.blocks, upload: uploadsNext };
        const weights = await retried(options, () => source.load(block, next));
        if (options.propagate === "full")
          await fullPrecisionBlock(source, work, options, main, block, weights, last, byStage);
        else await quantizedBlock(source, work, options, main, full, block, weights);
      });
      await requireNoOverflow(engine, `block ${block}`);
    }
  } finally {
    await main.close();
    await full?.close();
  }
}

/** The last block with a linear that needs statistics; -1 when there is none. */
function lastMeasured(source: BlockSource, work: BlockWork): number {
  for (let block = source.blocks - 1; block >= 0; block--)
    if (source.stageSlots.flat().some((slot) => work.needsStatistics(block, slot))) return block;
  return -1;
}

/**
 * Every linear of the block sees the full-precision stream (the paper's way): one pass measures all of them, or one a stage, from the
 * same states. Behind the `last` measured block nothing passes.
 */
async function fullPrecisionBlock(
  source: BlockSource,
  work: BlockWork,
  options: BlockLoopOptions,
  stream: Stream,
  block: number,
  weights: BlockWeights,
  last: number,
  byStage: boolean,
): Promise<void> {
  const { engine, signal } = options;
  const stages = await retried(options, async () => source.stages(block, weights));
  const parts = byStage ? stages.map((_, index) => [index]) : [[...stages.keys()]];
  for (const part of parts) {
    await engine.scope(async () => {
      const measured: (StatisticsAccumulator | undefined)[] = [];
      for (const index of part) {
        const stage = stages[index];
        if (stage.slots.some((slot) => work.needsStatistics(block, slot)))
          measured[index] = await retried(options, async () =>
            createStatistics(engine, inputColumns(weights, stage), false),
          );
      }
      const advances = part === parts.at(-1) && block < last; // whatever it measures
      const slots = part.flatMap((index) => stages[index].slots);
      await passBlock(options, stream, stages, measured, advances, (window) =>
        work.onWindow(block, slots, window, parts.length),
      );
      for (const index of part) {
        const stage = stages[index];
        await breathe(signal);
        await engine.scope(async () => {
          const sums = measured[index];
          const statistics =
            sums && (await retried(options, () => finishStatistics(engine, sums, whereOf(block, stage))));
          await work.quantizeStage(block, stage.slots, weights, statistics);
        });
      }
    });
  }
}

/** Takes every window to the last of the stages that are measured or, where the stream `advances`, through all of them. */
async function passBlock(
  options: BlockLoopOptions,
  stream: Stream,
  stages: readonly Stage[],
  measured: readonly (StatisticsAccumulator | undefined)[],
  advances: boolean,
  onWindow: (window: number) => void,
): Promise<void> {
  const { engine, windows, signal } = options;
  const passed = advances ? stages : stages.slice(0, measured.findLastIndex((sums) => sums !== undefined) + 1);
  if (passed.length === 0) return;
  for (let window = 0; window < windows; window++) {
    await breathe(signal);
    await engine.scope(async () => {
      const { before, hidden, inputs } = await retried(options, async () => {
        const before = await stream.load(window, HIDDEN_ONLY);
        const inputs: F32[] = []; // of the measured stages
        let state = before;
        for (const [index, stage] of passed.entries()) {
          const input = stage.input(state);
          if (measured[index]) inputs[index] = input;
          if (advances || index + 1 < passed.length) state = stage.advance(state, input);
        }
        return { before, hidden: state.hidden, inputs };
      });
      // sums and stream change when nothing can fail any more that would be done again
      for (const [index, sums] of measured.entries()) if (sums) accumulate(engine, sums, inputs[index]);
      if (advances) await retried(options, () => stream.save(window, before, { hidden }));
    });
    onWindow(window);
  }
}

/** Each stage sees what the quantized stages and blocks before it produce. A pass advances one stage and measures the next. */
async function quantizedBlock(
  source: BlockSource,
  work: BlockWork,
  options: BlockLoopOptions,
  main: Stream,
  full: Stream | undefined,
  block: number,
  weights: BlockWeights,
): Promise<void> {
  const { engine, windows, signal } = options;
  const stages = await retried(options, async () => source.stages(block, weights));
  // the full stream keeps the weights of the checkpoint while `weights` are replaced
  const fullStages = full && source.stages(block, { linears: { ...weights.linears }, vectors: weights.vectors });
  const isLast = block === source.blocks - 1;
  let mainParts = HIDDEN_ONLY;
  let fullParts = HIDDEN_ONLY;
  for (const [index, stage] of [...stages, undefined].entries()) {
    if (stage === undefined && isLast) break;
    const needed = stage?.slots.some((slot) => work.needsStatistics(block, slot)) ?? false;
    // at the very first stage both streams are the same
    const corrected = full !== undefined && (block > 0 || index > 0);
    const decoded = await engine.scope(async () => {
      const sums =
        stage && needed
          ? await retried(options, async () => createStatistics(engine, inputColumns(weights, stage), corrected))
          : undefined;
      let nextMain = HIDDEN_ONLY;
      let nextFull = HIDDEN_ONLY;
      for (let window = 0; window < windows; window++) {
        await breathe(signal);
        if (index === 0 && !needed) break; // nothing to advance, nothing to measure
        await engine.scope(async () => {
          const own = await retried(options, async () => {
            const before = await main.load(window, mainParts);
            const state = index > 0 ? advance(stages[index - 1], before) : before;
            return { before, state, input: sums && stage?.input(state) };
          });
          const other =
            full && fullStages && window < options.correctionWindows
              ? await retried(options, async () => {
                  const before = await full.load(window, fullParts);
                  const state = index > 0 ? advance(fullStages[index - 1], before) : before;
                  return { before, state, input: sums && corrected ? fullStages[index].input(state) : undefined };
                })
              : undefined;
          const { input } = own;
          const fullInput = other?.input;
          const shortfall =
            input && fullInput ? await retried(options, async () => shortfallOf(engine, input, fullInput)) : undefined;
          if (sums && input) accumulate(engine, sums, input, shortfall);
          nextMain = await retried(options, () => main.save(window, own.before, own.state));
          if (full && other) nextFull = await retried(options, () => full.save(window, other.before, other.state));
        });
        work.onWindow(block, stage?.slots ?? [], window, stages.length + 1);
      }
      mainParts = nextMain;
      fullParts = nextFull;
      if (!stage) return {};
      const statistics = sums && (await retried(options, () => finishStatistics(engine, sums, whereOf(block, stage))));
      return work.quantizeStage(block, stage.slots, weights, statistics);
    });
    for (const [slot, values] of Object.entries(decoded)) {
      const linear = weights.linears[slot];
      const weight = await retried(options, async () => engine.upload(values, linear.weight.shape, "f32"));
      weights.linears[slot] = { ...linear, weight };
      if (!full) linear.weight.dispose();
    }
  }
}

/** Width of the input that the stage's linears share. */
const inputColumns = (weights: BlockWeights, stage: Stage): number => weights.linears[stage.slots[0]].weight.shape[1];

function advance(stage: Stage, state: BlockState): BlockState {
  return stage.advance(state, stage.input(state));
}

const whereOf = (block: number, stage: Stage): string => `block ${block}, inputs of ${stage.slots.join(", ")}`;
