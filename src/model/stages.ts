import type { AttentionOptions, Engine } from "../engine/engine.js";
import type { F32 } from "../tensor/index.js";
import type { ActivationScheme } from "./activation-scheme.js";
import type { BlockState, BlockWeights, LinearWeights, Stage } from "./block.js";
import { appendToCache, type LayerCache } from "./cache.js";
import type { ModelConfig } from "./config.js";
import { blockSpec } from "./families/index.js";
import type { LinearSlot, NormSlot, StageSpec } from "./family.js";
import { fusedHeads } from "./heads.js";
import { alibiSlopes, type RopeTables } from "./rope.js";

type SpecOf<Kind extends StageSpec["kind"]> = Extract<StageSpec, { kind: Kind }>;

/** Where a block stands: all it needs besides its weights and the hidden state. */
export interface BlockContext {
  engine: Engine;
  config: ModelConfig;
  /** Index of the block. */
  layer: number;
  /** Must cover positions 0 .. start + T - 1 where positions are rotary. */
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
  return blockSpec(context.config).stages.map((stage) => {
    switch (stage.kind) {
      case "attention":
        return attentionStage(context, weights, stage);
      case "gated":
      case "plain":
        return mlpStage(context, weights, stage);
      case "residual":
        return residualStage(context, weights, stage);
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
      const kept = [hidden, next.hidden, next.carry, next.origin];
      for (const old of [state.hidden, state.carry, state.origin]) if (!kept.includes(old)) old?.dispose();
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

/** The norm of a slot over the last axis. */
function normalized(context: BlockContext, weights: BlockWeights, slot: NormSlot, x: F32): F32 {
  const { engine, config } = context;
  const weight = weights.vectors[slot];
  return config.norm === "rms"
    ? engine.rmsNorm(x, weight, config.epsilon)
    : engine.layerNorm(x, weight, weights.vectors[`${slot}Bias`], config.epsilon);
}

/** The stream, normed where there is a norm, as rows: [B, T, D] -> [B*T, D]. */
function rowsOf(context: BlockContext, weights: BlockWeights, norm: NormSlot | undefined, hidden: F32): F32 {
  const { engine } = context;
  const [batch, length, width] = hidden.shape;
  return engine.scope(() =>
    engine.view(norm ? normalized(context, weights, norm, hidden) : hidden, [batch * length, width]),
  );
}

function attentionStage(context: BlockContext, weights: BlockWeights, spec: SpecOf<"attention">): Stage {
  const { engine, config, rope, start, cache } = context;
  const { heads, headSize } = config;
  return {
    slots: [...spec.slots],
    input: ({ hidden }) => rowsOf(context, weights, spec.norm, hidden),
    advance: ({ hidden }, input) =>
      engine.scope(() => {
        const [batch, length] = hidden.shape;
        const parts = splitHeads(context, weights, quantized(context, input, "input"), [batch, length]);
        const placed = (slot: "query" | "key") =>
          engine.scope(() => {
            let x = parts[slot]();
            if (config.queryKeyNorm) x = normalized(context, weights, `${slot}Norm`, x);
            if (config.positions === "rotary") x = engine.rope(x, rope.cos, rope.sin, start);
            return quantized(context, x, slot);
          });
        const query = placed("query"); // [B, T, H, d]
        const key = placed("key"); // [B, T, K, d]
        const value = quantized(context, parts.value(), "value");
        const scale = 1 / Math.sqrt(headSize);
        const options: AttentionOptions = { scale, window: config.slidingWindow[context.layer] };
        if (config.positions === "alibi") {
          const slopes = alibiSlopes(heads).map((slope) => slope * scale); // Falcon scales scores and bias alike
          options.slopes = engine.upload(slopes, [heads], "f32");
        }
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

/** Query [B, T, H, d], key and value [B, T, K, d] of rows x [B*T, D], each when it is asked for. */
function splitHeads(context: BlockContext, weights: BlockWeights, x: F32, [batch, length]: [number, number]) {
  const { engine, config } = context;
  const { heads, keyValueHeads, headSize } = config;
  const fused = weights.linears.queryKeyValue;
  if (!fused) {
    const split = (slot: LinearSlot, count: number) => () =>
      engine.view(applyLinear(engine, x, weights.linears[slot]), [batch, length, count, headSize]);
    return { query: split("query", heads), key: split("key", keyValueHeads), value: split("value", keyValueHeads) };
  }
  const all = heads + 2 * keyValueHeads;
  const table = engine.view(applyLinear(engine, x, fused), [batch * length * all, headSize]);
  const places = fusedHeads(config);
  const pick = (own: readonly number[]) => () => {
    const indices = Int32Array.from({ length: batch * length * own.length }, (_, at) => {
      return Math.floor(at / own.length) * all + own[at % own.length];
    });
    return engine.gatherRows(table, engine.upload(indices, [batch, length, own.length], "i32"));
  };
  return { query: pick(places.query), key: pick(places.key), value: pick(places.value) };
}

/** Gated: activation(gate) * up, [B*T, F]. Plain: activation(up). */
function mlpStage(context: BlockContext, weights: BlockWeights, spec: SpecOf<"gated"> | SpecOf<"plain">): Stage {
  const { engine, config } = context;
  const source = ({ hidden, origin }: BlockState): F32 => {
    if (spec.kind === "gated" || !spec.reads) return hidden;
    if (!origin) throw new Error("the stage before kept no origin");
    return origin;
  };
  return {
    slots: [...spec.slots],
    input: (state) => rowsOf(context, weights, spec.norm, source(state)),
    advance: ({ hidden }, input) =>
      engine.scope(() => {
        const x = quantized(context, input, "input");
        const up = () => applyLinear(engine, x, weights.linears.up);
        if (spec.kind === "gated") {
          const gate = applyLinear(engine, x, weights.linears.gate);
          return { hidden, carry: engine.siluMultiply(gate, up()) };
        }
        return { hidden, carry: config.activation === "relu" ? engine.relu(up()) : engine.gelu(up()) };
      }),
  };
}

function residualStage(context: BlockContext, weights: BlockWeights, spec: SpecOf<"residual">): Stage {
  const { engine } = context;
  const [slot] = spec.slots;
  return {
    slots: [slot],
    input: ({ carry }) => {
      if (!carry) throw new Error(`stage ${slot} needs the carry of the stage before it`);
      return carry;
    },
    advance: ({ hidden }, input) =>
      engine.scope(() => {
        const update = applyLinear(engine, quantized(context, input, "input"), weights.linears[slot]); // [B*T, D]
        const sum = engine.add(hidden, engine.view(update, hidden.shape));
        const next: BlockState = { hidden: spec.norm ? normalized(context, weights, spec.norm, sum) : sum };
        if (spec.keeps) next.origin = hidden;
        return next;
      }),
  };
}
