import { z } from "zod";
import { formatError, unsupportedError } from "../errors.js";
import type { JsonObject } from "../files/json.js";
import type { ActivationScheme } from "../model/activation-scheme.js";
import type { ModelConfig } from "../model/config.js";
import { findFamily } from "../model/families/index.js";
import type { CompressedSetting } from "./compressed-tensors.js";
import { checkFeatures } from "./fields.js";
import { LAYER_LIMITS, type Refusal } from "./layout.js";
import { compilePattern } from "./pattern.js";

// What config.json says of layers in the compressed-tensors formats: groups of targets (module names, "re:" patterns, "Linear") with
// the numbers of their weights and inputs, and a list of modules that are left alone.

const argsSchema = z.object({
  num_bits: z.number().int().default(8),
  type: z.string().default("int"),
  symmetric: z.boolean().default(true),
  strategy: z.string().nullish(),
  group_size: z.number().int().min(-1).max(LAYER_LIMITS.features).nullish(),
  dynamic: z.union([z.boolean(), z.string()]).default(false),
  actorder: z.union([z.boolean(), z.string()]).nullish(),
});
type Args = z.infer<typeof argsSchema>;

const groupSchema = z.object({
  targets: z.array(z.string()).max(100_000),
  weights: argsSchema.nullish(),
  input_activations: argsSchema.nullish(),
  output_activations: z.unknown().optional(),
  format: z.string().nullish(),
});

const schema = z.object({
  format: z.string().nullish(),
  config_groups: z.record(z.string(), groupSchema),
  ignore: z.array(z.string()).max(100_000).nullish(),
  kv_cache_scheme: argsSchema.nullish(),
});

export interface CompressedSettings {
  /** Of a linear by canonical name, with the way in which it is stored; undefined when it is left alone. */
  setting(name: string, rows: number, columns: number): { setting: CompressedSetting; packed: boolean } | undefined;
  activations?: ActivationScheme;
}

/** Reads the setting of every layer, and how activations are quantized. Throws "format" or "unsupported". */
export function compressedSettings(quantization: JsonObject, model: ModelConfig, where: string): CompressedSettings {
  const parsed = schema.safeParse(quantization);
  if (!parsed.success) {
    const problems = parsed.error.issues.slice(0, 4).map((issue) => `${issue.path.join(".")}: ${issue.message}`);
    throw formatError(`${where}: quantization_config is not valid: ${problems.join("; ")}`);
  }
  const raw = parsed.data;
  refuseTransforms(quantization, where);
  const ignored = (raw.ignore ?? []).map((target) => matcher(target, where));
  const groups = Object.entries(raw.config_groups).map(([label, group]) => {
    if (group.output_activations) throw unsupportedError(`${where}: ${label} quantizes the outputs of linears`);
    const targets = group.targets.map((target) => ({ target, matches: matcher(target, where) }));
    return { ...group, label, targets };
  });
  // a name comes before a pattern, a pattern before a class, as in compressed-tensors
  const ranked = groups
    .flatMap((group) => group.targets.map(({ target, matches }) => ({ group, target, matches, rank: rankOf(target) })))
    .sort((a, b) => a.rank - b.rank);
  const groupOf = (name: string, isLinear: boolean) =>
    ranked.find(({ target, matches }) => (target === "Linear" ? isLinear : matches(name)))?.group;
  const inputs = new Set<string>();
  const used: Args[] = [];
  return {
    setting(name, rows, columns) {
      const group = ignored.some((matches) => matches(name)) ? undefined : groupOf(name, true);
      const input = group?.input_activations;
      inputs.add(JSON.stringify(input ?? null));
      if (inputs.size > 1) {
        throw unsupportedError(
          `${where}: the inputs of ${name} are quantized unlike others; all linears of the blocks must be alike`,
        );
      }
      if (input && used.length === 0) used.push(input);
      if (!group?.weights) return undefined;
      return layerSetting(group.weights, group.format ?? raw.format ?? "pack-quantized", name, rows, columns, where);
    },
    get activations() {
      return activationsOf(
        used[0],
        attentionArgs(groups, model, where),
        raw.kv_cache_scheme ?? undefined,
        model,
        where,
      );
    },
  };
}

const rankOf = (target: string): number => (target.startsWith("re:") ? 1 : target === "Linear" ? 2 : 0);

function matcher(target: string, where: string): (name: string) => boolean {
  return target.startsWith("re:") ? compilePattern(target.slice(3), where) : (name) => name === target;
}

function refuseTransforms(quantization: JsonObject, where: string): void {
  const { transform_config: transforms, sparsity_config: sparsity } = quantization;
  const isSet = (value: unknown) => typeof value === "object" && value !== null && Object.keys(value).length > 0;
  if (isSet(transforms)) throw unsupportedError(`${where}: the model has transforms (transform_config)`);
  if (isSet(sparsity) && (sparsity as JsonObject).format !== "dense")
    throw unsupportedError(`${where}: the weights are sparse (sparsity_config)`);
}

function layerSetting(
  { num_bits: bits, type, symmetric, strategy, group_size: size, actorder }: Args,
  format: string,
  name: string,
  rows: number,
  columns: number,
  where: string,
): { setting: CompressedSetting; packed: boolean } {
  const fail = (what: string): never => {
    throw unsupportedError(`${where}: the weights of ${name} are ${what}, which is not supported`);
  };
  if (type !== "int" || bits < 2 || bits > 8) fail(`${type} numbers of ${bits} bits`);
  const packed = format === "pack-quantized";
  if (!packed && format !== "int-quantized" && format !== "naive-quantized")
    fail(`stored as ${JSON.stringify(format)}`);
  const grouped = strategy === "group" || (strategy == null && (size ?? 0) > 0);
  if (!grouped && strategy !== "channel" && size !== -1) fail(`scaled by ${strategy ?? "tensor"}`);
  if (grouped && (size ?? 0) < 1)
    throw formatError(`${where}: the weights of ${name} have groups without a group_size`);
  checkFeatures(name, rows, columns);
  const group = grouped ? Math.min(size as number, columns) : columns;
  const order = actorder === "group" || actorder === "dynamic" || actorder === true;
  return { setting: { rows, columns, bits, group, symmetric, order }, packed };
}

type Group = {
  targets: { matches: (name: string) => boolean }[];
  weights?: Args | null;
  input_activations?: Args | null;
};

/** How the attention modules themselves are quantized: query, key and value alike. */
function attentionArgs(groups: readonly Group[], model: ModelConfig, where: string): Args | undefined {
  const names = Array.from({ length: model.layers }, (_, index) => attentionModule(model, index));
  const group = groups.find(({ targets }) => targets.some(({ matches }) => names.some(matches)));
  if (!group) return undefined;
  if (names.every((name) => group.targets.some(({ matches }) => matches(name))))
    return group.input_activations ?? undefined;
  throw unsupportedError(`${where}: attention is quantized in some blocks only`);
}

/** "model.layers.3.self_attn". */
function attentionModule({ family }: ModelConfig, index: number | string): string {
  const { blocks, linears } = findFamily(family).names;
  const first = linears.query ?? linears.queryKeyValue ?? "";
  return `${blocks}.${index}.${first.slice(0, first.lastIndexOf("."))}`;
}

function activationsOf(
  input: Args | undefined,
  attention: Args | undefined,
  cache: Args | undefined,
  { headSize }: ModelConfig,
  where: string,
): ActivationScheme | undefined {
  const all = [input, attention, cache].filter((args) => args !== undefined);
  if (all.length === 0) return undefined;
  for (const args of all) {
    if (args.type !== "int" || args.num_bits < 2 || args.num_bits > 8)
      throw unsupportedError(
        `${where}: activations are ${args.type} numbers of ${args.num_bits} bits; int of 2 to 8 can be`,
      );
    if (args.symmetric !== all[0].symmetric)
      throw unsupportedError(`${where}: some activations are symmetric, some not; all must be alike`);
  }
  if (input && (input.dynamic !== true || input.strategy !== "token")) {
    throw unsupportedError(
      `${where}: inputs are quantized ${input.dynamic === true ? `by ${input.strategy}` : "with fixed scales"}`,
      "the grids of inputs can be dynamic, one a token",
    );
  }
  for (const args of [attention, cache]) {
    if (!args || (args.dynamic === true && args.strategy === "group" && args.group_size === headSize)) continue;
    throw unsupportedError(
      `${where}: keys and values are quantized ${args.dynamic === true ? `by ${args.strategy}` : "with fixed scales"}`,
      `they can be quantized dynamically in groups of ${headSize}, the size of a head: a grid for each token and head`,
    );
  }
  const bits = attention?.num_bits ?? cache?.num_bits;
  return {
    ...(input ? { input: input.num_bits } : {}),
    ...(attention ? { query: attention.num_bits } : {}),
    ...(bits === undefined ? {} : { key: bits, value: bits }),
    symmetric: all[0].symmetric,
  };
}

/** What `write` of a layout told of a layer. */
interface Written {
  name: string;
  setting: CompressedSetting & { packed: boolean };
}

/** What matters of the blocks for the quantization of activations. */
export interface BlockFacts {
  /** Some linears of the blocks stay as they are. */
  keepsLinears: boolean;
  /** Query, key and value are one linear. */
  fusedAttention: boolean;
}

/** Why compressed-tensors cannot say this of activations, or undefined. */
export function compressedActivationsRefusal(
  { input, query, key, value }: ActivationScheme,
  { keepsLinears, fusedAttention }: BlockFacts,
): Refusal | undefined {
  if (fusedAttention && (query ?? key ?? value) !== undefined)
    return {
      reason: "quantized queries, keys and values of a fused query_key_value: its loaders find none there",
      remedy: "write bitwright, or leave the activations alone",
    };
  if (input !== undefined && keepsLinears)
    return {
      reason: "quantized inputs of linears that are kept as they are (--activations)",
      remedy: "quantize every linear, or write bitwright",
    };
  if (key === value && (query === undefined || query === key)) return undefined;
  return {
    reason: `a query of ${query ?? 16} bits, keys of ${key ?? 16} and values of ${value ?? 16}: all three are quantized alike, or the query not at all`,
    remedy: "give --kv as --activations, or write bitwright",
  };
}

/** The quantization_config of a checkpoint. `others` are modules that are left alone. */
export function compressedConfig(
  written: readonly Written[],
  others: readonly string[],
  activations: ActivationScheme | undefined,
  model: ModelConfig,
): JsonObject {
  const kinds = new Map<string, Written[]>();
  for (const layer of written) {
    const { bits, symmetric, group, columns, packed } = layer.setting;
    const kind = JSON.stringify([bits, symmetric, group === columns ? null : group, packed]);
    kinds.set(kind, [...(kinds.get(kind) ?? []), layer]);
  }
  const symmetric = activations?.symmetric ?? false;
  const dynamic = (bits: number, strategy: "token" | "group", size: number | null) =>
    numbers(bits, symmetric, strategy, size, true);
  const input = activations?.input === undefined ? null : dynamic(activations.input, "token", null);
  const formats = new Set<string>();
  const groups: JsonObject = {};
  for (const layers of kinds.values()) {
    const { bits, symmetric, group, columns, packed } = layers[0].setting;
    const format = packed ? "pack-quantized" : "int-quantized";
    formats.add(format);
    groups[`group_${Object.keys(groups).length}`] = {
      targets: kinds.size === 1 ? ["Linear"] : layers.map(({ name }) => name),
      weights:
        group === columns
          ? numbers(bits, symmetric, "channel", null, false)
          : numbers(bits, symmetric, "group", group, false),
      input_activations: input,
      output_activations: null,
      format,
    };
  }
  const { query, key } = activations ?? {};
  if (query !== undefined) {
    groups[`group_${Object.keys(groups).length}`] = {
      targets: [`re:${attentionModule(model, "N").replaceAll(".", "\\.").replace("N", "\\d+")}$`],
      weights: null,
      input_activations: dynamic(query, "group", model.headSize),
      output_activations: null,
    };
  }
  return {
    quant_method: "compressed-tensors",
    format: formats.size === 1 ? [...formats][0] : "mixed-precision",
    quantization_status: "compressed",
    config_groups: groups,
    ignore: [...others],
    kv_cache_scheme: query === undefined && key !== undefined ? dynamic(key, "group", model.headSize) : null,
    global_compression_ratio: null,
  };
}

const numbers = (
  bits: number,
  symmetric: boolean,
  strategy: string,
  size: number | null,
  dynamic: boolean,
): JsonObject => ({
  num_bits: bits,
  type: "int",
  symmetric,
  strategy,
  group_size: size,
  dynamic,
});
