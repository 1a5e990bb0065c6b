import { sizeOf } from "../tensor/index.js";
import { blockLinears, blockVectors } from "./block.js";
import type { ModelConfig } from "./config.js";
import { embeddingName } from "./embedding.js";
import { findFamily } from "./families/index.js";
import { checkShape, missingTensor, type WeightSource } from "./weights.js";

/** A tensor that a model's configuration asks for, by full name. */
export interface TensorSpec {
  name: string;
  shape: number[];
}

/** The tensors of block `index`, in the order in which they are used. */
export function blockTensors(config: ModelConfig, index: number): TensorSpec[] {
  const linears = blockLinears(config, index).flatMap(({ name, rows, columns, bias }) => [
    { name: `${name}.weight`, shape: [rows, columns] },
    ...(bias ? [{ name: `${name}.bias`, shape: [rows] }] : []),
  ]);
  return [
    ...linears,
    ...blockVectors(config, index).map(({ name, size }) => ({ name: `${name}.weight`, shape: [size] })),
  ];
}

/** Weights of one block; the same for every block. */
export const blockParameters = (config: ModelConfig): number =>
  blockTensors(config, 0).reduce((sum, { shape }) => sum + sizeOf(shape), 0);

/** Weights of the whole model, a tied head counted once. */
export function parameterCount(config: ModelConfig): number {
  const tables = (config.tieEmbeddings ? 1 : 2) * config.vocabulary * config.hidden;
  return tables + config.layers * blockParameters(config) + config.hidden;
}

/** Throws "format" at the first tensor that the source lacks or holds in another shape. Reads no values. */
export function checkWeights(config: ModelConfig, source: WeightSource): void {
  const { names } = findFamily(config.family);
  const check = ({ name, shape }: TensorSpec) => {
    const got = source.shape(name);
    if (got === undefined) throw missingTensor(name, "the checkpoint");
    checkShape(name, got, shape);
  };
  const table = [config.vocabulary, config.hidden];
  check({ name: embeddingName(config, source), shape: table });
  for (let index = 0; index < config.layers; index++) blockTensors(config, index).forEach(check);
  check({ name: `${names.finalNorm}.weight`, shape: [config.hidden] });
  if (!config.tieEmbeddings) check({ name: `${names.head}.weight`, shape: table });
}
