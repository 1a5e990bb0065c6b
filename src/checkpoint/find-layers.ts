import { z } from "zod";
import { formatError, unsupportedError } from "../errors.js";
import { isObject, type JsonObject } from "../files/json.js";
import type { TensorReader } from "../files/tensors.js";
import type { ActivationScheme } from "../model/activation-scheme.js";
import { blockLinears, type LinearSpec } from "../model/block.js";
import type { ModelConfig } from "../model/config.js";
import { canonicalName, findKey } from "../model/weights.js";
import type { CheckpointFormat, RecordShape } from "../quant/bits.js";
import type { QuantizedRecord } from "../quant/record.js";
import { bitwrightLayout, bitwrightSetting } from "./bitwright.js";
import { intQuantizedLayout, packQuantizedLayout } from "./compressed-tensors.js";
import { compressedSettings } from "./compressed-tensors-config.js";
import { gptqLayouts } from "./gptq.js";
import { gptqSettings } from "./gptq-config.js";
import { type Layout, layerTensors } from "./layout.js";
import { vptqLayout } from "./vptq.js";
import { vptqSettings } from "./vptq-config.js";

// Which linears of a checkpoint are quantized, and how: what config.json says of them, checked against the tensors' headers.

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

/** A layer with the means to read it. */
export interface OpenLayer extends QuantizedLayer {
  read(): Promise<QuantizedRecord>;
}

export interface FoundLayers {
  layers: OpenLayer[];
  activations?: ActivationScheme;
}

interface Place {
  /** The whole of config.json. */
  config: JsonObject;
  /** Its quantization_config. */
  quantization: JsonObject;
  model: ModelConfig;
  tensors: TensorReader;
  /** "folder/config.json", for messages. */
  where: string;
}

/** The quantized layers of a checkpoint. Reads headers only. Throws "format" or "unsupported". */
export function findLayers(format: "plain" | CheckpointFormat, place: Place): FoundLayers {
  switch (format) {
    case "plain":
      return { layers: [] };
    case "vptq":
      return { layers: findVptq(place) };
    case "bitwright":
      return { layers: findBitwright(place), activations: bitwrightActivations(place) };
    case "gptq":
    case "gptq_v2":
      return { layers: findGptq(format, place) };
    case "compressed-tensors":
      return findCompressed(place);
    default:
      return format satisfies never;
  }
}

function openLayer<Setting>(
  layout: Layout<Setting>,
  { model, tensors }: Place,
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

/** Every linear of the blocks. */
export const allLinears = (model: ModelConfig): LinearSpec[] =>
  Array.from({ length: model.layers }, (_, index) => blockLinears(model, index)).flat();

/** Names of the layers that have a tensor of this name. */
const keysWith = ({ tensors }: Place, field: string): string[] =>
  tensors.names.filter((name) => name.endsWith(`.${field}`)).map((name) => name.slice(0, -field.length - 1));

function findVptq(place: Place): OpenLayer[] {
  const { config, model, tensors, where } = place;
  const features = new Map(allLinears(model).map(({ name, rows, columns }) => [name, [rows, columns] as const]));
  const featuresOf = (key: string) => features.get(canonicalName(model, key));
  const { setting, named } = vptqSettings(config, where, featuresOf);
  const keys = keysWith(place, "indices");
  const layers: OpenLayer[] = [];
  const bits = bitsByLayer(tensors, keys);
  for (const key of keys) {
    const found = setting(key);
    if (!found) {
      throw formatError(`${where}: layer ${key} is quantized, but quantization_config says nothing of it`);
    }
    layers.push(openLayer(vptqLayout, place, key, found, bits.get(key) ?? 0));
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

function findBitwright(place: Place): OpenLayer[] {
  const { quantization, tensors, where } = place;
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
    openLayer(bitwrightLayout, place, key, bitwrightSetting(value, key, where), bits.get(key) ?? 0),
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

function bitwrightActivations({ quantization, where }: Place): ActivationScheme | undefined {
  if (quantization.activations === undefined) return undefined;
  const parsed = activationSchema.safeParse(quantization.activations);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.slice(0, 4).map((issue) => `${issue.path.join(".")}: ${issue.message}`);
  throw formatError(`${where}: quantization_config.activations is not valid: ${problems.join("; ")}`);
}

function findGptq(format: "gptq" | "gptq_v2", place: Place): OpenLayer[] {
  const { quantization, model, tensors, where } = place;
  const { setting } = gptqSettings(quantization, where);
  const keys = keysWith(place, "qweight");
  refuseStrangers(place, keys);
  const bits = bitsByLayer(tensors, keys);
  return quantizedLinears(place, (key) => bits.has(key)).map(({ spec: { name, rows, columns }, key }) => {
    const found = setting(name, rows, columns);
    if (!found) throw formatError(`${where} leaves ${name} alone, but ${tensors.name} has its codes`);
    return openLayer(gptqLayouts[format], { ...place, model }, key, found, bits.get(key) ?? 0);
  });
}

function findCompressed(place: Place): FoundLayers {
  const { quantization, model, tensors, where } = place;
  const settings = compressedSettings(quantization, model, where);
  const keys = keysWith(place, "weight_scale");
  refuseStrangers(place, keys);
  const bits = bitsByLayer(tensors, keys);
  const layers: OpenLayer[] = [];
  for (const { name, rows, columns } of allLinears(model)) {
    const found = settings.setting(name, rows, columns);
    const key = findKey(name, (candidate) => bits.has(candidate));
    if (found === undefined && key === undefined) continue;
    if (found === undefined) throw formatError(`${where} leaves ${name} alone, but ${tensors.name} has its scales`);
    const layout = found.packed ? packQuantizedLayout : intQuantizedLayout;
    layers.push(openLayer(layout, place, key ?? name, found.setting, bits.get(key ?? name) ?? 0));
  }
  if (layers.length === 0) throw noLayers(place);
  return { layers, activations: settings.activations };
}

/** The linears of the blocks that have a key in the file for which the test holds. Throws "format" if there is none. */
function quantizedLinears(place: Place, has: (key: string) => boolean): { spec: LinearSpec; key: string }[] {
  const found = allLinears(place.model).flatMap((spec) => {
    const key = findKey(spec.name, has);
    return key === undefined ? [] : [{ spec, key }];
  });
  if (found.length === 0) throw noLayers(place);
  return found;
}

const noLayers = ({ where, tensors }: Place) =>
  formatError(
    `${where} has a quantization_config, but ${tensors.name} has no quantized linear of the blocks`,
    "config.json and the weights belong to different checkpoints",
  );

function refuseStrangers({ model, where }: Place, keys: readonly string[]): void {
  const known = new Set(allLinears(model).map(({ name }) => name));
  const stranger = keys.find((key) => !known.has(canonicalName(model, key)));
  if (stranger === undefined) return;
  throw unsupportedError(
    `${where}: ${stranger} is quantized; only linears of the blocks can be`,
    "quantize the model again and leave the head and the embedding as they are",
  );
}

/** Bits of each layer's tensors: those whose name begins with the layer's. */
function bitsByLayer(tensors: TensorReader, keys: readonly string[]): Map<string, number> {
  const bits = new Map(keys.map((key) => [key, 0]));
  for (const name of tensors.names) {
    const key = ownerOf(name, bits);
    if (key !== undefined) bits.set(key, (bits.get(key) ?? 0) + 8 * (tensors.info(name)?.bytes ?? 0));
  }
  return bits;
}

/** The layer that a tensor belongs to: the longest name before a dot that is one. */
export function ownerOf(name: string, layers: ReadonlyMap<string, unknown>): string | undefined {
  for (let dot = name.lastIndexOf("."); dot > 0; dot = name.lastIndexOf(".", dot - 1)) {
    if (layers.has(name.slice(0, dot))) return name.slice(0, dot);
  }
  return undefined;
}
