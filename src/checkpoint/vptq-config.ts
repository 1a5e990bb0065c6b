import { z } from "zod";
import { formatError, unsupportedError } from "../errors.js";
import { isObject, type JsonObject } from "../files/json.js";
import { spellings } from "../model/weights.js";
import { checkFeatures } from "./fields.js";
import { LAYER_LIMITS } from "./layout.js";

// What config.json says of layers in the published VPTQ layout. Three writers: the vptq package (config_for_layers and
// shared_layer_config), the same before 0.0.4 (quant_config at top level), and GPTQModel (one flat setting for all layers).

/** One layer, checked. */
export interface VptqSetting {
  rows: number;
  columns: number;
  vectorLength: number;
  codewords: number;
  /** Codewords of the residual codebook, 0 for none. */
  residual: number;
  /** There may be an outlier codebook for no columns. */
  outliers?: { columns: number; vectorLength: number; codewords: number };
  groups: number;
  /** Columns of a group. GPTQModel's last group may be shorter, and is then padded. */
  groupColumns: number;
  norm: boolean;
  order: boolean;
  packed: boolean;
}

const feature = z.number().int().min(1).max(LAYER_LIMITS.features);
const pair = z.tuple([z.number().int(), z.number().int()]);

const layerSchema = z.object({
  in_features: feature,
  out_features: feature,
  vector_lens: pair,
  num_centroids: pair,
  num_res_centroids: pair.default([-1, -1]),
  group_num: z.number().int().min(1).max(65536).default(1),
  group_size: z.number().int().min(-1).max(LAYER_LIMITS.features).default(-1),
  outlier_size: z.number().int().min(0).max(LAYER_LIMITS.features).default(0),
  enable_norm: z.boolean().default(true),
  enable_perm: z.boolean().default(true),
  is_indice_packed: z.boolean().default(true),
  norm_dim: z.number().int().nullish(),
  vector_quant_dim: z.string().nullish(),
});

const flatSchema = layerSchema.omit({ in_features: true, out_features: true, outlier_size: true }).extend({
  npercent: z.number().min(0).max(100).default(0),
  group_num: z.number().int().min(-1).max(65536).default(-1),
  enable_norm: z.boolean().default(false),
  enable_perm: z.boolean().default(false),
});

export type LayerSettings = (module: string) => VptqSetting | undefined;

/** Finds the setting of each layer in a config.json. `featuresOf` gives [O, I] where the setting itself does not. */
export function vptqSettings(
  config: JsonObject,
  where: string,
  featuresOf: (module: string) => readonly [number, number] | undefined,
): { setting: LayerSettings; named: string[] } {
  const quantization = config.quantization_config ?? { config_for_layers: config.quant_config };
  if (!isObject(quantization)) throw formatError(`${where}: quantization_config is not an object`);
  const layers = optionalObject(quantization, "config_for_layers", where);
  const shared = optionalObject(quantization, "shared_layer_config", where);
  const named = Object.keys(layers);
  if (named.length === 0 && Object.keys(shared).length === 0) {
    if (!("vector_lens" in quantization)) {
      throw formatError(
        `${where}: quantization_config names no layers: expected config_for_layers, shared_layer_config or vector_lens`,
      );
    }
    return { named, setting: (module) => flatSetting(quantization, module, where, featuresOf) };
  }
  return {
    named,
    setting: (module) => {
      const last = module.slice(module.lastIndexOf(".") + 1);
      const value = lookUp(layers, module) ?? (Object.hasOwn(shared, last) ? shared[last] : undefined);
      return value === undefined ? undefined : layerSetting(value, module, where);
    },
  };
}

/** Modules are named with or without the family's prefix in configuration and file. */
function lookUp(layers: JsonObject, module: string): unknown {
  const found = spellings(module).find((name) => Object.hasOwn(layers, name));
  return found === undefined ? undefined : layers[found];
}

function optionalObject(parent: JsonObject, key: string, where: string): JsonObject {
  const value = parent[key] ?? {};
  if (!isObject(value)) throw formatError(`${where}: ${key} is not an object`);
  return value;
}

function parse<T>(schema: z.ZodType<T>, value: unknown, module: string, where: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const problems = result.error.issues.slice(0, 4).map((issue) => `${issue.path.join(".")}: ${issue.message}`);
  throw formatError(`${where}: the setting of layer ${module} is not valid: ${problems.join("; ")}`);
}

function layerSetting(value: unknown, module: string, where: string): VptqSetting {
  const raw = parse(layerSchema, value, module, where);
  const [outlierLength, vectorLength] = raw.vector_lens;
  const [outlierCodewords, codewords] = raw.num_centroids;
  const hasOutliers = outlierLength > 1 && outlierCodewords > 0; // the package's rule
  const rest = raw.in_features - raw.outlier_size;
  return checkSetting(
    {
      rows: raw.out_features,
      columns: raw.in_features,
      vectorLength,
      codewords,
      residual: Math.max(0, raw.num_res_centroids[1]),
      outliers: hasOutliers
        ? { columns: raw.outlier_size, vectorLength: outlierLength, codewords: outlierCodewords }
        : undefined,
      groups: raw.group_num,
      groupColumns: raw.group_size > 0 ? raw.group_size : rest / raw.group_num,
      norm: raw.enable_norm,
      order: raw.enable_perm,
      packed: raw.is_indice_packed,
    },
    raw,
    raw.outlier_size,
    false,
    `${where}: layer ${module}`,
  );
}

function flatSetting(
  value: unknown,
  module: string,
  where: string,
  featuresOf: (module: string) => readonly [number, number] | undefined,
): VptqSetting | undefined {
  const raw = parse(flatSchema, value, module, where);
  const features = featuresOf(module);
  if (!features) return undefined;
  const [rows, columns] = features;
  const [outlierLength, vectorLength] = raw.vector_lens;
  const [outlierCodewords, codewords] = raw.num_centroids;
  const hasOutliers = outlierLength > 0 && outlierCodewords > 1 && raw.npercent > 0;
  let outliers = hasOutliers ? Math.min(columns, Math.ceil((columns * raw.npercent) / 100)) : 0;
  const chosen = raw.group_size > 0 ? Math.ceil((columns - outliers) / raw.group_size) : raw.group_num;
  const groups = Math.max(1, chosen);
  // columns left over by the division join the outliers, where there are any; else the last group is padded
  if (hasOutliers && raw.group_size <= 0) outliers += (columns - outliers) % groups;
  return checkSetting(
    {
      rows,
      columns,
      vectorLength,
      codewords,
      residual: Math.max(0, raw.num_res_centroids[1]),
      outliers: hasOutliers
        ? { columns: outliers, vectorLength: outlierLength, codewords: outlierCodewords }
        : undefined,
      groups,
      groupColumns: raw.group_size > 0 ? raw.group_size : Math.ceil((columns - outliers) / groups),
      norm: raw.enable_norm,
      order: raw.enable_perm,
      packed: true,
    },
    raw,
    outliers,
    true,
    `${where}: layer ${module}`,
  );
}

const isPowerOfTwo = (value: number): boolean =>
  Number.isInteger(value) && value >= 2 && value <= LAYER_LIMITS.codewords && (value & (value - 1)) === 0;
const isLength = (value: number): boolean =>
  Number.isInteger(value) && value >= 1 && value <= LAYER_LIMITS.vectorLength;

function checkSetting(
  setting: VptqSetting,
  raw: { norm_dim?: number | null; vector_quant_dim?: string | null },
  outlierColumns: number,
  mayPad: boolean,
  label: string,
): VptqSetting {
  const { rows, columns, vectorLength, codewords, residual, outliers, groups, groupColumns } = setting;
  checkFeatures(label, rows, columns);
  if (setting.norm && raw.norm_dim === 1) {
    throw unsupportedError(`${label} is normalised along its rows (norm_dim 1); columns (norm_dim 0) can be read`);
  }
  if ((raw.vector_quant_dim ?? "out") !== "out") {
    throw unsupportedError(`${label} has vectors along its inputs (vector_quant_dim "in"); "out" can be read`);
  }
  if (!isLength(vectorLength) || (outliers && !isLength(outliers.vectorLength))) {
    throw formatError(`${label}: vector_lens must be 1 to ${LAYER_LIMITS.vectorLength}`);
  }
  if (!isPowerOfTwo(codewords) || (residual > 0 && !isPowerOfTwo(residual))) {
    throw formatError(`${label}: num_centroids and num_res_centroids must be powers of two from 2 to 65536`);
  }
  if (outliers && outliers.codewords > LAYER_LIMITS.codewords) {
    throw formatError(`${label}: an outlier codebook has at most 65536 codewords`);
  }
  if (!outliers && outlierColumns > 0) {
    throw formatError(`${label}: outlier_size is ${outlierColumns}, but there is no outlier codebook`);
  }
  const grouped = columns - outlierColumns;
  const covered = groups * groupColumns;
  const isWhole = Number.isInteger(groupColumns) && groupColumns >= 1 && grouped >= 1;
  if (!isWhole || (mayPad ? covered < grouped : covered !== grouped)) {
    throw formatError(
      `${label}: ${outlierColumns} outlier columns and ${groups} groups of ${groupColumns} do not make ${columns} columns`,
    );
  }
  return setting;
}
