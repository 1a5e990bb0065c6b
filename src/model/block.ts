import type { Engine } from "../engine/engine.js";
import type { F32 } from "../tensor/index.js";
import type { ModelConfig } from "./config.js";
import { blockSpec, findFamily } from "./families/index.js";
import { type LinearSlot, NORM_SLOTS, type NormSlot, type VectorSlot } from "./family.js";
import { loadWeight, type WeightSource } from "./weights.js";

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
  /** Full name of its tensor, "model.layers.3.input_layernorm.weight". */
  tensor: string;
  size: number;
  /** Its value where the checkpoint has no such tensor, because the model's norms have no weights. */
  absent?: 0 | 1;
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
  /** Input of the next stage where that is not a function of `hidden` or `origin`, [B*T, I]. */
  carry?: F32;
  /** The residual stream as the block found it, [B, T, D], while a later stage reads it. */
  origin?: F32;
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
  const { names } = findFamily(config.family);
  const { hidden, mlp, attentionBias: attention, mlpBias } = config;
  const queryWidth = config.heads * config.headSize;
  const keyWidth = config.keyValueHeads * config.headSize;
  const shapes: Record<LinearSlot, [rows: number, columns: number, bias: boolean]> = {
    query: [queryWidth, hidden, attention.query],
    key: [keyWidth, hidden, attention.key],
    value: [keyWidth, hidden, attention.value],
    queryKeyValue: [queryWidth + 2 * keyWidth, hidden, attention.query],
    output: [hidden, queryWidth, attention.output],
    gate: [mlp, hidden, mlpBias],
    up: [mlp, hidden, mlpBias],
    down: [hidden, mlp, mlpBias],
  };
  return blockSpec(config)
    .stages.flatMap((stage): readonly LinearSlot[] => stage.slots)
    .map((slot) => {
      const [rows, columns, bias] = shapes[slot];
      return { slot, name: `${names.blocks}.${index}.${names.linears[slot]}`, rows, columns, bias };
    });
}

/** The vectors of block `index`: weights of its norms, and biases where they are LayerNorms. */
export function blockVectors(config: ModelConfig, index: number): VectorSpec[] {
  const { norms } = blockSpec(config);
  const { blocks } = findFamily(config.family).names;
  const isHeads = (slot: NormSlot) => slot === "queryNorm" || slot === "keyNorm";
  const present = NORM_SLOTS.filter((slot) => norms[slot] !== undefined && (config.queryKeyNorm || !isHeads(slot)));
  const absent = (value: 0 | 1) => (config.normWeights ? {} : { absent: value });
  return present.flatMap((slot): VectorSpec[] => {
    const name = `${blocks}.${index}.${norms[slot]}`;
    const size = isHeads(slot) ? config.headSize : config.hidden;
    const weight: VectorSpec = { slot, tensor: `${name}.weight`, size, ...absent(1) };
    if (config.norm === "rms") return [weight];
    return [weight, { slot: `${slot}Bias`, tensor: `${name}.bias`, size, ...absent(0) }];
  });
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
    const upload = (name: string, shape: number[]): Promise<F32> => loadWeight(engine, source, name, shape);
    const weights: BlockWeights = { linears: {}, vectors: {} };
    for (const { slot, name, rows, columns, bias } of blockLinears(config, index)) {
      const linear: LinearWeights = { weight: await upload(`${name}.weight`, [rows, columns]) };
      if (bias) linear.bias = await upload(`${name}.bias`, [rows]);
      weights.linears[slot] = linear;
    }
    for (const { slot, tensor, size, absent } of blockVectors(config, index)) {
      weights.vectors[slot] =
        absent === undefined
          ? await upload(tensor, [size])
          : engine.upload(new Float32Array(size).fill(absent), [size], "f32");
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
