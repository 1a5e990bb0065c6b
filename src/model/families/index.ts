import { unsupportedError } from "../../errors.js";
import type { Family } from "../family.js";
import { llama } from "./llama.js";
import { mistral } from "./mistral.js";
import { qwen2 } from "./qwen2.js";
import { qwen3 } from "./qwen3.js";

/** Every family that can be read, in the order of the support table. */
export const FAMILIES: readonly Family[] = [llama, mistral, qwen2, qwen3];

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
