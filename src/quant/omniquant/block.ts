import type { Engine } from "../../engine/engine.js";
import { numericError } from "../../errors.js";
import type { ActivationScheme } from "../../model/activation-scheme.js";
import type { BlockState, BlockWeights } from "../../model/block.js";
import type { ModelConfig } from "../../model/config.js";
import { type BlockContext, blockStages, forwardBlock } from "../../model/stages.js";
import type { F32 } from "../../tensor/index.js";
import { breathe } from "../../turns.js";
import type { GridScheme } from "./scheme.js";

// What block-wise training works on, and how far a block's answers are from where they should be.

/** A decoder block in full precision, and what is to become of its linears. */
export interface TrainingBlock {
  engine: Engine;
  config: ModelConfig;
  /** "block 3": for messages and seeds. */
  name: string;
  /** As in the checkpoint; never changed. */
  weights: BlockWeights;
  /** Grid of each linear that is quantized, by slot. */
  grids: Record<string, GridScheme>;
  /** Everything besides weights and hidden states; `engine` may record. */
  context(engine: Engine, activations?: ActivationScheme): BlockContext;
}

/** What goes into the block and what should come out, by calibration window; [1, T, D] both, in the current scope. */
export interface TrainingStreams {
  readonly windows: number;
  /** Output of the quantized blocks before this one. */
  input(window: number): Promise<F32>;
  /** Output of the full-precision block. */
  target(window: number): Promise<F32>;
}

/** Mean squared distance of the block's outputs to their targets over the first `windows` windows. Throws "numeric" when it is not finite. */
export async function blockLoss(
  block: TrainingBlock,
  weights: BlockWeights,
  streams: TrainingStreams,
  windows: number,
  activations?: ActivationScheme,
  signal?: AbortSignal,
): Promise<number> {
  const { engine } = block;
  const context = block.context(engine, activations);
  let total = 0;
  let count = 0;
  for (let window = 0; window < Math.min(windows, streams.windows); window++) {
    await breathe(signal);
    await engine.scope(async () => {
      const input = await streams.input(window);
      const target = await streams.target(window);
      const difference = engine.subtract(forwardBlock(context, weights, input), target);
      const squares = await engine.dot(difference, difference);
      if (!Number.isFinite(squares)) await explain(block, weights, input, target, window, activations);
      total += squares;
      count += difference.size;
    });
  }
  return total / Math.max(1, count);
}

/** Names the first tensor that is not finite. */
async function explain(
  block: TrainingBlock,
  weights: BlockWeights,
  input: F32,
  target: F32,
  window: number,
  activations?: ActivationScheme,
): Promise<never> {
  const { engine, name } = block;
  const fail = (what: string): never => {
    throw numericError(
      `${name}, calibration window ${window}: ${what} is not finite`,
      "the checkpoint or the text is damaged, or a learning rate is too high",
    );
  };
  for (const [slot, { weight, bias }] of Object.entries(weights.linears)) {
    if (!(await engine.allFinite(weight))) fail(`the weight of ${slot}`);
    if (bias && !(await engine.allFinite(bias))) fail(`the bias of ${slot}`);
  }
  for (const [slot, vector] of Object.entries(weights.vectors)) {
    if (!(await engine.allFinite(vector))) fail(slot);
  }
  if (!(await engine.allFinite(input))) fail("its input");
  if (!(await engine.allFinite(target))) fail("the full-precision output");
  let state: BlockState = { hidden: input };
  for (const stage of blockStages(block.context(engine, activations), weights)) {
    const own = stage.input(state);
    if (!(await engine.allFinite(own))) fail(`the input of ${stage.slots.join(", ")}`);
    state = stage.advance(state, own);
    if (state.carry && !(await engine.allFinite(state.carry))) fail(`the output of ${stage.slots.join(", ")}`);
    if (!(await engine.allFinite(state.hidden))) fail(`the stream after ${stage.slots.join(", ")}`);
  }
  return fail("its loss");
}

/** What the inputs of each linear look like, by slot; both [I]. */
export interface InputRanges {
  /** max |x|. */
  largest: Record<string, Float32Array>;
  /** E[x^2]. */
  squares: Record<string, Float32Array>;
}

/** Ranges over the first `windows` windows, in full precision on the quantized stream. */
export async function inputRanges(
  block: TrainingBlock,
  streams: TrainingStreams,
  windows: number,
  signal?: AbortSignal,
): Promise<InputRanges> {
  const { engine, weights } = block;
  const ranges: InputRanges = { largest: {}, squares: {} };
  const used = Math.min(windows, streams.windows);
  let tokens = 0;
  for (let window = 0; window < used; window++) {
    await breathe(signal);
    await engine.scope(async () => {
      let state: BlockState = { hidden: await streams.input(window) };
      tokens += state.hidden.size / block.config.hidden;
      for (const stage of blockStages(block.context(engine), weights)) {
        const input = stage.input(state);
        const largest = await engine.read(engine.columnAbsMax(input));
        const squares = await engine.read(engine.sumRows(engine.multiply(input, input)));
        for (const slot of stage.slots) {
          ranges.largest[slot] =
            ranges.largest[slot]?.map((value, i) => Math.max(value, largest[i])) ?? largest.slice();
          ranges.squares[slot] = ranges.squares[slot]?.map((value, i) => value + squares[i]) ?? squares.slice();
        }
        state = stage.advance(state, input);
      }
    });
  }
  for (const squares of Object.values(ranges.squares)) {
    for (let i = 0; i < squares.length; i++) squares[i] /= Math.max(1, tokens);
  }
  return ranges;
}
