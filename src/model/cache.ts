import type { Engine } from "../engine/engine.js";
import { usageError } from "../errors.js";
import type { F32 } from "../tensor/index.js";
import type { ModelConfig } from "./config.js";

/** Keys (after the rotary embedding) and values of one layer, both [B, capacity, K, d]. */
export interface LayerCache {
  key: F32;
  value: F32;
}

/** Keys and values of all layers, so that a sequence can be continued token by token. */
export interface KeyValueCache {
  readonly batch: number;
  /** Positions that fit before the next growth. */
  capacity: number;
  /** Valid positions; setting it back forgets the later ones. */
  length: number;
  readonly layers: LayerCache[];
}

export interface CacheOptions {
  /** B, default 1. */
  batch?: number;
  /** Positions to make room for at once, default 256. */
  capacity?: number;
}

/** An empty cache, kept out of every scope until `disposeCache`. */
export function createCache(engine: Engine, config: ModelConfig, options: CacheOptions = {}): KeyValueCache {
  const { batch = 1, capacity = 256 } = options;
  for (const [name, value] of Object.entries({ batch, capacity })) {
    if (!Number.isInteger(value) || value < 1) throw usageError(`a cache needs a ${name} of at least 1, got ${value}`);
  }
  const shape = [batch, capacity, config.keyValueHeads, config.headSize];
  const cache: KeyValueCache = { batch, capacity, length: 0, layers: [] };
  try {
    for (let layer = 0; layer < config.layers; layer++) {
      const key = engine.keep(engine.create(shape));
      cache.layers.push({ key, value: key }); // so that a failing second allocation leaves nothing behind
      cache.layers[layer].value = engine.keep(engine.create(shape));
    }
  } catch (error) {
    disposeCache(cache);
    throw error;
  }
  return cache;
}

/** Makes room for `positions` in all; at least doubles when it has to grow. What is in the cache stays. */
export function reserveCache(engine: Engine, cache: KeyValueCache, positions: number): void {
  if (positions <= cache.capacity) return;
  const capacity = Math.max(positions, 2 * cache.capacity);
  for (const layer of cache.layers) {
    const [key, value] = engine.scope(() => {
      const grown = [layer.key, layer.value].map((old) => grow(engine, old, cache.length, capacity));
      return grown.map((tensor) => engine.keep(tensor));
    });
    layer.key.dispose();
    layer.value.dispose();
    layer.key = key;
    layer.value = value;
  }
  cache.capacity = capacity;
}

/** [B, S, K, d] -> [B, capacity, K, d] with the first `length` positions copied. */
function grow(engine: Engine, old: F32, length: number, capacity: number): F32 {
  const [batch, held, heads, size] = old.shape;
  const grown = engine.create([batch, capacity, heads, size]);
  for (let row = 0; row < batch; row++) {
    const from = engine.view(old, [length, heads, size], row * held * heads * size);
    engine.copyInto(grown, from, row * capacity * heads * size);
  }
  return grown;
}

/** Writes key and value [B, T, K, d] at positions start .. start + T - 1, which must be within the capacity. */
export function appendToCache(engine: Engine, cache: LayerCache, key: F32, value: F32, start: number): void {
  const [batch, length, heads, size] = key.shape;
  const capacity = cache.key.shape[1];
  if (cache.key.shape[0] !== batch || start + length > capacity) {
    throw usageError(
      `a cache of ${cache.key.shape[0]} x ${capacity} positions cannot take ${batch} x ${length} at position ${start}`,
    );
  }
  engine.scope(() => {
    for (let row = 0; row < batch; row++) {
      const rowOf = (tensor: F32) => engine.view(tensor, [length, heads, size], row * length * heads * size);
      const offset = (row * capacity + start) * heads * size;
      engine.copyInto(cache.key, rowOf(key), offset);
      engine.copyInto(cache.value, rowOf(value), offset);
    }
  });
}

export function disposeCache(cache: KeyValueCache): void {
  for (const layer of cache.layers) {
    layer.key.dispose();
    layer.value.dispose();
  }
  cache.layers.length = 0;
  cache.length = 0;
}
