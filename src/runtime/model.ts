import { type CheckpointModel, openCheckpointModel } from "../checkpoint/open.js";
import type { Engine } from "../engine/engine.js";
import type { Folder } from "../files/folder.js";
import { type Decoder, type DecoderOptions, openDecoder } from "../model/decoder.js";
import { openTokenizer } from "../text/load.js";
import type { Tokenizer } from "../text/tokenizer.js";

/** A checkpoint, plain or quantized, that is ready to run on an engine. */
export interface RunnableModel {
  /** The folder's name. */
  readonly name: string;
  readonly checkpoint: CheckpointModel;
  readonly decoder: Decoder;
  /** Read at the first call: what needs token ids only needs no tokenizer. */
  tokenizer(): Promise<Tokenizer>;
  /** Frees the weights and closes the files; the engine is the caller's. */
  close(): Promise<void>;
}

/** Opens a model for running. Weights are read, and decoded, at their first use. */
export async function openModel(engine: Engine, folder: Folder, options: DecoderOptions = {}): Promise<RunnableModel> {
  const checkpoint = await openCheckpointModel(folder);
  let decoder: Decoder;
  try {
    const { model, weights, activations } = checkpoint;
    decoder = await openDecoder(engine, model, weights, { activations, ...options });
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
  let tokenizer: Promise<Tokenizer> | undefined;
  return {
    name: folder.name,
    checkpoint,
    decoder,
    tokenizer: () => {
      tokenizer ??= openTokenizer(folder);
      return tokenizer;
    },
    async close() {
      decoder.close();
      await checkpoint.close();
    },
  };
}
