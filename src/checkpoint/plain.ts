import { numericError, throwIfAborted } from "../errors.js";
import { bytesOf, isFloat, viewBytes } from "../files/dtypes.js";
import type { OutputFolder } from "../files/folder.js";
import { type OutgoingTensor, writeCheckpointTensors } from "../files/safetensors-writer.js";
import type { TensorReader } from "../files/tensors.js";
import { dequantize } from "../quant/dequantize.js";
import { bf16ToF32, f16ToF32, f32ToBF16, f32ToF16 } from "../tensor/index.js";
import { carryFiles, withDtype, writeJson } from "./carry.js";
import { ownerOf } from "./find-layers.js";
import { type CheckpointModel, CONFIG_FILE } from "./open.js";

export interface PlainCheckpoint {
  source: CheckpointModel;
  output: OutputFolder;
  /** Type of every real tensor in the output. Default: what config.json says, else f16. */
  dtype?: "f16" | "bf16";
  maxShardBytes?: number;
  onTensor?: (name: string) => void;
  signal?: AbortSignal;
}

/**
 * Writes a plain Hugging Face checkpoint: quantized linears decoded and rounded to `dtype`, everything else converted. Commits
 * the output, or discards it on failure. Throws "numeric" when a value overflows the type. Returns the bytes of all tensors.
 */
export async function writePlainCheckpoint(job: PlainCheckpoint): Promise<number> {
  const { source, output } = job;
  try {
    const dtype = job.dtype ?? (source.model.dtype === "bf16" ? "bf16" : "f16");
    await carryFiles(source.folder, output);
    const bytes = await writeCheckpointTensors(output, outgoing(job, dtype), job.maxShardBytes);
    await writeJson(output, CONFIG_FILE, withDtype(source.config, dtype));
    await output.commit();
    return bytes;
  } catch (error) {
    await output.discard();
    throw error;
  }
}

function outgoing(job: PlainCheckpoint, dtype: "f16" | "bf16"): OutgoingTensor[] {
  const { source, signal } = job;
  const layers = new Map(source.layers.map((layer) => [layer.key, layer]));
  const written = new Set<string>();
  const tensors: OutgoingTensor[] = [];
  for (const name of source.tensors.names) {
    const key = ownerOf(name, layers);
    if (key === undefined || name === `${key}.bias`) tensors.push(converted(source.tensors, name, dtype));
    const layer = key === undefined ? undefined : layers.get(key);
    if (!layer || written.has(layer.key)) continue;
    written.add(layer.key);
    const { rows, columns } = layer.shape;
    const weight = `${layer.key}.weight`;
    tensors.push({
      name: weight,
      dtype,
      shape: [rows, columns],
      read: async () => narrow(dequantize(await source.record(layer.name)), dtype, weight),
    });
  }
  return tensors.map((tensor) => ({
    ...tensor,
    read() {
      throwIfAborted(signal);
      job.onTensor?.(tensor.name);
      return tensor.read();
    },
  }));
}

const CHUNK = 16 * 2 ** 20;

/** A tensor as `dtype` if it holds real numbers, else as it is. */
function converted(tensors: TensorReader, name: string, dtype: "f16" | "bf16"): OutgoingTensor {
  const info = tensors.info(name);
  const from = info?.dtype ?? "u8";
  const bytes = info?.bytes ?? 0;
  const convert = isFloat(from) && from !== dtype;
  return {
    name,
    dtype: convert ? dtype : from,
    shape: info?.shape ?? [],
    async *read() {
      for (let offset = 0; offset < bytes; offset += CHUNK) {
        const chunk = await tensors.readRange(name, offset, Math.min(CHUNK, bytes - offset));
        yield convert ? narrow(widen(chunk, from), dtype, name) : chunk;
      }
    },
  };
}

function widen(bytes: Uint8Array, dtype: "f32" | "f16" | "bf16"): Float32Array {
  if (dtype === "f32") return viewBytes("f32", bytes);
  return dtype === "f16" ? f16ToF32(viewBytes("f16", bytes)) : bf16ToF32(viewBytes("bf16", bytes));
}

/** Magnitudes from here on round to infinity. */
const OVERFLOW = { f16: 65520, bf16: 2 ** 128 - 2 ** 119 } as const;

/** Rounds to nearest, ties to even. */
function narrow(values: Float32Array, dtype: "f16" | "bf16", name: string): Uint8Array {
  const bad = values.findIndex((value) => !(Math.abs(value) < OVERFLOW[dtype]));
  if (bad >= 0) {
    throw numericError(
      `tensor ${name} holds ${values[bad]} at element ${bad}, which ${dtype} cannot`,
      Number.isFinite(values[bad]) && dtype === "f16" ? "write bf16 instead" : "the checkpoint is damaged",
    );
  }
  return bytesOf(dtype === "f16" ? f32ToF16(values) : f32ToBF16(values));
}
