import type { Engine } from "../engine/engine.js";
import { usageError } from "../errors.js";
import type { F32 } from "../tensor/index.js";
import { breathe } from "../turns.js";
import type { ActivationScheme } from "./activation-scheme.js";
import { type BlockWeights, disposeBlock, keepBlock, loadBlock } from "./block.js";
import { type CacheOptions, createCache, type KeyValueCache, reserveCache } from "./cache.js";
import type { ModelConfig } from "./config.js";
import {
  embedTokens,
  finishStream,
  type InputWeights,
  loadHead,
  loadInput,
  loadOutput,
  type OutputWeights,
  readEmbedding,
  type TokenRows,
} from "./embedding.js";
import { planResidency, type Residency } from "./residency.js";
import { createRopeTables, disposeRopeTables, type RopeTables } from "./rope.js";
import { forwardBlock } from "./stages.js";
import { checkWeights } from "./tensors.js";
import type { WeightSource } from "./weights.js";

export interface DecoderOptions {
  /** Bytes that f32 weights may take; what does not fit is read again when it is needed. Default: everything stays. */
  weightBudget?: number;
  /** Dynamic quantization of activations in every block. Default: none. */
  activations?: ActivationScheme;
}

export interface StepOptions {
  /** Logits of the last token of each row only: [B, 1, V]. */
  lastOnly?: boolean;
}

export interface WindowOptions {
  /** Bytes of hidden states that may wait between blocks that are read again. Default 256 MB. */
  activationBudget?: number;
  signal?: AbortSignal;
}

/**
 * Opens a model for running. Checks at once that the source has every tensor in its shape; weights are read at their first
 * use. Throws "format" for a tensor that is missing or has another shape.
 */
export async function openDecoder(
  engine: Engine,
  config: ModelConfig,
  source: WeightSource,
  options: DecoderOptions = {},
): Promise<Decoder> {
  checkWeights(config, source);
  const residency = planResidency(config, options.weightBudget ?? Number.POSITIVE_INFINITY);
  return new Decoder(engine, config, source, residency, options.activations);
}

/**
 * A model that runs. Results belong to the engine scope around the call. One call at a time: calls are asynchronous scopes,
 * which must not overlap.
 */
export class Decoder {
  private readonly blocks = new Map<number, BlockWeights>();
  private embedding: Float32Array | undefined;
  private input: InputWeights | undefined;
  private output: OutputWeights | undefined;
  private headWeight: F32 | undefined;
  private rope: RopeTables | undefined;

  constructor(
    readonly engine: Engine,
    readonly config: ModelConfig,
    private readonly source: WeightSource,
    readonly residency: Residency,
    readonly activations?: ActivationScheme,
  ) {}

  /** Tokens [B][T] -> logits [B, T, V]. */
  async logits(tokens: TokenRows): Promise<F32> {
    return this.engine.scope(async () => this.head(await this.hiddenStates(tokens)));
  }

  /**
   * Continues the sequences in the cache by tokens [B][T] -> logits of these, [B, T, V]. The cache grows as needed; when the
   * call fails its length is what it was.
   */
  async step(tokens: TokenRows, cache: KeyValueCache, options: StepOptions = {}): Promise<F32> {
    const { engine } = this;
    const { length } = cache;
    try {
      return await engine.scope(async () => {
        const hidden = await this.hiddenStates(tokens, cache);
        return this.head(options.lastOnly ? lastPositions(engine, hidden) : hidden);
      });
    } catch (error) {
      cache.length = length;
      throw error;
    }
  }

  /** Tokens [B][T] -> hidden states as the head takes them, [B, T, E]. With a cache, continues its sequences. */
  async hiddenStates(tokens: TokenRows, cache?: KeyValueCache): Promise<F32> {
    const { engine } = this;
    if (cache && cache.batch !== tokens.length) {
      throw usageError(`the cache is for ${cache.batch} rows of tokens, got ${tokens.length}`);
    }
    return engine.scope(async () => {
      const start = cache?.length ?? 0;
      let hidden = await this.embed(tokens, start);
      const length = hidden.shape[1];
      if (cache) reserveCache(engine, cache, start + length);
      for (let layer = 0; layer < this.config.layers; layer++) {
        hidden = await this.withBlock(layer, (weights) => this.forward(layer, weights, hidden, start, cache));
      }
      const result = await this.normalize(hidden);
      hidden.dispose();
      if (cache) cache.length = start + length;
      return result;
    });
  }

  /** The stream before the first block, [B, T, D], for tokens from position `start` on. */
  async embed(tokens: TokenRows, start = 0): Promise<F32> {
    const { engine, config } = this;
    const input = await this.inputWeights();
    return embedTokens(engine, config, await this.embeddingTable(), input, tokens, start);
  }

  /** Logits of hidden states from `hiddenStates`: [.., E] -> [.., V]. Rows are independent: give views of few to save memory. */
  async head(hidden: F32): Promise<F32> {
    const { engine, config } = this;
    const weight = await this.headTable();
    const leading = hidden.shape.slice(0, -1);
    return engine.scope(() => {
      const width = config.embeddingWidth;
      const rows = engine.view(hidden, [hidden.size / width, width]);
      return engine.view(engine.matmul(rows, weight, { transposeB: true }), [...leading, config.vocabulary]);
    });
  }

  /** A cache for `step`; free it with `disposeCache`. */
  createCache(options?: CacheOptions): KeyValueCache {
    return createCache(this.engine, this.config, options);
  }

  /**
   * Runs many independent windows. `onHidden` gets each one's hidden states as the head takes them, [1, T, E], in order; they are
   * freed when it returns. Blocks that do not stay in memory are read once for as many windows as the activation budget holds.
   */
  async runWindows(
    windows: TokenRows,
    onHidden: (window: number, hidden: F32) => Promise<void>,
    options: WindowOptions = {},
  ): Promise<void> {
    const { activationBudget = 256 * 2 ** 20, signal } = options;
    const streams = this.residency.blocks < this.config.layers;
    for (let begin = 0; begin < windows.length; ) {
      let end = begin + 1;
      if (streams) {
        let bytes = this.hiddenBytes(windows[begin]);
        while (end < windows.length && bytes + this.hiddenBytes(windows[end]) <= activationBudget) {
          bytes += this.hiddenBytes(windows[end++]);
        }
      }
      await this.runChunk(windows, begin, end, onHidden, signal);
      begin = end;
    }
  }

  /** Frees everything that the decoder holds; caches are the caller's. */
  close(): void {
    for (const weights of this.blocks.values()) disposeBlock(weights);
    this.blocks.clear();
    this.embedding = undefined;
    this.input?.projectIn?.dispose();
    for (const tensor of outputTensors(this.output ?? {})) tensor.dispose();
    this.headWeight?.dispose();
    if (this.rope) disposeRopeTables(this.rope);
    this.input = this.output = this.headWeight = this.rope = undefined;
  }

  private hiddenBytes = (window: { length: number }): number => window.length * this.config.hidden * 4;

  /** Windows begin .. end - 1 side by side, block by block. */
  private runChunk(
    windows: TokenRows,
    begin: number,
    end: number,
    onHidden: (window: number, hidden: F32) => Promise<void>,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    return this.engine.scope(async () => {
      const hidden = await this.embedEach(windows.slice(begin, end));
      for (let layer = 0; layer < this.config.layers; layer++) {
        await this.withBlock(layer, async (weights) => {
          for (const [slot, before] of hidden.entries()) {
            hidden[slot] = this.forward(layer, weights, before, 0, undefined);
            await breathe(signal);
          }
          return hidden;
        });
      }
      for (const [slot, last] of hidden.entries()) {
        await this.engine.scope(async () => {
          const result = await this.normalize(last);
          last.dispose();
          await onHidden(begin + slot, result);
        });
        await breathe(signal);
      }
    });
  }

  /** Embeddings of each window, [1, T, D]; the table is let go before the blocks run. */
  private async embedEach(windows: TokenRows): Promise<F32[]> {
    const table = await this.embeddingTable();
    const input = await this.inputWeights();
    return windows.map((window) => embedTokens(this.engine, this.config, table, input, [window]));
  }

  /** One block; `hidden` is freed. */
  private forward(layer: number, weights: BlockWeights, hidden: F32, start: number, cache?: KeyValueCache): F32 {
    const { engine, config, activations } = this;
    const rope = this.ropeTables(start + hidden.shape[1]);
    const context = { engine, config, layer, rope, start, cache: cache?.layers[layer], activations };
    const next = forwardBlock(context, weights, hidden);
    hidden.dispose();
    return next;
  }

  /** Runs `body` with the weights of a block, which are freed afterwards unless they are to stay. */
  private async withBlock<T>(layer: number, body: (weights: BlockWeights) => T | Promise<T>): Promise<T> {
    const { engine, config, source } = this;
    const held = this.blocks.get(layer);
    if (held) return body(held);
    return engine.scope(async () => {
      const weights = await loadBlock(engine, config, source, layer);
      if (layer < this.residency.blocks) this.blocks.set(layer, keepBlock(engine, weights));
      return body(weights);
    });
  }

  private async normalize(hidden: F32): Promise<F32> {
    const { engine, config } = this;
    if (!this.output) {
      const output = await loadOutput(engine, config, this.source);
      for (const tensor of outputTensors(output)) engine.keep(tensor);
      this.output = output;
    }
    return finishStream(engine, config, this.output, hidden);
  }

  private async inputWeights(): Promise<InputWeights> {
    if (!this.input) {
      const input = await loadInput(this.engine, this.config, this.source);
      if (input.projectIn) this.engine.keep(input.projectIn);
      this.input = input;
    }
    return this.input;
  }

  private async headTable(): Promise<F32> {
    this.headWeight ??= this.engine.keep(await loadHead(this.engine, this.config, this.source));
    return this.headWeight;
  }

  /** A tied embedding is the head's tensor; another is looked up on the host, so that it is never uploaded. */
  private async embeddingTable(): Promise<F32 | Float32Array> {
    if (this.config.tieEmbeddings) return this.headTable();
    const table = this.embedding ?? (await readEmbedding(this.config, this.source));
    if (this.residency.embedding) this.embedding = table;
    return table;
  }

  private ropeTables(positions: number): RopeTables {
    if (this.rope && this.rope.positions >= positions) return this.rope;
    const { engine, config } = this;
    const grown = createRopeTables(engine, config, Math.max(positions, 2 * (this.rope?.positions ?? 32)));
    engine.keep(grown.cos);
    engine.keep(grown.sin);
    if (this.rope) disposeRopeTables(this.rope);
    this.rope = grown;
    return grown;
  }
}

const outputTensors = ({ norm, projectOut }: OutputWeights): F32[] =>
  [norm?.weight, norm?.bias, projectOut].filter((tensor) => tensor !== undefined);

/** [B, T, E] -> [B, 1, E]. */
function lastPositions(engine: Engine, hidden: F32): F32 {
  const [batch, length, width] = hidden.shape;
  if (length === 0) return hidden;
  const last = engine.create([batch, 1, width]);
  for (let row = 0; row < batch; row++) {
    engine.copyInto(last, engine.view(hidden, [1, width], ((row + 1) * length - 1) * width), row * width);
  }
  return last;
}
