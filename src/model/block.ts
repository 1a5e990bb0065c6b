import type { Engine } from "../engine/engine.js";
import type { F32 } from "../tensor/index.js";
import type { ModelConfig } from "./config.js";
import { findFamily } from "./families/index.js";
import type { LinearSlot, VectorSlot } from "./family.js";
import type { WeightSource } from "./weights.js";

// One decoder block: which tensors it has, and its weights in an engine. What it computes is in stages.ts.

/** One linear layer of a block. */
export interface LinearSpec {
  slot: LinearSlot;
  /** Full name in the checkpoint, "model.layers.3.self_attn.q_proj"; tensors are `${name}.weight` and `${name}.bias`. */
  name: string;
  /** O. */
  rows: number;
  /** I. */
  columns: number;
  bias: boolean;
}

/** One vector of a block. */
export interface VectorSpec {
  slot: VectorSlot;
  name: string;
  size: number;
}

export interface LinearWeights {
  /** [O, I]. */
  weight: F32;
  /** [O]. */
  bias?: F32;
}

/** Weights of one block by slot. While a block is quantized, entries of `linears` are replaced in place. */
export interface BlockWeights {
  linears: Record<string, LinearWeights>;
  vectors: Record<string, F32>;
}

/** What flows between the stages of a block. */
export interface BlockState {
  /** The residual stream, [B, T, D]. */
  hidden: F32;
  /** Input of the next stage where that is not a function of `hidden`, [B*T, I]. */
  carry?: F32;
}

/** A step of a block that begins with linears of one shared input. Reads the weights when it is called. */
export interface Stage {
  /** The linears that share the input. */
  slots: string[];
  /** That input, [B*T, I]; in the current scope. */
  input(state: BlockState): F32;
  /** The state after these linears; `state` is not changed, and what stays equal stays the same tensor. */
  advance(state: BlockState, input: F32): BlockState;
}

/** The linears of block `index`, in the order in which they are computed. */
export function blockLinears(config: ModelConfig, index: number): LinearSpec[] {
  const { names, stages } = findFamily(config.family);
  const { hidden, mlp, attentionBias: attention, mlpBias } = config;
  const queryWidth = config.heads * config.headSize;
  const keyWidth = config.keyValueHeads * config.headSize;
  const shapes: Record<LinearSlot, [rows: number, columns: number, bias: boolean]> = {
    query: [queryWidth, hidden, attention.query],
    key: [keyWidth, hidden, attention.key],
    value: [keyWidth, hidden, attention.value],
    output: [hidden, queryWidth, attention.output],
    gate: [mlp, hidden, mlpBias],
    up: [mlp, hidden, mlpBias],
    down: [hidden, mlp, mlpBias],
  };
  return stages
    .flatMap((stage): readonly LinearSlot[] => stage.slots)
    .map((slot) => {
      const [rows, columns, bias] = shapes[slot];
      return { slot, name: `${names.blocks}.${index}.${names.linears[slot]}`, rows, columns, bias };
    });
}

/** The vectors of block `index`. */
export function blockVectors(config: ModelConfig, index: number): VectorSpec[] {
  const { names } = findFamily(config.family);
  const sizes: [VectorSlot, number][] = [
    ["attentionNorm", config.hidden],
    ["mlpNorm", config.hidden],
  ];
  if (config.queryKeyNorm) sizes.push(["queryNorm", config.headSize], ["keyNorm", config.headSize]);
  return sizes.map(([slot, size]) => ({ slot, name: `${names.blocks}.${index}.${names.vectors[slot]}`, size }));
}

/**
 * Reads and uploads the weights of block `index`, one tensor at a time; they belong to the current scope, or to the caller
 * where there is none. Throws what the source throws, and leaves nothing behind then.
 */
export function loadBlock(
  engine: Engine,
  config: ModelConfig,
  source: WeightSource,
  index: number,
): Promise<BlockWeights> {
  return engine.scope(async () => {
    const upload = async (name: string, shape: number[]): Promise<F32> =>
      engine.upload(await source.read(name, shape), shape, "f32");
    const weights: BlockWeights = { linears: {}, vectors: {} };
    for (const { slot, name, rows, columns, bias } of blockLinears(config, index)) {
      const linear: LinearWeights = { weight: await upload(`${name}.weight`, [rows, columns]) };
      if (bias) linear.bias = await upload(`${name}.bias`, [rows]);
      weights.linears[slot] = linear;
    }
    for (const { slot, name, size } of blockVectors(config, index)) {
      weights.vectors[slot] = await upload(`${name}.weight`, [size]);
    }
    return weights;
  });
}

const tensorsOf = (weights: BlockWeights): F32[] => [
  ...Object.values(weights.linears).flatMap(({ weight, bias }) => (bias ? [weight, bias] : [weight])),
  ...Object.values(weights.vectors),
];

/** Takes the weights out of every scope: they live until `disposeBlock`. */
export function keepBlock(engine: Engine, weights: BlockWeights): BlockWeights {
  for (const tensor of tensorsOf(weights)) engine.keep(tensor);
  return weights;
}

/** Frees the weights of a block. */
export function disposeBlock(weights: BlockWeights): void {
  for (const tensor of tensorsOf(weights)) tensor.dispose();
}
