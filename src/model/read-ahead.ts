import type { Engine } from "../engine/engine.js";
import { BitwrightError } from "../errors.js";
import { blockLinears, blockVectors } from "./block.js";
import type { ModelConfig } from "./config.js";
import { type HalfTensor, type HalfValues, uploadHalf, type WeightSource } from "./weights.js";

/** A source that reads a block's tensors before they are asked for. */
export interface ReadAhead extends WeightSource {
  /**
   * Begins to read the tensors of a block, one after the other; nothing where there is no such block. With `upload`, those stored in
   * 16 bits go into the engine. Drops what waits unread.
   */
  prefetch(block: number, upload: boolean): void;
  /** Of what waits in the engine. */
  earlyBytes(): number;
  /** Drops what waits. */
  close(): void;
}

/** A tensor that was read, in one of these ways. */
interface Read {
  values?: Float32Array;
  /** As it is stored. */
  half?: HalfValues;
  /** As it is stored, in the engine. */
  tensor?: HalfTensor;
}

/**
 * Reads while something else is at work: for engines whose memory is not the host's, so that the host has room for one more block.
 * What goes wrong is thrown by the `read` that wanted it.
 */
export function readAhead(engine: Engine, config: ModelConfig, source: WeightSource): ReadAhead {
  let waiting = new Map<string, Promise<Read>>();
  const early = new Set<HalfTensor>();
  const fetch = async (name: string, shape: readonly number[], uploads: () => boolean): Promise<Read> => {
    const half = await source.readHalf?.(name, shape);
    if (!half) return { values: await source.read(name, shape) };
    if (!uploads()) return { half };
    try {
      const tensor = engine.keep(uploadHalf(engine, half, shape));
      early.add(tensor);
      return { tensor };
    } catch (error) {
      if (error instanceof BitwrightError && error.kind === "memory") return { half };
      throw error;
    }
  };
  const drop = () => {
    waiting = new Map();
    for (const tensor of early) tensor.dispose();
    early.clear();
  };
  /** Hands over a tensor that waits, where it was read in this way. */
  const take = async <Way extends keyof Read>(name: string, way: Way): Promise<Read[Way]> => {
    const promise = waiting.get(name);
    const found = (await promise)?.[way];
    if (found === undefined || waiting.get(name) !== promise) return undefined;
    waiting.delete(name);
    return found;
  };
  return {
    has: (name) => source.has(name),
    shape: (name) => source.shape(name),
    read: async (name, shape) => (await take(name, "values")) ?? source.read(name, shape),
    readHalf: async (name, shape) => (await take(name, "half")) ?? source.readHalf?.(name, shape),
    async uploaded(name) {
      const tensor = await take(name, "tensor");
      if (tensor) early.delete(tensor);
      return tensor;
    },
    prefetch(block, upload) {
      drop();
      if (block >= config.layers) return;
      const mine = waiting;
      let last: Promise<unknown> = Promise.resolve();
      const next = (name: string, shape: readonly number[]) => {
        const own = last.then(() => fetch(name, shape, () => upload && waiting === mine));
        last = own.catch(() => {}); // told when it is read
        waiting.set(name, own);
        own.catch(() => {});
      };
      for (const { name, rows, columns, bias } of blockLinears(config, block)) {
        next(`${name}.weight`, [rows, columns]);
        if (bias) next(`${name}.bias`, [rows]);
      }
      for (const { tensor, size, absent } of blockVectors(config, block))
        if (absent === undefined) next(tensor, [size]);
    },
    earlyBytes: () => [...early].reduce((sum, { bytes }) => sum + bytes, 0),
    close: drop,
  };
}
