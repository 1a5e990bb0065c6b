import { z } from "zod";
import { formatError, unsupportedError } from "../errors.js";
import { isObject, type JsonObject } from "../files/json.js";
import { checkFeatures } from "./fields.js";
import type { GptqSetting } from "./gptq.js";
import { LAYER_LIMITS } from "./layout.js";
import { compilePattern } from "./pattern.js";

// What config.json (or quantize_config.json) says of layers in the GPTQ formats: one setting for all, and `dynamic` overrides by
// name, of which the first that matches counts ("-:" leaves a module alone).

const bits = z.number().int().min(1).max(16);
const groupSize = z.number().int().min(-1).max(LAYER_LIMITS.features);
const schema = z.object({
  bits,
  group_size: groupSize.nullish(),
  sym: z.boolean().nullish(),
  checkpoint_format: z.string().nullish(),
  format: z.string().nullish(),
  pack_dtype: z.string().nullish(),
  is_marlin_format: z.boolean().nullish(),
  lm_head: z.boolean().nullish(),
  dynamic: z.record(z.string(), z.record(z.string(), z.unknown())).nullish(),
});
const overrideSchema = z.object({
  bits: bits.optional(),
  group_size: groupSize.optional(),
  sym: z.boolean().optional(),
});

function parse<T>(type: z.ZodType<T>, value: unknown, what: string): T {
  const result = type.safeParse(value);
  if (result.success) return result.data;
  const problems = result.error.issues.slice(0, 4).map((issue) => `${issue.path.join(".")}: ${issue.message}`);
  throw formatError(`${what} is not valid: ${problems.join("; ")}`);
}

/** The version that a quantization_config of GPTQ declares. Throws "unsupported" for other packings of its codes. */
export function gptqFormat(quantization: JsonObject, where: string): "gptq" | "gptq_v2" {
  const { checkpoint_format: named, format, is_marlin_format: isMarlin } = quantization;
  const declared = typeof named === "string" ? named : typeof format === "string" ? format : "gptq";
  if (isMarlin !== true && (declared === "gptq" || declared === "gptq_v2")) return declared;
  throw unsupportedError(
    `${where}: the codes are packed as ${isMarlin === true ? "marlin" : JSON.stringify(declared.slice(0, 40))}; gptq and gptq_v2 can be read`,
    "export the checkpoint as gptq_v2 with the program that wrote it",
  );
}

export interface GptqSettings {
  /** Of a linear by canonical name; undefined when it is left alone. */
  setting(name: string, rows: number, columns: number): GptqSetting | undefined;
}

/** Reads the setting of every layer. Throws "format" or "unsupported". */
export function gptqSettings(quantization: JsonObject, where: string): GptqSettings {
  const raw = parse(schema, quantization, `${where}: quantization_config`);
  if ((raw.pack_dtype ?? "int32") !== "int32")
    throw unsupportedError(`${where}: codes are packed into ${raw.pack_dtype}; int32 can be read`);
  if (raw.lm_head)
    throw unsupportedError(`${where}: lm_head is quantized; only linears of the blocks can be`, "quantize without it");
  const overrides = Object.entries(raw.dynamic ?? {}).map(([pattern, words]) => ({
    matches: compilePattern(pattern.replace(/^[+-]:/, ""), where),
    keeps: pattern.startsWith("-:"),
    words: parse(overrideSchema, words, `${where}: the override ${JSON.stringify(pattern.slice(0, 80))}`),
  }));
  return {
    setting(name, rows, columns) {
      const override = overrides.find(({ matches }) => matches(name));
      if (override?.keeps) return undefined;
      const words = { ...raw, ...override?.words };
      if (![2, 3, 4, 8].includes(words.bits)) {
        throw unsupportedError(
          `${where}: layer ${name} has ${words.bits} bits; 2, 3, 4 and 8 can be read`,
          "5, 6 and 7 bits are stored in planes by GPTQModel alone",
        );
      }
      const group = words.group_size ?? 128; // GPTQModel's default
      if (group === 0) throw formatError(`${where}: layer ${name} has groups of no columns`);
      checkFeatures(name, rows, columns);
      return {
        rows,
        columns,
        bits: words.bits,
        group: group < 0 ? columns : Math.min(group, columns),
        symmetric: words.sym ?? true,
      };
    },
  };
}

/** What `write` of the layout told of a layer. */
interface Written {
  name: string;
  setting: GptqSetting & { order?: boolean };
}

/** Whether a layer is what the setting of all says of it. */
const fits = ({ columns, bits, group, symmetric }: GptqSetting, all: { bits: number; group: number; sym: boolean }) =>
  bits === all.bits && symmetric === all.sym && group === (all.group < 0 ? columns : Math.min(all.group, columns));

/** The quantization_config of a checkpoint: what most layers have, the others by name, and those that are left alone. */
export function gptqConfig(
  version: "gptq" | "gptq_v2",
  written: readonly Written[],
  kept: readonly string[],
): JsonObject {
  const candidates = written.flatMap(({ setting: { bits, group, columns, symmetric } }) => {
    const sizes = group === columns ? [group, -1] : [group];
    return sizes.map((size) => ({ bits, group: size, sym: symmetric }));
  });
  const score = (all: (typeof candidates)[number]) => written.filter(({ setting }) => fits(setting, all)).length;
  // the first of equals; one group a row is told as -1 where it holds for all
  const best = candidates.reduce((a, b) => {
    const difference = score(b) - score(a);
    return difference > 0 || (difference === 0 && a.group > 0 && b.group < 0) ? b : a;
  });
  const exact = (name: string) => `^${name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}$`;
  const dynamic: JsonObject = {};
  for (const name of kept) dynamic[`-:${exact(name)}`] = {};
  for (const { name, setting } of written) {
    if (fits(setting, best)) continue;
    const { bits, group, columns, symmetric } = setting;
    dynamic[`+:${exact(name)}`] = { bits, group_size: group === columns ? -1 : group, sym: symmetric };
  }
  return {
    quant_method: "gptq",
    bits: best.bits,
    group_size: best.group,
    sym: best.sym,
    desc_act: written.some(({ setting }) => setting.order === true),
    checkpoint_format: version,
    lm_head: false,
    pack_dtype: "int32",
    true_sequential: true,
    static_groups: false,
    damp_percent: 0.01,
    ...(Object.keys(dynamic).length > 0 ? { dynamic } : {}),
    meta: { quantizer: ["bitwright:1"] },
  };
}

/** Whether a folder's quantize_config.json, which older programs wrote instead, is one of GPTQ. */
export const isGptqConfig = (value: unknown): value is JsonObject =>
  isObject(value) && "bits" in value && (value.quant_method ?? "gptq") === "gptq";
