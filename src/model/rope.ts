import type { Engine } from "../engine/engine.js";
import type { F32 } from "../tensor/index.js";
import type { ModelConfig } from "./config.js";
import type { RopeConfig } from "./rope-config.js";

/** Rotation of position p and pair i, both [positions, headSize / 2]. */
export interface RopeTables {
  cos: F32;
  sin: F32;
  positions: number;
}

/**
 * Angular frequency of each pair (i, i + size / 2): theta^(-2i / size), stretched by the scaling (linear: position
 * interpolation, arXiv 2306.15595; llama3: as released with LLaMA 3.1). f64, length size / 2.
 */
export function rotaryFrequencies(rope: RopeConfig, size: number): Float64Array {
  const { theta, scaling } = rope;
  return Float64Array.from({ length: size / 2 }, (_, pair) => {
    const frequency = theta ** ((-2 * pair) / size);
    switch (scaling.kind) {
      case "none":
        return frequency;
      case "linear":
        return frequency / scaling.factor;
      case "llama3": {
        const turns = (scaling.originalContext * frequency) / (2 * Math.PI); // within the context first trained on
        if (turns < scaling.lowFrequency) return frequency / scaling.factor;
        if (turns > scaling.highFrequency) return frequency;
        const kept = (turns - scaling.lowFrequency) / (scaling.highFrequency - scaling.lowFrequency);
        return frequency * (kept + (1 - kept) / scaling.factor);
      }
      default:
        return scaling satisfies never;
    }
  });
}

/** Tables for positions 0 .. positions - 1, computed in f64 and rounded once; in the current scope. */
export function createRopeTables(engine: Engine, config: ModelConfig, positions: number): RopeTables {
  const frequencies = rotaryFrequencies(config.rope, config.headSize);
  const pairs = frequencies.length;
  const cos = new Float32Array(positions * pairs);
  const sin = new Float32Array(positions * pairs);
  for (let position = 0; position < positions; position++) {
    for (let pair = 0; pair < pairs; pair++) {
      const angle = position * frequencies[pair];
      cos[position * pairs + pair] = Math.cos(angle);
      sin[position * pairs + pair] = Math.sin(angle);
    }
  }
  return {
    cos: engine.upload(cos, [positions, pairs], "f32"),
    sin: engine.upload(sin, [positions, pairs], "f32"),
    positions,
  };
}

/** Frees the tables (when they were kept out of every scope). */
export function disposeRopeTables(tables: RopeTables): void {
  tables.cos.dispose();
  tables.sin.dispose();
}
