import { formatError, numericError, throwIfAborted, unsupportedError, usageError } from "../errors.js";
import { bytesOf as bytesView } from "../files/dtypes.js";
import type { OutputFolder } from "../files/folder.js";
import type { JsonObject } from "../files/json.js";
import { readInOrder } from "../files/read-in-order.js";
import { type OutgoingTensor, tensorBytes, writeCheckpointTensors } from "../files/safetensors-writer.js";
import type { TensorReader } from "../files/tensors.js";
import type { ActivationScheme } from "../model/activation-scheme.js";
import { findFamily } from "../model/families/index.js";
import type { LinearSlot } from "../model/family.js";
import { canonicalName, checkFinite, findKey } from "../model/weights.js";
import { type CheckpointFormat, recordShape } from "../quant/bits.js";
import type { QuantizedRecord, RecordStorage } from "../quant/record.js";
import { bf16ToF32, f16ToF32, f32ToBF16, f32ToF16, sizeOf } from "../tensor/index.js";
import { carryFiles, withDtype, writeJson } from "./carry.js";
import { allLinears, ownerOf } from "./find-layers.js";
import {
  activationsRefusal,
  blockFacts,
  configAdditions,
  formatRefused,
  linearRefusal,
  type QuantizationContext,
  quantizationConfig,
  recordLayout,
  type WrittenLayer,
  writerOf,
} from "./formats.js";
import type { LayerTensor, Refusal } from "./layout.js";
import { type CheckpointModel, CONFIG_FILE, REPORT_FILE } from "./open.js";

export interface QuantizedCheckpoint {
  /** The full-precision model: its other tensors and files are copied. */
  source: CheckpointModel;
  output: OutputFolder;
  /** Canonical names of the quantized linears; each record is read twice, few are in memory at a time. */
  names: readonly string[];
  record(name: string): Promise<QuantizedRecord>;
  /** Values in place of the source's, by canonical tensor name: norms and biases that a method changed. */
  vectors?: ReadonlyMap<string, Float32Array>;
  /** How activations are quantized when the model runs, where the format can say so. */
  activations?: ActivationScheme;
  /** Default: the published VPTQ layout if it holds every record, else our own. */
  format?: CheckpointFormat;
  /** Contents of bitwright.json. */
  report?: JsonObject;
  maxShardBytes?: number;
  onTensor?: (written: number, total: number) => void;
  signal?: AbortSignal;
}

export interface WrittenCheckpoint {
  format: CheckpointFormat;
  /** Why the published layout was not chosen, when it was not asked for. */
  reason?: string;
  tensorBytes: number;
}

/**
 * Writes a quantized checkpoint, tensor by tensor, and commits it; on failure the output is discarded. The source may be quantized
 * itself: then `names` are all its quantized linears, and the result says the same in another format. Throws "usage" for a format
 * that cannot hold a record, with the linear and the reason.
 */
export async function writeQuantizedCheckpoint(job: QuantizedCheckpoint): Promise<WrittenCheckpoint> {
  const { source, output } = job;
  try {
    const names = new Set(job.names);
    if (source.layers.some(({ name }) => !names.has(name))) {
      throw usageError(`${source.folder.name} is quantized already`, "start from the full-precision checkpoint");
    }
    const { format, reason, tensors, layers, storage, biases } = await chooseFormat(job);
    const quantization = quantizationConfig(format, layers, contextOf(job));
    await carryFiles(source.folder, output);
    const bytes = await writeCheckpointTensors(output, tensors, job.maxShardBytes);
    if (job.report) await writeJson(output, REPORT_FILE, job.report);
    // older programs look there
    if (format === "gptq" || format === "gptq_v2") await writeJson(output, "quantize_config.json", quantization);
    const additions = configAdditions(format, job.activations, source);
    const config = { ...withDtype(source.config, storage), ...biases, ...additions, quantization_config: quantization };
    await writeJson(output, CONFIG_FILE, config);
    await output.commit();
    return { format, reason, tensorBytes: bytes };
  } catch (error) {
    await output.discard();
    throw error;
  }
}

function contextOf({ source, names, activations }: QuantizedCheckpoint): QuantizationContext {
  const { model, tensors } = source;
  const quantized = new Set(names);
  const kept = allLinears(source.model).flatMap(({ name }) => (quantized.has(name) ? [] : [name]));
  const { embedding, positions, head } = findFamily(model.family).names;
  const others = new Set([head]); // a tied head has no tensor
  for (const key of tensors.names) {
    if (!key.endsWith(".weight") || tensors.info(key)?.shape.length !== 2) continue;
    const name = canonicalName(model, key.slice(0, -".weight".length));
    if (!quantized.has(name) && name !== embedding && name !== positions) others.add(name);
  }
  return { model, activations, kept, others: [...others] };
}

const factsOf = ({ source, names }: QuantizedCheckpoint) => {
  const quantized = new Set(names);
  return blockFacts(allLinears(source.model), (name) => quantized.has(name));
};

/** The format asked for, or the published one of VPTQ if it holds every record. Throws "usage" when the one asked for cannot. */
async function chooseFormat(job: QuantizedCheckpoint): Promise<Plan> {
  if (job.format === "bitwright") return planTensors(job, "bitwright");
  const wanted = job.format ?? "vptq";
  const refusal = activationsRefusal(wanted, job.activations, factsOf(job));
  const plan = refusal === undefined ? await planTensors(job, wanted) : { refused: refusal };
  if (!("refused" in plan)) return plan;
  if (job.format === undefined) return { ...(await planTensors(job, "bitwright")), reason: plan.refused.reason };
  throw formatRefused(wanted, plan.refused);
}

interface Plan {
  format: CheckpointFormat;
  reason?: string;
  tensors: OutgoingTensor[];
  layers: WrittenLayer[];
  storage: RecordStorage;
  /** What config.json says of biases that the source has not. */
  biases: JsonObject;
}

async function planTensors(job: QuantizedCheckpoint, format: "bitwright"): Promise<Plan>;
async function planTensors(job: QuantizedCheckpoint, format: CheckpointFormat): Promise<Plan | { refused: Refusal }>;
/** Every tensor in the source's order, with the quantized linears' own in place of their weights. */
async function planTensors(job: QuantizedCheckpoint, format: CheckpointFormat): Promise<Plan | { refused: Refusal }> {
  const { source, names, signal, activations } = job;
  const hasBias = new Map(allLinears(source.model).map(({ name, bias }) => [name, bias]));
  const load = async (name: string) => withoutPadding(await job.record(name), hasBias.get(name) ?? true);
  const writeRecord = (record: QuantizedRecord) =>
    writerOf(recordLayout(format, recordShape(record), activations)).write(record);
  const first = readInOrder(names, load);
  const stored = new Map(source.layers.map(({ name, key }) => [name, key]));
  const layers: WrittenLayer[] = [];
  const replaced = new Map<string, OutgoingTensor[]>(); // by layer
  const gained: string[] = [];
  let storage: RecordStorage = "f16";
  for (const name of names) {
    throwIfAborted(signal);
    const key = stored.get(name) ?? plainKey(source, name);
    const record = await first(name);
    const refused = linearRefusal(format, name, recordShape(record), activations);
    if (refused !== undefined) return { refused };
    storage = record.storage;
    const { tensors, setting } = writeRecord(record);
    const ownBias = record.bias !== undefined;
    const bias = ownBias || source.tensors.info(`${key}.bias`) !== undefined;
    if (ownBias && hasBias.get(name) === false) gained.push(name);
    layers.push({ name, key, setting: format === "vptq" ? { ...setting, bias } : setting });
    replaced.set(
      key,
      tensors.map(({ name: field, dtype, shape }) => ({
        name: `${key}.${field}`,
        dtype,
        shape,
        read: async () => bytesOf(await again(name), field),
      })),
    );
  }
  const { tensors, order } = replaceTensors(job, replaced);
  const nameOf = new Map(layers.map(({ key, name }) => [key, name]));
  const again = readInOrder(
    order.map((key) => nameOf.get(key) ?? key),
    async (name) => writeRecord(await load(name)).tensors,
  );
  return { format, tensors: withProgress(tensors, job), layers, storage, biases: gainedBiases(source, gained) };
}

/** The tensors of the source, with those of each replaced layer where its first one was, and the order of these layers. */
function replaceTensors(
  { source, vectors }: QuantizedCheckpoint,
  replaced: ReadonlyMap<string, OutgoingTensor[]>,
): { tensors: OutgoingTensor[]; order: string[] } {
  const done = new Set<string>();
  const tensors = source.tensors.names.flatMap((name) => {
    const owner = ownerOf(name, replaced);
    const own = owner === undefined ? undefined : replaced.get(owner);
    if (owner !== undefined && own && source.format === "plain" && name === `${owner}.bias`) {
      if (own.some((tensor) => tensor.name === name)) return []; // the record has its own
    } else if (owner !== undefined && own) {
      if (done.has(owner)) return [];
      done.add(owner);
      return own;
    }
    const values = vectors?.get(canonicalName(source.model, name));
    return [values ? changed(source, name, values) : copyOf(source.tensors, name)];
  });
  return { tensors, order: [...done] };
}

function plainKey({ tensors, folder }: CheckpointModel, name: string): string {
  const weight = findKey(`${name}.weight`, (key) => tensors.info(key) !== undefined);
  if (weight === undefined) throw formatError(`${folder.name} has no ${name}.weight to be replaced`);
  return weight.slice(0, -".weight".length);
}

/** Without the zeros that AutoGPTQ stores as the bias of linears that have none. */
function withoutPadding(record: QuantizedRecord, hasBias: boolean): QuantizedRecord {
  if (hasBias || record.bias?.some((value) => value !== 0) !== false) return record;
  const { bias: _, ...rest } = record;
  return rest;
}

/**
 * What config.json must say so that biases are read that a method added. Throws "unsupported" where the family has no word for
 * it, or where only some of the linears that the word means gained one.
 */
function gainedBiases(source: CheckpointModel, gained: readonly string[]): JsonObject {
  if (gained.length === 0) return {};
  const family = findFamily(source.model.family);
  const words = { attention_bias: ["query", "key", "value", "output"], mlp_bias: ["gate", "up", "down"] } as const;
  const can = { attention_bias: family.attentionBias, mlp_bias: family.mlpBias };
  const have = new Set(gained);
  const result: JsonObject = {};
  for (const [word, slots] of Object.entries(words) as [keyof typeof words, readonly LinearSlot[]][]) {
    const meant = allLinears(source.model).filter(({ slot }) => slots.includes(slot));
    if (can[word] !== "configured" || !meant.every(({ name }) => have.has(name))) continue;
    result[word] = true;
    for (const { name } of meant) have.delete(name);
  }
  if (have.size === 0) return result;
  throw unsupportedError(
    `${[...have][0]} has a bias, and config.json of ${source.model.family} cannot say so of ${have.size} linears alone`,
    "give every linear of the attention or of the MLP one, zeros where it has none",
  );
}

function bytesOf(tensors: LayerTensor[], field: string): Uint8Array {
  const tensor = tensors.find(({ name }) => name === field);
  if (!tensor) throw formatError(`the record changed while it was written: ${field} is gone`);
  return tensor.bytes();
}

/** A tensor of the source with other values, in the type that it has there. */
function changed({ tensors }: CheckpointModel, name: string, values: Float32Array): OutgoingTensor {
  const info = tensors.info(name);
  if (!info || sizeOf(info.shape) !== values.length) {
    throw formatError(`tensor ${name}: ${values.length} new values do not fit its shape [${info?.shape}]`);
  }
  const { dtype, shape } = info;
  checkFinite(name, values, shape);
  const stored =
    dtype === "f16" ? f32ToF16(values) : dtype === "bf16" ? f32ToBF16(values) : dtype === "f32" ? values : undefined;
  if (!stored) throw formatError(`tensor ${name} holds ${dtype}: expected f16, bf16 or f32`);
  const back = stored instanceof Float32Array ? stored : dtype === "f16" ? f16ToF32(stored) : bf16ToF32(stored);
  const over = back.findIndex((value) => !Number.isFinite(value));
  if (over >= 0) {
    throw numericError(
      `tensor ${name}: ${values[over]} is out of the range of ${dtype}`,
      "lower --let-lr, or use --no-let",
    );
  }
  return { name, dtype, shape, read: async () => bytesView(stored) };
}

const CHUNK = 16 * 2 ** 20;

function copyOf(tensors: TensorReader, name: string): OutgoingTensor {
  const info = tensors.info(name);
  if (!info) throw formatError(`tensor ${name} is missing from ${tensors.name}`);
  return {
    name,
    dtype: info.dtype,
    shape: info.shape,
    async *read() {
      for (let offset = 0; offset < info.bytes; offset += CHUNK) {
        yield await tensors.readRange(name, offset, Math.min(CHUNK, info.bytes - offset));
      }
    },
  };
}

function withProgress(tensors: OutgoingTensor[], job: QuantizedCheckpoint): OutgoingTensor[] {
  const total = tensors.reduce((sum, tensor) => sum + tensorBytes(tensor), 0);
  let written = 0;
  return tensors.map((tensor) => ({
    ...tensor,
    read() {
      throwIfAborted(job.signal);
      written += tensorBytes(tensor);
      job.onTensor?.(written, total);
      return tensor.read();
    },
  }));
}
