import type { Engine } from "../src/engine/engine.js";
import { type BlockWeights, blockLinears, blockVectors } from "../src/model/block.js";
import type { ModelConfig } from "../src/model/config.js";
import type { LinearStatistics } from "../src/quant/method.js";
import { createRandom, type Random } from "../src/random.js";
import { type F32, sizeOf } from "../src/tensor/index.js";

export interface SyntheticLinear {
  /** [O, I]. */
  weight: F32;
  /** Of inputs whose columns differ in size and depend on each other. */
  statistics: LinearStatistics;
}

/** A linear as methods meet it, from a seed. */
export function syntheticLinear(engine: Engine, rows: number, columns: number, seed = 0): SyntheticLinear {
  return engine.scope(() => {
    const random = createRandom(seed, "synthetic");
    const normal = (shape: [number, number], spread: (row: number, column: number) => number) =>
      engine.upload(
        Float32Array.from(
          { length: shape[0] * shape[1] },
          (_, at) => random.normal() * spread(Math.floor(at / shape[1]), at % shape[1]),
        ),
        shape,
        "f32",
      );
    const tokens = 4 * columns;
    const mixing = normal([columns, columns], (i, j) => (i === j ? 2 : 0.3));
    const sizes = Array.from({ length: columns }, () => Math.exp(0.5 * random.normal()));
    const inputs = engine.matmul(
      normal([tokens, columns], () => 1),
      mixing,
    );
    const scaled = engine.multiply(inputs, engine.upload(Float32Array.from(sizes), [columns], "f32"));
    const sums = engine.create([columns, columns]);
    engine.gram(sums, scaled);
    const weight = normal([rows, columns], (row) => 0.05 * (1 + 0.5 * Math.sin(row)));
    return { weight, statistics: { hessian: engine.scale(sums, 1 / tokens), tokens } };
  });
}

/** A matrix [R, C] with its rows and columns taken in the given orders. */
export function permuted(engine: Engine, matrix: F32, rows: ArrayLike<number>, columns: ArrayLike<number>): F32 {
  return engine.scope(() => {
    const order = (indices: ArrayLike<number>) => engine.upload(Int32Array.from(indices), [indices.length], "i32");
    const byRow = engine.gatherRows(matrix, order(rows));
    return engine.transpose(engine.gatherRows(engine.transpose(byRow), order(columns)));
  });
}

/** Weights of block 0 of a model, of a usual spread. */
export function syntheticBlock(engine: Engine, config: ModelConfig, random: Random): BlockWeights {
  const weights: BlockWeights = { linears: {}, vectors: {} };
  for (const { slot, rows, columns, bias } of blockLinears(config, 0)) {
    const weight = normalTensor(engine, random, [rows, columns], 0.3);
    weights.linears[slot] = bias ? { weight, bias: normalTensor(engine, random, [rows], 0.2) } : { weight };
  }
  for (const { slot, size } of blockVectors(config, 0)) {
    weights.vectors[slot] = slot.endsWith("Bias")
      ? normalTensor(engine, random, [size], 0.2)
      : normalTensor(engine, random, [size], 0.1, 1);
  }
  return weights;
}

export function normalTensor(engine: Engine, random: Random, shape: number[], spread: number, mean = 0): F32 {
  const values = Float32Array.from({ length: sizeOf(shape) }, () => mean + spread * random.normal());
  return engine.upload(values, shape, "f32");
}
