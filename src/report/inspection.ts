import type { CheckpointModel } from "../checkpoint/open.js";
import { isObject, type JsonObject } from "../files/json.js";
import type { ActivationScheme } from "../model/activation-scheme.js";
import { blockLinears } from "../model/block.js";
import { findFamily } from "../model/families/index.js";
import { parameterCount, tableParameters } from "../model/tensors.js";
import { canonicalName, findKey } from "../model/weights.js";
import type { RecordShape } from "../quant/bits.js";

/** One linear of the blocks as it is stored. */
export interface LinearInspection {
  name: string;
  rows: number;
  columns: number;
  /** "f16", "vptq v4 k256 + 256", "affine 2 bits, group 64". */
  stored: string;
  /** Everything stored for it, its bias included, over rows x columns. */
  bitsPerWeight: number;
  quantized: boolean;
  /** tr(E H E^T) / tr(W H W^T) when it was quantized, if that was written down. */
  proxyError?: number;
  /** The method that quantized it, if that was written down. */
  method?: string;
}

export interface Inspection {
  format: CheckpointModel["format"];
  /** How activations are quantized when it runs: bits of each; absent where they are left alone. */
  activations?: ActivationScheme;
  family: string;
  shapes: {
    layers: number;
    hidden: number;
    heads: number;
    keyValueHeads: number;
    headSize: number;
    mlp: number;
    vocabulary: number;
    contextLength: number;
    tiedEmbeddings: boolean;
  };
  /** Weights of the model, a tied head counted once. */
  parameters: number;
  linears: LinearInspection[];
  /** Bits per weight, all that is stored over the weights that it stands for. */
  bits: {
    /** Of the linears in the blocks: the figure by which methods are compared. */
    linears: number;
    /** Of everything but the embedding and the head. */
    withoutEmbeddings: number;
    withEmbeddings: number;
    /** Bytes of the weight files, headers too, x 8 / parameters. */
    files: number;
  };
  /** Bytes of the weight files. */
  fileBytes: number;
}

/** Looks at a checkpoint without reading weights. */
export async function inspectCheckpoint(checkpoint: CheckpointModel): Promise<Inspection> {
  const { model, tensors, format } = checkpoint;
  const metrics = recordedMetrics(await checkpoint.report());
  const layers = new Map(checkpoint.layers.map((layer) => [layer.name, layer]));
  const bytesOf = (name: string): number => {
    const key = findKey(name, (candidate) => tensors.info(candidate) !== undefined);
    return key === undefined ? 0 : (tensors.info(key)?.bytes ?? 0);
  };
  const dtypeOf = (name: string): string => {
    const key = findKey(name, (candidate) => tensors.info(candidate) !== undefined);
    return (key !== undefined && tensors.info(key)?.dtype) || "missing";
  };
  const linears: LinearInspection[] = [];
  for (let block = 0; block < model.layers; block++) {
    for (const { name, rows, columns, bias } of blockLinears(model, block)) {
      const layer = layers.get(name);
      const bits = layer?.bits ?? 8 * (bytesOf(`${name}.weight`) + (bias ? bytesOf(`${name}.bias`) : 0));
      linears.push({
        name,
        rows,
        columns,
        stored: layer ? describeShape(layer.shape) : dtypeOf(`${name}.weight`),
        bitsPerWeight: bits / (rows * columns),
        quantized: layer !== undefined,
        ...metrics.get(name),
      });
    }
  }
  const weights = linears.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
  const bits = linears.reduce((sum, linear) => sum + linear.bitsPerWeight * linear.rows * linear.columns, 0);
  const parameters = parameterCount(model);
  const tables = tableParameters(model);
  const { names } = findFamily(model.family);
  const isTable = (name: string) =>
    [names.embedding, names.head].some((table) => canonicalName(model, name).startsWith(`${table}.`));
  const allBits = sumBits(checkpoint, () => true);
  const fileBytes = await weightFileBytes(checkpoint);
  return {
    format,
    ...(checkpoint.activations ? { activations: checkpoint.activations } : {}),
    family: model.family,
    shapes: {
      layers: model.layers,
      hidden: model.hidden,
      heads: model.heads,
      keyValueHeads: model.keyValueHeads,
      headSize: model.headSize,
      mlp: model.mlp,
      vocabulary: model.vocabulary,
      contextLength: model.contextLength,
      tiedEmbeddings: model.tieEmbeddings,
    },
    parameters,
    linears,
    bits: {
      linears: bits / weights,
      withoutEmbeddings: sumBits(checkpoint, (name) => !isTable(name)) / (parameters - tables),
      withEmbeddings: allBits / parameters,
      files: (8 * fileBytes) / parameters,
    },
    fileBytes,
  };
}

const sumBits = ({ tensors }: CheckpointModel, counts: (name: string) => boolean): number =>
  tensors.names.reduce((sum, name) => sum + (counts(name) ? 8 * (tensors.info(name)?.bytes ?? 0) : 0), 0);

/** Bytes of the safetensors files of the folder. */
export async function weightFileBytes({ folder }: CheckpointModel): Promise<number> {
  let bytes = 0;
  for (const name of await folder.list()) {
    if (!name.endsWith(".safetensors")) continue;
    const file = await folder.open(name);
    bytes += file.size;
    await file.close();
  }
  return bytes;
}

/** A record's shape in a few words. */
export function describeShape(shape: RecordShape): string {
  if (shape.kind === "affine") {
    const group = shape.group >= shape.columns ? "a group a row" : `groups of ${shape.group}`;
    return `${shape.bits} bits, ${group}${shape.symmetric ? ", symmetric" : ""}`;
  }
  const [first, second] = shape.segments;
  const main = shape.hasOutliers && second ? second : first;
  const books = (segment: typeof first) => `v${segment.vectorLength} k${segment.codewords.join(" + ")}`;
  const groups = shape.segments.length - (shape.hasOutliers ? 1 : 0);
  return [
    books(main),
    ...(groups > 1 ? [`${groups} groups`] : []),
    ...(shape.hasOutliers ? [`outliers ${first.columns} x ${books(first)}`] : []),
  ].join(", ");
}

/** A scheme in a few words: "inputs 8 bits, query 8, key 4, value 4, symmetric". */
export function describeActivations({ input, query, key, value, symmetric }: ActivationScheme): string {
  const parts = Object.entries({ inputs: input, query, key, value }).filter(([, bits]) => bits !== undefined);
  return [...parts.map(([name, bits]) => `${name} ${bits} bits`), ...(symmetric ? ["symmetric"] : [])].join(", ");
}

/** Proxy errors and methods by linear, from bitwright.json; whatever does not look like them is passed over. */
function recordedMetrics(report: JsonObject | undefined) {
  const metrics = new Map<string, Pick<LinearInspection, "proxyError" | "method">>();
  if (!isObject(report?.layers)) return metrics;
  for (const [name, entry] of Object.entries(report.layers)) {
    if (!isObject(entry)) continue;
    const { proxyError, method } = entry;
    metrics.set(name, {
      ...(typeof proxyError === "number" ? { proxyError } : {}),
      ...(typeof method === "string" ? { method } : {}),
    });
  }
  return metrics;
}
