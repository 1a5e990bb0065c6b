import type { Engine } from "../engine/engine.js";
import { blockLinears, blockVectors } from "./block.js";
import type { ModelConfig } from "./config.js";
import { type HalfTensor, type HalfValues, uploadHalf, type WeightSource } from "./weights.js";

/** A source that reads a block's tensors before they are asked for. */
export interface ReadAhead extends WeightSource {
  /** Begins to read the tensors of a block, one after the other; nothing where there is no such block. Drops what waits unread. */
  prefetch(block: number): void;
  /** Drops what waits. */
  close(): void;
}

/** A tensor is uploaded early while the engine has so many times its bytes left: the block at work comes first. */
const ROOM = 64;

/** One of these. */
interface Early {
  values?: Float32Array;
  half?: HalfValues;
  tensor?: HalfTensor;
}

/**
 * Reads while something else is at work, and uploads what is stored in 16 bits: for engines whose memory is not the host's, so that
 * the host has room for one more block. What goes wrong is thrown by the `read` that wanted it.
 */
export function readAhead(engine: Engine, config: ModelConfig, source: WeightSource): ReadAhead {
  let waiting = new Map<string, Promise<Early>>();
  const fetch = async (name: string, shape: readonly number[], isWanted: () => boolean): Promise<Early> => {
    const half = await source.readHalf?.(name, shape);
    if (!half) return { values: await source.read(name, shape) };
    if (!isWanted() || ROOM * half.values.byteLength > engine.roomBytes()) return { half };
    return { tensor: engine.keep(uploadHalf(engine, half, shape)) };
  };
  const drop = () => {
    const dropped = waiting;
    waiting = new Map();
    for (const early of dropped.values())
      void early.then(
        ({ tensor }) => tensor?.dispose(),
        () => {},
      );
  };
  /** What waits of a tensor, where `part` is what it waits as. */
  const take = async <P extends keyof Early>(name: string, part: P): Promise<Early[P]> => {
    const early = waiting.get(name);
    const found = (await early)?.[part];
    if (found !== undefined && waiting.get(name) === early) waiting.delete(name);
    return found;
  };
  return {
    has: (name) => source.has(name),
    shape: (name) => source.shape(name),
    read: async (name, shape) => (await take(name, "values")) ?? source.read(name, shape),
    readHalf: async (name, shape) => (await take(name, "half")) ?? source.readHalf?.(name, shape),
    uploaded: (name) => take(name, "tensor"),
    prefetch(block) {
      drop();
      if (block >= config.layers) return;
      const mine = waiting;
      let last: Promise<unknown> = Promise.resolve();
      const next = (name: string, shape: readonly number[]) => {
        const own = last.then(() => fetch(name, shape, () => waiting === mine));
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
    close: drop,
  };
}
