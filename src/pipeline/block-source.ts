import type { Engine } from "../engine/engine.js";
import type { ActivationScheme } from "../model/activation-scheme.js";
import { loadBlock } from "../model/block.js";
import type { ModelConfig } from "../model/config.js";
import { embedTokens, readEmbedding } from "../model/embedding.js";
import { findFamily } from "../model/families/index.js";
import { createRopeTables, type RopeTables } from "../model/rope.js";
import { blockStages } from "../model/stages.js";
import type { WeightSource } from "../model/weights.js";
import type { BlockSource } from "./blocks.js";

/** Blocks of a model for the block loop. `close` frees the rotary tables that it keeps. */
export function modelBlocks(
  engine: Engine,
  config: ModelConfig,
  source: WeightSource,
  windows: Int32Array[],
  activations?: ActivationScheme,
): BlockSource & { close(): void } {
  let table: Float32Array | undefined;
  let rope: RopeTables | undefined;
  const positions = windows.reduce((longest, window) => Math.max(longest, window.length), 1);
  const tables = (): RopeTables => {
    if (!rope) {
      rope = createRopeTables(engine, config, positions);
      engine.keep(rope.cos);
      engine.keep(rope.sin);
    }
    return rope;
  };
  return {
    blocks: config.layers,
    stageSlots: findFamily(config.family).stages.map(({ slots }) => [...slots]),
    load: (block) => loadBlock(engine, config, source, block),
    stages: (block, weights) =>
      blockStages({ engine, config, layer: block, rope: tables(), start: 0, activations }, weights),
    async embed(window) {
      table ??= await readEmbedding(config, source);
      const hidden = embedTokens(engine, config, table, [windows[window]]);
      if (window === windows.length - 1) table = undefined; // the last window: the table is not needed again
      return hidden;
    },
    close() {
      rope?.cos.dispose();
      rope?.sin.dispose();
      rope = undefined;
    },
  };
}
