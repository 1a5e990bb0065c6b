import { sizeOf } from "../tensor/index.js";
import { blockLinears, blockVectors } from "./block.js";
import type { ModelConfig } from "./config.js";
import { embeddingName, outerTensors } from "./embedding.js";
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
  const vectors = blockVectors(config, index).filter(({ absent }) => absent === undefined);
  return [...linears, ...vectors.map(({ tensor, size }) => ({ name: tensor, shape: [size] }))];
}

/** Weights of one block; the same for every block. */
export const blockParameters = (config: ModelConfig): number => elements(blockTensors(config, 0));

/** Weights of the embedding and the head, a tied head counted once. */
export const tableParameters = (config: ModelConfig): number =>
  (config.tieEmbeddings ? 1 : 2) * config.vocabulary * config.embeddingWidth;

/** Weights of the whole model, a tied head counted once. */
export const parameterCount = (config: ModelConfig): number =>
  elements(Object.values(outerTensors(config))) + config.layers * blockParameters(config);

const elements = (specs: readonly TensorSpec[]): number => specs.reduce((sum, { shape }) => sum + sizeOf(shape), 0);

/** Throws "format" at the first tensor that the source lacks or holds in another shape. Reads no values. */
export function checkWeights(config: ModelConfig, source: WeightSource): void {
  const check = ({ name, shape }: TensorSpec) => {
    const got = source.shape(name);
    if (got === undefined) throw missingTensor(name, "the checkpoint");
    checkShape(name, got, shape);
  };
  const { embedding, ...others } = outerTensors(config);
  if (embedding) check({ ...embedding, name: embeddingName(config, source) });
  for (let index = 0; index < config.layers; index++) blockTensors(config, index).forEach(check);
  Object.values(others).forEach(check);
}
