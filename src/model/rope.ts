import type { Engine } from "../engine/engine.js";
import { bf16ToF32, type F32, f32ToBF16 } from "../tensor/index.js";
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

/**
 * Tables for positions 0 .. positions - 1, computed in f64 and rounded once; in the current scope. Without pairs where the
 * model's positions are not rotary.
 */
export function createRopeTables(engine: Engine, config: ModelConfig, positions: number): RopeTables {
  const frequencies = config.rope ? rotaryFrequencies(config.rope, config.headSize) : new Float64Array(0);
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

/**
 * Slopes of ALiBi (arXiv 2108.12409), [heads]: 2^(-8 h / heads) for h = 1 .. heads; where that is no power of two, those of
 * the next lower one and then every other of the next higher. Rounded to bf16, as transformers has them.
 */
export function alibiSlopes(heads: number): Float32Array {
  const lower = 2 ** Math.floor(Math.log2(heads));
  const slopes = Float32Array.from({ length: heads }, (_, head) =>
    head < lower ? 2 ** ((-8 * (head + 1)) / lower) : 2 ** ((-4 * (2 * (head - lower) + 1)) / lower),
  );
  return slopes.map((slope) => bf16ToF32(f32ToBF16(Float32Array.of(slope)))[0]);
}
