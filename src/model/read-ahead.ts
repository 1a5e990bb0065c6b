import { blockLinears, blockVectors } from "./block.js";
import type { ModelConfig } from "./config.js";
import type { HalfValues, WeightSource } from "./weights.js";

/** A source that reads a block's tensors before they are asked for. */
export interface ReadAhead extends WeightSource {
  /** Begins to read the tensors of a block, one after the other; nothing where there is no such block. Drops what waits unread. */
  prefetch(block: number): void;
}

/**
 * Reads while something else is at work: for engines whose memory is not the host's, so that the host has room for one more
 * block. What goes wrong is thrown by the `read` that wanted it.
 */
export function readAhead(config: ModelConfig, source: WeightSource): ReadAhead {
  type Values = { half?: HalfValues; values?: Float32Array };
  const readEither = async (name: string, shape: readonly number[]): Promise<Values> => {
    const half = await source.readHalf?.(name, shape);
    return half ? { half } : { values: await source.read(name, shape) };
  };
  let waiting = new Map<string, Promise<Values>>();
  return {
    has: (name) => source.has(name),
    shape: (name) => source.shape(name),
    async read(name, shape) {
      const early = waiting.get(name);
      waiting.delete(name);
      return (await early)?.values ?? source.read(name, shape);
    },
    async readHalf(name, shape) {
      const early = waiting.get(name);
      const { half } = (await early) ?? { half: await source.readHalf?.(name, shape) };
      if (half) waiting.delete(name); // else `read` comes for it
      return half;
    },
    prefetch(block) {
      waiting = new Map();
      if (block >= config.layers) return;
      let last: Promise<unknown> = Promise.resolve();
      const next = (name: string, shape: readonly number[]) => {
        const own = last.then(() => readEither(name, shape));
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
  };
}
