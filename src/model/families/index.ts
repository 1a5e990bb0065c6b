import { unsupportedError } from "../../errors.js";
import type { ModelConfig } from "../config.js";
import type { BlockSpec, Family } from "../family.js";
import { falcon } from "./falcon.js";
import { llama } from "./llama.js";
import { mistral } from "./mistral.js";
import { opt } from "./opt.js";
import { qwen2 } from "./qwen2.js";
import { qwen3 } from "./qwen3.js";

/** Every family that can be read, in the order of the support table. */
export const FAMILIES: readonly Family[] = [llama, mistral, qwen2, qwen3, opt, falcon];

/** The family of a `model_type`. Throws "unsupported" with the known ones. */
export function findFamily(modelType: string): Family {
  const family = FAMILIES.find((candidate) => candidate.modelType === modelType);
  if (family) return family;
  const known = FAMILIES.map((candidate) => candidate.modelType).join(", ");
  throw unsupportedError(
    `the model family ${JSON.stringify(modelType.slice(0, 60))} is not known`,
    `known families (model_type in config.json): ${known}`,
  );
}

/** How the blocks of a model are put together. */
export function blockSpec(config: ModelConfig): BlockSpec {
  const spec = findFamily(config.family).blocks[config.layout];
  if (!spec) throw new Error(`the family ${config.family} has no blocks of the layout ${config.layout}`);
  return spec;
}

/** Slots of the linears of each stage of a block; the same for every block. */
export const stageSlots = (config: ModelConfig): string[][] => blockSpec(config).stages.map(({ slots }) => [...slots]);
