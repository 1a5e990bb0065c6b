import { formatError, unsupportedError } from "../errors.js";
import type { Folder } from "../files/folder.js";
import { isObject, type JsonObject, readJsonObject } from "../files/json.js";
import { openCheckpoint } from "../files/sharded.js";
import type { TensorReader } from "../files/tensors.js";
import type { ActivationScheme } from "../model/activation-scheme.js";
import { type ModelConfig, parseModelConfig } from "../model/config.js";
import { checkFinite, checkShape, findKey, plainWeights, type WeightSource } from "../model/weights.js";
import { CHECKPOINT_FORMATS, type CheckpointFormat } from "../quant/bits.js";
import { dequantize } from "../quant/dequantize.js";
import type { QuantizedRecord } from "../quant/record.js";
import { type FoundLayers, findLayers, type OpenLayer, type QuantizedLayer } from "./find-layers.js";
import { gptqFormat, isGptqConfig } from "./gptq-config.js";

export type { QuantizedLayer } from "./find-layers.js";

export const CONFIG_FILE = "config.json";
/** What Bitwright writes beside a quantized checkpoint about how it was made. */
export const REPORT_FILE = "bitwright.json";

const CONFIG_BYTES = 32 * 2 ** 20;

/** A checkpoint on disk, plain or quantized: weights are read, and decoded, when they are asked for. */
export interface CheckpointModel {
  readonly folder: Folder;
  readonly format: "plain" | CheckpointFormat;
  /** The whole of config.json. */
  readonly config: JsonObject;
  readonly model: ModelConfig;
  /** How activations are quantized when it runs; undefined where they are left alone. */
  readonly activations?: ActivationScheme;
  readonly tensors: TensorReader;
  readonly weights: WeightSource;
  /** In the order of the model; empty for a plain checkpoint. */
  readonly layers: readonly QuantizedLayer[];
  /** The record of a quantized linear, by canonical name. Throws "format" for other names. */
  record(name: string): Promise<QuantizedRecord>;
  /** What `bitwright.json` says, when there is one. */
  report(): Promise<JsonObject | undefined>;
  close(): Promise<void>;
}

/** Opens the folder of a checkpoint. Reads config.json and headers, no weights. An unknown format or family is refused. */
export async function openCheckpointModel(folder: Folder): Promise<CheckpointModel> {
  const files = await folder.list();
  if (!files.includes(CONFIG_FILE)) {
    throw formatError(`${folder.name} has no ${CONFIG_FILE}`, "give the folder of a Hugging Face checkpoint");
  }
  const where = `${folder.name}/${CONFIG_FILE}`;
  const config = await withOldQuantization(folder, files, await readJsonObject(folder, CONFIG_FILE, CONFIG_BYTES));
  const model = parseModelConfig(config, where);
  const format = detectFormat(config, where);
  const tensors = await openCheckpoint(folder);
  try {
    const quantization = isObject(config.quantization_config) ? config.quantization_config : {};
    const found = findLayers(format, { config, quantization, model, tensors, where });
    return describe(folder, format, config, model, tensors, found, files);
  } catch (error) {
    await tensors.close();
    throw error;
  }
}

/** What AutoGPTQ wrote beside a config.json that says nothing of it. */
export const OLD_FILE = "quantize_config.json";

async function withOldQuantization(folder: Folder, files: readonly string[], config: JsonObject): Promise<JsonObject> {
  if ((config.quantization_config ?? undefined) !== undefined || !files.includes(OLD_FILE)) return config;
  const quantization = await readJsonObject(folder, OLD_FILE, CONFIG_BYTES);
  return isGptqConfig(quantization)
    ? { ...config, quantization_config: { ...quantization, quant_method: "gptq" } }
    : config;
}

/** The format that a config.json declares. Throws "unsupported" for one we do not read. */
export function detectFormat(config: JsonObject, where: string): "plain" | CheckpointFormat {
  const quantization = config.quantization_config ?? undefined;
  // checkpoints of the vptq package before 0.0.4
  if (quantization === undefined) return isObject(config.quant_config) ? "vptq" : "plain";
  const method = isObject(quantization) ? (quantization.quant_method ?? quantization.method) : undefined;
  const names = CHECKPOINT_FORMATS.join(", ");
  if (typeof method !== "string" || !isObject(quantization)) {
    throw formatError(`${where}: quantization_config has no quant_method`, `known are ${names}`);
  }
  if (method.toLowerCase() === "gptq") return gptqFormat(quantization, where);
  const known = CHECKPOINT_FORMATS.find((name) => name === method.toLowerCase());
  if (known) return known;
  throw unsupportedError(
    `${where}: the weights are quantized as ${JSON.stringify(method.slice(0, 60))}, which is not supported`,
    `plain checkpoints and these quantized ones can be read: ${names}`,
  );
}

function describe(
  folder: Folder,
  format: "plain" | CheckpointFormat,
  config: JsonObject,
  model: ModelConfig,
  tensors: TensorReader,
  { layers, activations }: FoundLayers,
  files: readonly string[],
): CheckpointModel {
  const byKey = new Map(layers.map((layer) => [layer.key, layer]));
  const layerOf = (name: string): OpenLayer | undefined => {
    const key = findKey(name, (candidate) => byKey.has(candidate));
    return key === undefined ? undefined : byKey.get(key);
  };
  return {
    folder,
    format,
    config,
    model,
    activations,
    tensors,
    layers: inModelOrder(layers),
    weights: quantizedWeights(plainWeights(tensors), layerOf),
    async record(name) {
      const layer = layerOf(name);
      if (!layer) throw formatError(`${folder.name} has no quantized layer ${name}`);
      return layer.read();
    },
    report: async () => (files.includes(REPORT_FILE) ? readJsonObject(folder, REPORT_FILE, CONFIG_BYTES) : undefined),
    close: () => tensors.close(),
  };
}

/** By block number, then as in the file. */
function inModelOrder(layers: readonly OpenLayer[]): QuantizedLayer[] {
  const block = ({ name }: QuantizedLayer) => Number(/\.(\d+)\./.exec(name)?.[1] ?? Number.MAX_SAFE_INTEGER);
  return [...layers].sort((a, b) => block(a) - block(b));
}

const WEIGHT = ".weight";

/** Weights of a quantized checkpoint: quantized linears are decoded when they are read, the rest is plain. */
function quantizedWeights(plain: WeightSource, layerOf: (name: string) => OpenLayer | undefined): WeightSource {
  const find = (name: string) => (name.endsWith(WEIGHT) ? layerOf(name.slice(0, -WEIGHT.length)) : undefined);
  return {
    has: (name) => find(name) !== undefined || plain.has(name),
    shape(name) {
      const layer = find(name);
      return layer ? [layer.shape.rows, layer.shape.columns] : plain.shape(name);
    },
    async read(name, shape) {
      const layer = find(name);
      if (!layer) return plain.read(name, shape);
      checkShape(name, [layer.shape.rows, layer.shape.columns], shape);
      const values = dequantize(await layer.read());
      checkFinite(name, values, shape);
      return values;
    },
    readHalf: async (name, shape) => (find(name) ? undefined : plain.readHalf?.(name, shape)),
  };
}
