import { usageError } from "../errors.js";
import type { JsonObject } from "../files/json.js";
import type { ActivationScheme } from "../model/activation-scheme.js";
import type { LinearSpec } from "../model/block.js";
import type { ModelConfig } from "../model/config.js";
import type { CheckpointFormat, RecordLayout, RecordShape } from "../quant/bits.js";
import type { QuantizedRecord } from "../quant/record.js";
import { bitwrightLayout } from "./bitwright.js";
import { type CompressedSetting, intQuantizedLayout, packQuantizedLayout } from "./compressed-tensors.js";
import { type BlockFacts, compressedActivationsRefusal, compressedConfig } from "./compressed-tensors-config.js";
import { type GptqSetting, gptqLayouts } from "./gptq.js";
import { gptqConfig } from "./gptq-config.js";
import type { LayerTensor, Refusal } from "./layout.js";
import { vptqLayout } from "./vptq.js";

export type { BlockFacts } from "./compressed-tensors-config.js";

// What each format of a checkpoint can hold, how its records are stored, and what its config.json says.

interface Writer {
  accepts(shape: RecordShape): true | Refusal;
  write(record: QuantizedRecord): { tensors: LayerTensor[]; setting: { [key: string]: unknown } };
}

const WRITERS: Readonly<Record<RecordLayout, Writer>> = {
  bitwright: bitwrightLayout,
  vptq: vptqLayout,
  gptq: gptqLayouts.gptq,
  gptq_v2: gptqLayouts.gptq_v2,
  "compressed-tensors": packQuantizedLayout,
  "int-quantized": intQuantizedLayout,
};

/**
 * How a record is stored in a format. Compressed-tensors keep a byte a code for 8-bit codes beside 8-bit inputs, which is what int8
 * kernels read, and for asymmetric codes beside quantized inputs: their packed zeros load only where the model is decoded at
 * once, and then its inputs stay as they are.
 */
export function recordLayout(
  format: CheckpointFormat,
  shape: RecordShape,
  activations: ActivationScheme | undefined,
): RecordLayout {
  if (format !== "compressed-tensors" || shape.kind !== "affine" || activations === undefined) return format;
  return !shape.symmetric || (shape.bits === 8 && activations.input === 8) ? "int-quantized" : format;
}

/** The writer of records stored so. */
export const writerOf = (layout: RecordLayout): Writer => WRITERS[layout];

const TITLES: Readonly<Record<CheckpointFormat, string>> = {
  vptq: "the published VPTQ layout",
  gptq: "the GPTQ format, version 1,",
  gptq_v2: "the GPTQ format, version 2,",
  "compressed-tensors": "compressed-tensors",
  bitwright: "the bitwright layout",
};

/** Why the format cannot hold the linear, or undefined. */
export function linearRefusal(
  format: CheckpointFormat,
  name: string,
  shape: RecordShape,
  activations: ActivationScheme | undefined,
): Refusal | undefined {
  const accepted = writerOf(recordLayout(format, shape, activations)).accepts(shape);
  return accepted === true ? undefined : { ...accepted, reason: `${name}: ${accepted.reason}` };
}

/** Why the format cannot hold how activations are quantized, or undefined. */
export function activationsRefusal(
  format: CheckpointFormat,
  activations: ActivationScheme | undefined,
  facts: BlockFacts,
): Refusal | undefined {
  if (activations === undefined || format === "bitwright") return undefined;
  if (format === "compressed-tensors") return compressedActivationsRefusal(activations, facts);
  return {
    reason: "the quantization of activations (--activations, --kv): it is for weights only",
    remedy: "write compressed-tensors or bitwright, or leave the activations alone",
  };
}

export const blockFacts = (linears: readonly LinearSpec[], quantized: (name: string) => boolean): BlockFacts => ({
  keepsLinears: linears.some(({ name }) => !quantized(name)),
  fusedAttention: linears.some(({ slot }) => slot === "queryKeyValue"),
});

/** What config.json must say besides, so that other programs run what the format says of activations. */
export function configAdditions(
  format: CheckpointFormat,
  activations: ActivationScheme | undefined,
  { model, config }: { model: ModelConfig; config: JsonObject },
): JsonObject {
  // compressed-tensors sizes its cache by it, and families without grouped heads do not say it
  const counts =
    format === "compressed-tensors" && activations?.key !== undefined && !("num_key_value_heads" in config);
  return counts ? { num_key_value_heads: model.keyValueHeads } : {};
}

/** The error of a format that was asked for and cannot hold the model. */
export const formatRefused = (format: CheckpointFormat, { reason, remedy }: Refusal) =>
  usageError(`${TITLES[format]} cannot hold ${reason}`, remedy);

/** A linear as it was written. */
export interface WrittenLayer {
  /** Canonical name, and the name in the file. */
  name: string;
  key: string;
  setting: { [key: string]: unknown };
}

export interface QuantizationContext {
  model: ModelConfig;
  activations?: ActivationScheme;
  /** Linears of the blocks that stay as they are. */
  kept: readonly string[];
  /** All modules with a matrix that stay as they are, and the head. */
  others: readonly string[];
}

/** The quantization_config of a checkpoint. */
export function quantizationConfig(
  format: CheckpointFormat,
  layers: readonly WrittenLayer[],
  { model, activations, kept, others }: QuantizationContext,
): JsonObject {
  switch (format) {
    case "vptq":
      return { quant_method: "vptq", config_for_layers: settingsBy(layers, "name") };
    case "bitwright":
      return {
        quant_method: "bitwright",
        version: 1,
        ...(activations ? { activations } : {}),
        layers: settingsBy(layers, "key"),
      };
    case "gptq":
    case "gptq_v2": {
      // the settings are what the layout's own `write` gave
      const written = layers.map(({ name, setting }) => ({ name, setting: setting as unknown as GptqSetting }));
      return gptqConfig(format, written, kept);
    }
    case "compressed-tensors": {
      const written = layers.map(({ name, setting }) => ({
        name,
        setting: setting as unknown as CompressedSetting & { packed: boolean },
      }));
      return compressedConfig(written, others, activations, model);
    }
    default:
      return format satisfies never;
  }
}

const settingsBy = (layers: readonly WrittenLayer[], by: "name" | "key"): JsonObject =>
  Object.fromEntries(layers.map((layer) => [layer[by], layer.setting]));
