import type { Engine } from "../engine/engine.js";
import type { ActivationScheme } from "../model/activation-scheme.js";
import { loadBlock } from "../model/block.js";
import type { ModelConfig } from "../model/config.js";
import { embedTokens, type InputWeights, loadEmbedding, loadInput, readEmbedding } from "../model/embedding.js";
import { stageSlots } from "../model/families/index.js";
import { readAhead } from "../model/read-ahead.js";
import { createRopeTables, type RopeTables } from "../model/rope.js";
import { blockStages } from "../model/stages.js";
import type { WeightSource } from "../model/weights.js";
import { type F32, Tensor } from "../tensor/index.js";
import type { BlockSource, NextBlock } from "./blocks.js";
import type { TrainingSource } from "./training.js";

/** Blocks of a model for the block loop. `close` frees the rotary tables that it keeps. */
export function modelBlocks(
  engine: Engine,
  config: ModelConfig,
  source: WeightSource,
  windows: Int32Array[],
  activations?: ActivationScheme,
): BlockSource & TrainingSource & { close(): void } {
  let table: F32 | Float32Array | undefined;
  let input: InputWeights | undefined;
  let rope: RopeTables | undefined;
  const ahead = engine.roomBytes() > 0 ? readAhead(engine, config, source) : undefined;
  const positions = windows.reduce((longest, window) => Math.max(longest, window.length), 1);
  const tables = (): RopeTables => {
    if (!rope) {
      rope = createRopeTables(engine, config, positions);
      engine.keep(rope.cos);
      engine.keep(rope.sin);
    }
    return rope;
  };
  /** In the engine where it takes little of its own memory, for the windows' rows are then taken there. */
  const loadTable = async (): Promise<F32 | Float32Array> => {
    const isSmall = 4 * config.vocabulary * config.embeddingWidth <= engine.roomBytes() / 4;
    return isSmall ? engine.keep(await loadEmbedding(engine, config, source)) : readEmbedding(config, source);
  };
  const forgetInput = (): void => {
    if (table instanceof Tensor) table.dispose();
    input?.projectIn?.dispose();
    table = input = undefined;
  };
  return {
    blocks: config.layers,
    stageSlots: stageSlots(config),
    async load(block: number, next: NextBlock = { block: block + 1, upload: false }) {
      const weights = await loadBlock(engine, config, ahead ?? source, block);
      ahead?.prefetch(next.block, next.upload);
      return weights;
    },
    earlyBytes: () => ahead?.earlyBytes() ?? 0,
    stages: (block, weights) =>
      blockStages({ engine, config, layer: block, rope: tables(), start: 0, activations }, weights),
    context: (block, running, scheme) => ({
      engine: running,
      config,
      layer: block,
      rope: tables(),
      start: 0,
      activations: scheme,
    }),
    async embed(window) {
      table ??= await loadTable();
      if (!input) {
        input = await loadInput(engine, config, source);
        if (input.projectIn) engine.keep(input.projectIn);
      }
      const hidden = embedTokens(engine, config, table, input, [windows[window]]);
      if (window === windows.length - 1) forgetInput(); // the last window: not needed again
      return hidden;
    },
    close() {
      ahead?.close();
      forgetInput();
      rope?.cos.dispose();
      rope?.sin.dispose();
      rope = undefined;
    },
  };
}
