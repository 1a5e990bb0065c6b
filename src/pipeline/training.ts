import type { Engine } from "../engine/engine.js";
import { requireNoOverflow } from "../engine/overflow.js";
import type { ActivationScheme } from "../model/activation-scheme.js";
import type { BlockWeights } from "../model/block.js";
import { type BlockContext, forwardBlock } from "../model/stages.js";
import type { TrainingStreams } from "../quant/omniquant/block.js";
import type { F32 } from "../tensor/index.js";
import { breathe } from "../turns.js";
import { ActivationStore } from "./activations.js";
import { type BlockRoom, retried } from "./device-plan.js";

// The block loop of methods that train a whole block: two streams of hidden states, f16 outside the engine, one of the
// full-precision model and one of the quantized blocks. Peak memory is the training of one block and the activations.

/** What the loop needs of a model. */
export interface TrainingSource {
  readonly blocks: number;
  load(block: number): Promise<BlockWeights>;
  context(block: number, engine: Engine, activations?: ActivationScheme): BlockContext;
  /** Hidden state [1, T, D] of a window before the first block. */
  embed(window: number): Promise<F32>;
}

export interface TrainingWork {
  onBlock(block: number): void;
  onWindow(block: number, window: number): void;
  /** True when a block is finished from an earlier run: targets are then not made. */
  isFinished(block: number): boolean;
  /** Trains and rounds the block; returns its weights as they are stored, in the current scope. */
  quantizeBlock(block: number, weights: BlockWeights, streams: TrainingStreams): Promise<BlockWeights>;
}

export interface TrainingLoopOptions extends Omit<BlockRoom, "needs"> {
  windows: number;
  /** The target is the mean of the full-precision block's answers to both streams (OmniQuant's augmented loss). */
  augment: boolean;
  /** How the quantized stream is quantized on its way. */
  activations?: ActivationScheme;
  signal?: AbortSignal;
}

/** Runs every block through `work`. */
export async function trainBlocks(
  source: TrainingSource,
  work: TrainingWork,
  options: TrainingLoopOptions,
): Promise<void> {
  const { engine, windows, budget, signal, activations } = options;
  const store = () => new ActivationStore(engine, windows, "f16", budget);
  const [full, quantized, targets] = [store(), store(), store()];
  const put = (to: ActivationStore, window: number, hidden: F32) => retried(options, () => to.put(window, hidden));
  const pass = (context: BlockContext, weights: BlockWeights, from: ActivationStore, window: number) =>
    retried(options, async () => forwardBlock(context, weights, await from.get(window)));
  try {
    for (let window = 0; window < windows; window++) {
      await breathe(signal);
      await engine.scope(async () => {
        const hidden = await retried(options, () => source.embed(window));
        await put(full, window, hidden);
        await put(quantized, window, hidden);
      });
    }
    for (let block = 0; block < source.blocks; block++) {
      await breathe(signal);
      work.onBlock(block);
      const isLast = block === source.blocks - 1;
      // in the first block both streams are the same
      const mixed = options.augment && block > 0 && !work.isFinished(block);
      await engine.scope(async () => {
        const weights = await retried(options, () => source.load(block));
        const context = await retried(options, async () => source.context(block, engine));
        for (let window = 0; window < windows && !(isLast && work.isFinished(block)); window++) {
          await breathe(signal);
          await engine.scope(async () => {
            const output = await pass(context, weights, full, window);
            await put(full, window, output);
            if (!mixed) return;
            // |y - a|^2 + |y - b|^2 is least, as 2 |y - (a + b) / 2|^2 is, at the mean
            const answer = await pass(context, weights, quantized, window);
            await retried(options, () => targets.put(window, engine.scale(engine.add(output, answer), 0.5)));
          });
          work.onWindow(block, window);
        }
        await requireNoOverflow(engine, `block ${block} in full precision`);
        const streams: TrainingStreams = {
          windows,
          input: (window) => quantized.get(window),
          target: (window) => (mixed ? targets : full).get(window),
        };
        // done again it goes on from what it has saved
        const stored = await retried(options, () => work.quantizeBlock(block, weights, streams));
        if (isLast) return;
        const after = source.context(block, engine, activations);
        for (let window = 0; window < windows; window++) {
          await breathe(signal);
          await engine.scope(async () => {
            await put(quantized, window, await pass(after, stored, quantized, window));
          });
          work.onWindow(block, window);
        }
      });
    }
  } finally {
    await Promise.all([full.close(), quantized.close(), targets.close()]);
  }
}
