import type { Engine } from "../engine/engine.js";
import type { F32 } from "../tensor/index.js";
import type { ActivationScheme } from "./activation-scheme.js";
import type { BlockState, BlockWeights, LinearWeights, Stage } from "./block.js";
import { appendToCache, type LayerCache } from "./cache.js";
import type { ModelConfig } from "./config.js";
import { findFamily } from "./families/index.js";
import type { LinearSlot, VectorSlot } from "./family.js";
import type { RopeTables } from "./rope.js";

/** Where a block stands: all it needs besides its weights and the hidden state. */
export interface BlockContext {
  engine: Engine;
  config: ModelConfig;
  /** Index of the block. */
  layer: number;
  /** Must cover positions 0 .. start + T - 1. */
  rope: RopeTables;
  /** Position of the first token. */
  start: number;
  /** Keys and values of the positions before `start`; those of the new tokens are written into it. */
  cache?: LayerCache;
  /** Default: nothing is quantized on the way. */
  activations?: ActivationScheme;
}

/** The stages of a block in order; running them one after the other is the block. */
export function blockStages(context: BlockContext, weights: BlockWeights): Stage[] {
  return findFamily(context.config.family).stages.map((stage) => {
    switch (stage.kind) {
      case "attention":
        return attentionStage(context, weights, stage.norm);
      case "gated":
        return gatedStage(context, weights, stage.norm);
      case "residual":
        return residualStage(context, weights, stage.slots[0]);
      default:
        return stage satisfies never;
    }
  });
}

/** Runs a block: hidden [B, T, D] -> [B, T, D], a new tensor. Temporaries are freed stage by stage. */
export function forwardBlock(context: BlockContext, weights: BlockWeights, hidden: F32): F32 {
  const { engine } = context;
  return engine.scope(() => {
    let state: BlockState = { hidden };
    for (const stage of blockStages(context, weights)) {
      const next = engine.scope(() => stage.advance(state, stage.input(state)));
      if (state.carry !== next.carry) state.carry?.dispose();
      if (state.hidden !== hidden && state.hidden !== next.hidden) state.hidden.dispose();
      state = next;
    }
    return state.hidden;
  });
}

/** x W^T + b: [N, I] -> [N, O]. */
export function applyLinear(engine: Engine, input: F32, linear: LinearWeights): F32 {
  const product = engine.matmul(input, linear.weight, { transposeB: true });
  if (!linear.bias) return product;
  const sum = engine.add(product, linear.bias);
  product.dispose();
  return sum;
}

/** Activations as the scheme has them: [.., C], a grid a row of the last axis; the same tensor where it leaves them alone. */
function quantized(context: BlockContext, x: F32, kind: "input" | "query" | "key" | "value"): F32 {
  const bits = context.activations?.[kind];
  return bits === undefined ? x : context.engine.fakeQuantizeRows(x, bits, context.activations?.symmetric);
}

/** RMSNorm of the stream, as rows: [B, T, D] -> [B*T, D]. */
function normedRows(context: BlockContext, weights: BlockWeights, norm: VectorSlot, hidden: F32): F32 {
  const { engine, config } = context;
  const [batch, length, width] = hidden.shape;
  return engine.scope(() =>
    engine.view(engine.rmsNorm(hidden, weights.vectors[norm], config.epsilon), [batch * length, width]),
  );
}

function attentionStage(context: BlockContext, weights: BlockWeights, norm: VectorSlot): Stage {
  const { engine, config, rope, start, cache } = context;
  const { heads, keyValueHeads, headSize } = config;
  return {
    slots: ["query", "key", "value"],
    input: ({ hidden }) => normedRows(context, weights, norm, hidden),
    advance: ({ hidden }, input) =>
      engine.scope(() => {
        const [batch, length] = hidden.shape;
        const x = quantized(context, input, "input");
        // [B*T, I] -> [B, T, count, d]
        const split = (slot: LinearSlot, count: number) =>
          engine.view(applyLinear(engine, x, weights.linears[slot]), [batch, length, count, headSize]);
        const rotated = (slot: "query" | "key", count: number, headNorm: VectorSlot) =>
          engine.scope(() => {
            const plain = split(slot, count);
            const weight = weights.vectors[headNorm];
            const normed = config.queryKeyNorm ? engine.rmsNorm(plain, weight, config.epsilon) : plain;
            return quantized(context, engine.rope(normed, rope.cos, rope.sin, start), slot);
          });
        const query = rotated("query", heads, "queryNorm"); // [B, T, H, d]
        const key = rotated("key", keyValueHeads, "keyNorm"); // [B, T, K, d]
        const value = quantized(context, split("value", keyValueHeads), "value");
        const options = { scale: 1 / Math.sqrt(headSize), window: config.slidingWindow[context.layer] };
        let mixed: F32; // [B, T, H, d]
        if (cache) {
          appendToCache(engine, cache, key, value, start);
          mixed = engine.attention(query, cache.key, cache.value, { ...options, keyLength: start + length });
        } else {
          mixed = engine.attention(query, key, value, options);
        }
        return { hidden, carry: engine.view(mixed, [batch * length, heads * headSize]) };
      }),
  };
}

function gatedStage(context: BlockContext, weights: BlockWeights, norm: VectorSlot): Stage {
  const { engine } = context;
  return {
    slots: ["gate", "up"],
    input: ({ hidden }) => normedRows(context, weights, norm, hidden),
    advance: ({ hidden }, input) =>
      engine.scope(() => {
        const x = quantized(context, input, "input");
        const gate = applyLinear(engine, x, weights.linears.gate); // [B*T, F]
        const up = applyLinear(engine, x, weights.linears.up);
        return { hidden, carry: engine.siluMultiply(gate, up) };
      }),
  };
}

function residualStage(context: BlockContext, weights: BlockWeights, slot: LinearSlot): Stage {
  const { engine } = context;
  return {
    slots: [slot],
    input: ({ carry }) => {
      if (!carry) throw new Error(`stage ${slot} needs the carry of the stage before it`);
      return carry;
    },
    advance: ({ hidden }, input) =>
      engine.scope(() => {
        const update = applyLinear(engine, quantized(context, input, "input"), weights.linears[slot]); // [B*T, D]
        return { hidden: engine.add(hidden, engine.view(update, hidden.shape)) };
      }),
  };
}
