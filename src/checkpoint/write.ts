import { formatError, numericError, throwIfAborted, usageError } from "../errors.js";
import { bytesOf as bytesView } from "../files/dtypes.js";
import type { OutputFolder } from "../files/folder.js";
import type { JsonObject } from "../files/json.js";
import { type OutgoingTensor, tensorBytes, writeCheckpointTensors } from "../files/safetensors-writer.js";
import type { TensorReader } from "../files/tensors.js";
import type { ActivationScheme } from "../model/activation-scheme.js";
import { canonicalName, checkFinite, findKey } from "../model/weights.js";
import type { RecordLayout } from "../quant/bits.js";
import type { QuantizedRecord, RecordStorage } from "../quant/record.js";
import { BYTES_PER_ELEMENT, bf16ToF32, type DType, f16ToF32, f32ToBF16, f32ToF16 } from "../tensor/index.js";
import { bitwrightLayout } from "./bitwright.js";
import { carryFiles, withDtype, writeJson } from "./carry.js";
import type { LayerTensor } from "./layout.js";
import { type CheckpointModel, CONFIG_FILE, REPORT_FILE } from "./open.js";
import { vptqLayout } from "./vptq.js";

export interface QuantizedCheckpoint {
  /** The full-precision model: its other tensors and files are copied. */
  source: CheckpointModel;
  output: OutputFolder;
  /** Canonical names of the quantized linears; each record is read twice, one at a time. */
  names: readonly string[];
  record(name: string): Promise<QuantizedRecord>;
  /** Values in place of the source's, by canonical tensor name: norms and biases that a method changed. */
  vectors?: ReadonlyMap<string, Float32Array>;
  /** How activations are quantized when the model runs; only our own layout says so. */
  activations?: ActivationScheme;
  /** Default: the published VPTQ layout if it holds every record, else our own. */
  format?: RecordLayout;
  /** Contents of bitwright.json. */
  report?: JsonObject;
  maxShardBytes?: number;
  onTensor?: (written: number, total: number) => void;
  signal?: AbortSignal;
}

export interface WrittenCheckpoint {
  format: RecordLayout;
  /** Why the published layout was not chosen, when it was not asked for. */
  reason?: string;
  tensorBytes: number;
}

/** Writes a quantized checkpoint, tensor by tensor, and commits it; on failure the output is discarded. */
export async function writeQuantizedCheckpoint(job: QuantizedCheckpoint): Promise<WrittenCheckpoint> {
  try {
    if (job.source.format !== "plain") {
      throw usageError(`${job.source.folder.name} is quantized already`, "start from the full-precision checkpoint");
    }
    const { layout, reason, tensors, settings, storage } = await chooseLayout(job);
    const quantization =
      layout === "vptq"
        ? { quant_method: "vptq", config_for_layers: settings }
        : { quant_method: "bitwright", version: 1, ...activationWords(job.activations), layers: settings };
    await carryFiles(job.source.folder, job.output);
    const bytes = await writeCheckpointTensors(job.output, tensors, job.maxShardBytes);
    if (job.report) await writeJson(job.output, REPORT_FILE, job.report);
    const config = { ...withDtype(job.source.config, storage), quantization_config: quantization };
    await writeJson(job.output, CONFIG_FILE, config);
    await job.output.commit();
    return { format: layout, reason, tensorBytes: bytes };
  } catch (error) {
    await job.output.discard();
    throw error;
  }
}

const activationWords = (activations: ActivationScheme | undefined) => (activations ? { activations } : {});

/** The layout asked for, or the published one if it holds every record. Throws "usage" when the one asked for cannot. */
async function chooseLayout(job: QuantizedCheckpoint): Promise<Plan> {
  if (job.format === "bitwright") return planTensors(job, "bitwright");
  const plan = job.activations
    ? { refused: "the quantization of activations (--activations, --kv)" }
    : await planTensors(job, "vptq");
  if (!("refused" in plan)) return plan;
  if (job.format === undefined) return { ...(await planTensors(job, "bitwright")), reason: plan.refused };
  throw usageError(
    `the published VPTQ layout cannot hold ${plan.refused}`,
    "write the bitwright layout, or quantize these layers otherwise",
  );
}

interface Plan {
  layout: RecordLayout;
  reason?: string;
  tensors: OutgoingTensor[];
  settings: { [name: string]: unknown };
  storage: RecordStorage;
}

async function planTensors(job: QuantizedCheckpoint, layout: "bitwright"): Promise<Plan>;
async function planTensors(job: QuantizedCheckpoint, layout: RecordLayout): Promise<Plan | { refused: string }>;
/** Every tensor in the source's order, with the quantized linears' own in place of their weights. */
async function planTensors(job: QuantizedCheckpoint, layout: RecordLayout): Promise<Plan | { refused: string }> {
  const { source, names, signal } = job;
  const { accepts, write } = layout === "vptq" ? vptqLayout : bitwrightLayout;
  const settings: { [name: string]: unknown } = {};
  const replaced = new Map<string, OutgoingTensor[]>();
  const own = new Set<string>();
  const again = lastOf(async (name) => write(await job.record(name)).tensors);
  let storage: RecordStorage = "f16";
  for (const name of names) {
    throwIfAborted(signal);
    const weight = findKey(`${name}.weight`, (key) => source.tensors.info(key) !== undefined);
    if (weight === undefined) throw formatError(`${source.folder.name} has no ${name}.weight to be replaced`);
    const key = weight.slice(0, -".weight".length);
    const record = await job.record(name);
    const accepted = accepts(record);
    if (accepted !== true) return { refused: `${name}: ${accepted}` };
    storage = record.storage;
    const { tensors, setting } = write(record);
    if (layout === "vptq") {
      const bias = record.bias !== undefined || source.tensors.info(`${key}.bias`) !== undefined;
      settings[name] = { ...setting, bias };
    } else settings[key] = setting;
    replaced.set(
      weight,
      tensors.map(({ name: field, dtype, shape }) => {
        own.add(`${key}.${field}`);
        return { name: `${key}.${field}`, dtype, shape, read: async () => bytesOf(await again(name), field) };
      }),
    );
  }
  const tensors = source.tensors.names.flatMap((name) => {
    const values = job.vectors?.get(canonicalName(source.model, name));
    return (
      replaced.get(name) ??
      (own.has(name) ? [] : [values ? changed(source, name, values) : copyOf(source.tensors, name)])
    );
  });
  return { layout, tensors: withProgress(tensors, job), settings, storage };
}

/** Remembers the last result only: the tensors of a layer are asked for one after another. */
function lastOf<T>(load: (name: string) => Promise<T>): (name: string) => Promise<T> {
  let last: { name: string; result: Promise<T> } | undefined;
  return (name) => {
    if (last?.name !== name) last = { name, result: load(name) };
    return last.result;
  };
}

function bytesOf(tensors: LayerTensor[], field: string): Uint8Array {
  const tensor = tensors.find(({ name }) => name === field);
  if (!tensor) throw formatError(`the record changed while it was written: ${field} is gone`);
  return tensor.bytes;
}

/** A tensor of the source with other values, in the type that it has there. */
function changed({ tensors }: CheckpointModel, name: string, values: Float32Array): OutgoingTensor {
  const info = tensors.info(name);
  if (info?.bytes !== values.length * BYTES_PER_ELEMENT[info?.dtype as DType]) {
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
