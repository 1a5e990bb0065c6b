import { blockLinears, blockVectors } from "./block.js";
import type { ModelConfig } from "./config.js";
import type { WeightSource } from "./weights.js";

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
  let waiting = new Map<string, Promise<Float32Array>>();
  return {
    ...source,
    has: (name) => source.has(name),
    shape: (name) => source.shape(name),
    read(name, shape) {
      const early = waiting.get(name);
      waiting.delete(name);
      return early ?? source.read(name, shape);
    },
    prefetch(block) {
      waiting = new Map();
      if (block >= config.layers) return;
      let last: Promise<unknown> = Promise.resolve();
      const next = (name: string, shape: readonly number[]) => {
        const own = last.then(() => source.read(name, shape));
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
