import { z } from "zod";
import { formatError, unsupportedError } from "../errors.js";
import type { Folder } from "../files/folder.js";
import { isObject, type JsonObject, readJsonObject } from "../files/json.js";
import { openCheckpoint } from "../files/sharded.js";
import type { TensorReader } from "../files/tensors.js";
import type { ActivationScheme } from "../model/activation-scheme.js";
import { blockLinears } from "../model/block.js";
import { type ModelConfig, parseModelConfig } from "../model/config.js";
import { canonicalName, checkFinite, checkShape, findKey, plainWeights, type WeightSource } from "../model/weights.js";
import type { RecordLayout, RecordShape } from "../quant/bits.js";
import { dequantize } from "../quant/dequantize.js";
import type { QuantizedRecord } from "../quant/record.js";
import { bitwrightLayout, bitwrightSetting } from "./bitwright.js";
import { type Layout, layerTensors } from "./layout.js";
import { vptqLayout } from "./vptq.js";
import { vptqSettings } from "./vptq-config.js";

export const CONFIG_FILE = "config.json";
/** What Bitwright writes beside a quantized checkpoint about how it was made. */
export const REPORT_FILE = "bitwright.json";

const CONFIG_BYTES = 32 * 2 ** 20;

/** A quantized linear, as far as it is known without reading its data. */
export interface QuantizedLayer {
  /** Canonical name, "model.layers.0.self_attn.q_proj". */
  name: string;
  /** The name in the file, perhaps without the prefix. */
  key: string;
  shape: RecordShape;
  /** Every bit of its tensors on disk. */
  bits: number;
}

/** A checkpoint on disk, plain or quantized: weights are read, and decoded, when they are asked for. */
export interface CheckpointModel {
  readonly folder: Folder;
  readonly format: "plain" | RecordLayout;
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
  const config = await readJsonObject(folder, CONFIG_FILE, CONFIG_BYTES);
  const model = parseModelConfig(config, where);
  const format = detectFormat(config, where);
  const tensors = await openCheckpoint(folder);
  try {
    const layers = findLayers(format, config, model, tensors, where);
    return describe(folder, format, config, model, tensors, layers, files);
  } catch (error) {
    await tensors.close();
    throw error;
  }
}

const KNOWN: readonly RecordLayout[] = ["vptq", "bitwright"];

/** The format that a config.json declares. Throws "unsupported" for one we do not read. */
export function detectFormat(config: JsonObject, where: string): "plain" | RecordLayout {
  const quantization = config.quantization_config ?? undefined;
  // checkpoints of the vptq package before 0.0.4
  if (quantization === undefined) return isObject(config.quant_config) ? "vptq" : "plain";
  const method = isObject(quantization) ? (quantization.quant_method ?? quantization.method) : undefined;
  if (typeof method !== "string") {
    throw formatError(`${where}: quantization_config has no quant_method`, `known are ${KNOWN.join(", ")}`);
  }
  const known = KNOWN.find((name) => name === method.toLowerCase());
  if (known) return known;
  throw unsupportedError(
    `${where}: the weights are quantized as ${JSON.stringify(method.slice(0, 60))}, which is not supported`,
    `plain checkpoints and these quantized ones can be read: ${KNOWN.join(", ")}`,
  );
}

/** A layer with the means to read it. */
interface OpenLayer extends QuantizedLayer {
  read(): Promise<QuantizedRecord>;
}

function openLayer<Setting>(
  layout: Layout<Setting>,
  model: ModelConfig,
  tensors: TensorReader,
  key: string,
  setting: Setting,
  bits: number,
): OpenLayer {
  const fields = layerTensors(tensors, key);
  return {
    name: canonicalName(model, key),
    key,
    shape: layout.shape(fields, setting),
    bits,
    read: () => layout.read(fields, setting),
  };
}

function findLayers(
  format: "plain" | RecordLayout,
  config: JsonObject,
  model: ModelConfig,
  tensors: TensorReader,
  where: string,
): OpenLayer[] {
  switch (format) {
    case "plain":
      return [];
    case "vptq":
      return findVptq(config, model, tensors, where);
    case "bitwright":
      return findBitwright(config, model, tensors, where);
    default:
      return format satisfies never;
  }
}

function findVptq(config: JsonObject, model: ModelConfig, tensors: TensorReader, where: string): OpenLayer[] {
  const features = new Map<string, [number, number]>();
  for (let index = 0; index < model.layers; index++) {
    for (const { name, rows, columns } of blockLinears(model, index)) features.set(name, [rows, columns]);
  }
  const featuresOf = (key: string) => features.get(canonicalName(model, key));
  const { setting, named } = vptqSettings(config, where, featuresOf);
  const keys = tensors.names
    .filter((name) => name.endsWith(".indices"))
    .map((name) => name.slice(0, -".indices".length));
  const layers: OpenLayer[] = [];
  const bits = bitsByLayer(tensors, keys);
  for (const key of keys) {
    const found = setting(key);
    if (!found) {
      throw formatError(`${where}: layer ${key} is quantized, but quantization_config says nothing of it`);
    }
    layers.push(openLayer(vptqLayout, model, tensors, key, found, bits.get(key) ?? 0));
  }
  const missing = named.find((name) => findKey(name, (key) => bits.has(key)) === undefined);
  if (missing !== undefined || layers.length === 0) {
    throw formatError(
      `${where} quantizes ${missing ?? "some layers"}, but ${tensors.name} has no ${missing ?? "tensor called"} .indices`,
      "config.json and the weights belong to different checkpoints",
    );
  }
  return layers;
}

function findBitwright(config: JsonObject, model: ModelConfig, tensors: TensorReader, where: string): OpenLayer[] {
  const quantization = isObject(config.quantization_config) ? config.quantization_config : {};
  if (quantization.version !== 1) {
    throw unsupportedError(
      `${where}: version ${JSON.stringify(quantization.version)} of the bitwright layout; version 1 is known`,
      "use a newer Bitwright",
    );
  }
  if (!isObject(quantization.layers)) throw formatError(`${where}: quantization_config has no layers`);
  const settings = Object.entries(quantization.layers);
  const bits = bitsByLayer(tensors, Object.keys(quantization.layers));
  return settings.map(([key, value]) =>
    openLayer(bitwrightLayout, model, tensors, key, bitwrightSetting(value, key, where), bits.get(key) ?? 0),
  );
}

const activationBits = z.number().int().min(2).max(8).optional();
const activationSchema = z.object({
  input: activationBits,
  query: activationBits,
  key: activationBits,
  value: activationBits,
  symmetric: z.boolean().optional(),
});

function bitwrightActivations(config: JsonObject, where: string): ActivationScheme | undefined {
  const quantization = isObject(config.quantization_config) ? config.quantization_config : {};
  if (quantization.activations === undefined) return undefined;
  const parsed = activationSchema.safeParse(quantization.activations);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.slice(0, 4).map((issue) => `${issue.path.join(".")}: ${issue.message}`);
  throw formatError(`${where}: quantization_config.activations is not valid: ${problems.join("; ")}`);
}

/** Bits of each layer's tensors: those whose name begins with the layer's. */
function bitsByLayer(tensors: TensorReader, keys: readonly string[]): Map<string, number> {
  const bits = new Map(keys.map((key) => [key, 0]));
  for (const name of tensors.names) {
    for (let dot = name.lastIndexOf("."); dot > 0; dot = name.lastIndexOf(".", dot - 1)) {
      const key = name.slice(0, dot);
      const sum = bits.get(key);
      if (sum === undefined) continue;
      bits.set(key, sum + 8 * (tensors.info(name)?.bytes ?? 0));
      break;
    }
  }
  return bits;
}

function describe(
  folder: Folder,
  format: "plain" | RecordLayout,
  config: JsonObject,
  model: ModelConfig,
  tensors: TensorReader,
  layers: OpenLayer[],
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
    activations: format === "bitwright" ? bitwrightActivations(config, `${folder.name}/${CONFIG_FILE}`) : undefined,
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
  };
}
