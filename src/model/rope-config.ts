import { z } from "zod";
import { formatError, unsupportedError } from "../errors.js";

/** How the rotary frequencies are stretched beyond the trained context. */
export type RopeScaling =
  | { kind: "none" }
  /** Positions divided by `factor`. */
  | { kind: "linear"; factor: number }
  /** LLaMA 3.1: long wavelengths divided by `factor`, short ones kept, a ramp between. */
  | { kind: "llama3"; factor: number; lowFrequency: number; highFrequency: number; originalContext: number };

export interface RopeConfig {
  /** Base of the wavelengths. */
  theta: number;
  scaling: RopeScaling;
}

const positive = z.number().positive().max(1e12);

/** The words of `rope_scaling` (transformers 4) and `rope_parameters` (transformers 5) that we read. */
const parametersSchema = z.object({
  rope_type: z.string().nullish(),
  type: z.string().nullish(),
  rope_theta: positive.nullish(),
  factor: positive.nullish(),
  low_freq_factor: positive.nullish(),
  high_freq_factor: positive.nullish(),
  original_max_position_embeddings: positive.nullish(),
  partial_rotary_factor: z.number().nullish(),
  full_attention: z.unknown().optional(),
  sliding_attention: z.unknown().optional(),
});

/** The fields of config.json that speak of rotary embeddings, to be spread into its schema. */
export const ropeFields = {
  rope_theta: positive.nullish(),
  rope_scaling: parametersSchema.nullish(),
  rope_parameters: parametersSchema.nullish(),
  partial_rotary_factor: z.number().nullish(),
  original_max_position_embeddings: positive.nullish(),
};
type RopeFields = z.infer<z.ZodObject<typeof ropeFields>>;

const DEFAULT_THETA = 10000;
const KNOWN = ["default", "linear", "llama3"];

/**
 * Reads what either generation of transformers writes; `rope_scaling` wins over `rope_parameters`, a theta inside over one
 * outside, as transformers 5 does. Throws "unsupported" for other scalings, "format" for missing parameters.
 */
export function parseRope(raw: RopeFields, contextLength: number, where: string): RopeConfig {
  const field = raw.rope_scaling && Object.keys(raw.rope_scaling).length > 0 ? "rope_scaling" : "rope_parameters";
  const parameters: z.infer<typeof parametersSchema> = raw[field] ?? {};
  if (parameters.full_attention !== undefined || parameters.sliding_attention !== undefined) {
    throw unsupportedError(
      `${where}: ${field} differs from layer type to layer type, which these families do not have`,
    );
  }
  const partial = parameters.partial_rotary_factor ?? raw.partial_rotary_factor ?? 1;
  if (partial !== 1) {
    throw unsupportedError(`${where}: partial_rotary_factor ${partial}: these families rotate whole heads (1)`);
  }
  const theta = parameters.rope_theta ?? raw.rope_theta ?? DEFAULT_THETA;
  const kind = parameters.rope_type ?? parameters.type ?? "default";
  const need = (name: "factor" | "low_freq_factor" | "high_freq_factor"): number => {
    const value = parameters[name];
    if (value === undefined || value === null) throw formatError(`${where}: ${field} of type ${kind} lacks ${name}`);
    return value;
  };
  switch (kind) {
    case "default":
      return { theta, scaling: { kind: "none" } };
    case "linear":
      return { theta, scaling: { kind: "linear", factor: need("factor") } };
    case "llama3": {
      const lowFrequency = need("low_freq_factor");
      const highFrequency = need("high_freq_factor");
      if (highFrequency <= lowFrequency) {
        throw formatError(
          `${where}: ${field}: high_freq_factor (${highFrequency}) must exceed low_freq_factor (${lowFrequency})`,
        );
      }
      const originalContext =
        raw.original_max_position_embeddings ?? parameters.original_max_position_embeddings ?? contextLength;
      return {
        theta,
        scaling: { kind: "llama3", factor: need("factor"), lowFrequency, highFrequency, originalContext },
      };
    }
    default:
      throw unsupportedError(
        `${where}: rotary scaling of type ${JSON.stringify(kind.slice(0, 60))} is not supported`,
        `supported: ${KNOWN.join(", ")}`,
      );
  }
}
