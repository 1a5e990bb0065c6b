import { checkpoint, type Tape } from "../../autograd/index.js";
import type { Engine } from "../../engine/engine.js";
import type { BlockState, BlockWeights, LinearWeights } from "../../model/block.js";
import type { ModelConfig } from "../../model/config.js";
import { blockSpec } from "../../model/families/index.js";
import type { StageSpec } from "../../model/family.js";
import { type BlockContext, blockStages } from "../../model/stages.js";
import type { F32 } from "../../tensor/index.js";

// A block's forward pass that remembers only the stream between its parts, and computes the rest again for the gradient.

/** Bytes that the forward pass of one step keeps for its gradient, roughly: [B, T] tokens. */
export function activationBytes(config: ModelConfig, tokens: number, quantized: boolean): number {
  const perToken = 14 * config.hidden + 3 * config.mlp + (quantized ? 5 * config.hidden + config.mlp : 0);
  return 4 * tokens * perToken;
}

/** Runs of stages from one state that is the stream alone to the next: attention, then the MLP, where they are not parallel. */
function parts(stages: readonly StageSpec[]): [begin: number, end: number][] {
  const result: [number, number][] = [];
  let begin = 0;
  let kept = false;
  for (const [index, stage] of stages.entries()) {
    if (stage.kind === "residual" && stage.keeps) kept = true;
    if (stage.kind === "plain" && stage.reads) kept = false;
    if (stage.kind !== "residual" || kept) continue;
    result.push([begin, index + 1]);
    begin = index + 1;
  }
  return result;
}

/** As `forwardBlock`, on the tape, one checkpoint a part. hidden [B, T, D]; `weights` may be watched, part by part. */
export function forwardCheckpointed(
  tape: Tape,
  contextOf: (engine: Engine) => BlockContext,
  weights: BlockWeights,
  hidden: F32,
): F32 {
  const { stages } = blockSpec(contextOf(tape.base).config);
  let stream = hidden;
  for (const [begin, end] of parts(stages)) {
    const slots = stages.slice(begin, end).flatMap((stage): readonly string[] => stage.slots);
    const { tensors, rebuild } = flatten(weights, slots);
    stream = checkpoint(tape, [stream, ...tensors], (engine, [first, ...own]) => {
      const all = blockStages(contextOf(engine), rebuild(own)).slice(begin, end);
      return all.reduce((state: BlockState, stage) => stage.advance(state, stage.input(state)), { hidden: first })
        .hidden;
    });
  }
  return stream;
}

/** The tensors that some linears and every vector have, in a row, and the way back. */
function flatten(weights: BlockWeights, slots: readonly string[]) {
  const vectors = Object.keys(weights.vectors);
  const tensors = slots.flatMap((slot) => {
    const { weight, bias } = weights.linears[slot];
    return bias ? [weight, bias] : [weight];
  });
  tensors.push(...vectors.map((slot) => weights.vectors[slot]));
  const rebuild = (own: readonly F32[]): BlockWeights => {
    let next = 0;
    const linears: Record<string, LinearWeights> = {};
    for (const slot of slots) {
      const weight = own[next++];
      linears[slot] = weights.linears[slot].bias ? { weight, bias: own[next++] } : { weight };
    }
    return { linears, vectors: Object.fromEntries(vectors.map((slot) => [slot, own[next++]])) };
  };
  return { tensors, rebuild };
}
