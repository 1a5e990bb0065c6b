import { usageError } from "../errors.js";
import type { OutputFolder } from "../files/folder.js";
import { type CheckpointFormat, shapeBits } from "../quant/bits.js";
import { allLinears } from "./find-layers.js";
import { activationsRefusal, blockFacts, formatRefused, linearRefusal, recordLayout } from "./formats.js";
import type { CheckpointModel } from "./open.js";
import { type WrittenCheckpoint, writeQuantizedCheckpoint } from "./write.js";

// A quantized checkpoint in another format: the same codes, scales and zeros, so the same weights.

export interface ExportJob {
  source: CheckpointModel;
  output: OutputFolder;
  format: CheckpointFormat;
  maxShardBytes?: number;
  onTensor?: (written: number, total: number) => void;
  signal?: AbortSignal;
}

export interface ExportPlan {
  linears: number;
  /** All that will be stored of the quantized linears, over their weights. */
  bitsPerWeight: number;
}

/**
 * What an export will be, from headers alone. Throws "usage" when the checkpoint is not quantized, or the format cannot hold it
 * (an act-order shows only when the records are read).
 */
export function planExport(source: CheckpointModel, format: CheckpointFormat): ExportPlan {
  const { layers, activations, model, folder } = source;
  if (source.format === "plain") {
    throw usageError(`${folder.name} is not quantized`, `bitwright quantize ${folder.name} -o OUT --format ${format}`);
  }
  const quantized = new Set(layers.map(({ name }) => name));
  const facts = blockFacts(allLinears(model), (name) => quantized.has(name));
  const refusal =
    activationsRefusal(format, activations, facts) ??
    layers
      .map(({ name, shape }) => linearRefusal(format, name, shape, activations))
      .find((reason) => reason !== undefined);
  if (refusal !== undefined) throw formatRefused(format, refusal);
  let bits = 0;
  let weights = 0;
  for (const { shape } of layers) {
    bits += shapeBits(shape, recordLayout(format, shape, activations)).total;
    weights += shape.rows * shape.columns;
  }
  return { linears: layers.length, bitsPerWeight: bits / weights };
}

/** Writes a quantized checkpoint in another format, a linear at a time. On failure the output is discarded. */
export async function exportCheckpoint(job: ExportJob): Promise<WrittenCheckpoint & ExportPlan> {
  const { source } = job;
  let plan: ExportPlan;
  try {
    plan = planExport(source, job.format);
  } catch (error) {
    await job.output.discard();
    throw error;
  }
  const written = await writeQuantizedCheckpoint({
    ...job,
    names: source.layers.map(({ name }) => name),
    record: (name) => source.record(name),
    activations: source.activations,
    report: await source.report(),
  });
  return { ...written, ...plan };
}
