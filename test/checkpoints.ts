import { expect } from "vitest";
import { openCheckpointModel } from "../src/checkpoint/open.js";
import { writeQuantizedCheckpoint } from "../src/checkpoint/write.js";
import { BitwrightError } from "../src/errors.js";
import type { Folder } from "../src/files/folder.js";
import type { JsonObject } from "../src/files/json.js";
import { type MemoryOutput, memoryFolder, memoryOutput } from "../src/files/memory.js";
import { type OutgoingTensor, writeCheckpointTensors } from "../src/files/safetensors-writer.js";
import type { StoredDType } from "../src/files/tensors.js";
import { blockLinears } from "../src/model/block.js";
import { parseModelConfig } from "../src/model/config.js";
import type { CheckpointFormat } from "../src/quant/bits.js";
import type { AffineRecord, CodebookRecord, QuantizedRecord } from "../src/quant/record.js";
import { f32ToBF16, f32ToF16, roundToF16 } from "../src/tensor/index.js";

// A small random checkpoint in memory, and the same quantized to anything.

export const CONFIG = {
  architectures: ["Qwen2ForCausalLM"],
  model_type: "qwen2",
  hidden_size: 12,
  intermediate_size: 20,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  vocab_size: 9,
  rms_norm_eps: 1e-6,
  torch_dtype: "bfloat16",
  custom: { kept: true },
};
export const LINEARS = [0, 1].flatMap((index) => blockLinears(parseModelConfig(CONFIG), index));

let seed = 1;
export const random = () => {
  seed = (Math.imul(seed, 48271) >>> 0) % 2147483647;
  return seed / 2147483647 - 0.5;
};
export const text = (value: unknown) =>
  new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value));

export interface ModelOptions {
  prefix?: string;
  config?: JsonObject;
  replace?: Record<string, Float32Array>;
}

/** A small random Qwen2 checkpoint in bf16. */
export async function model({ prefix = "model.", config = CONFIG, replace = {} }: ModelOptions = {}): Promise<Folder> {
  const tensors: OutgoingTensor[] = [];
  const add = (name: string, shape: number[], dtype: StoredDType = "bf16") => {
    const values = replace[name] ?? Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, random);
    const bits = dtype === "f16" ? f32ToF16(values) : f32ToBF16(values);
    tensors.push({
      name: name.replace(/^model\./, prefix),
      dtype,
      shape,
      read: async () => new Uint8Array(bits.buffer),
    });
  };
  add("model.embed_tokens.weight", [9, 12]);
  for (const { name, rows, columns, bias } of LINEARS) {
    add(`${name}.weight`, [rows, columns]);
    if (bias) add(`${name}.bias`, [rows]);
  }
  for (const layer of [0, 1]) {
    add(`model.layers.${layer}.input_layernorm.weight`, [12]);
    add(`model.layers.${layer}.post_attention_layernorm.weight`, [12]);
  }
  add("model.norm.weight", [12]);
  add("lm_head.weight", [9, 12], "f16");
  const output = memoryOutput();
  await writeCheckpointTensors(output, tensors);
  await output.commit();
  output.files.set("config.json", text(config));
  output.files.set("tokenizer.json", text({ tokens: [] }));
  output.files.set("chat_template.jinja", text("{{ messages }}"));
  output.files.set("training_args.bin", text("not for us"));
  return memoryFolder("model", output.files);
}

export const reals = (count: number) => Float32Array.from({ length: count }, () => roundToF16(random()));

export function codebookRecord(rows: number, columns: number, parts: Partial<CodebookRecord> = {}): CodebookRecord {
  const stage = { codewords: 8, indices: new Uint16Array(Math.ceil(rows / 4) * columns), centroids: reals(32) };
  for (let i = 0; i < stage.indices.length; i++) stage.indices[i] = (random() + 0.5) * 8;
  const segments = [{ begin: 0, end: columns, vectorLength: 4, stages: [stage] }];
  return { kind: "codebook", storage: "f16", rows, columns, hasOutliers: false, segments, ...parts };
}

export function affineRecord(rows: number, columns: number): AffineRecord {
  const groups = rows * Math.ceil(columns / 5);
  return {
    kind: "affine",
    storage: "f16",
    rows,
    columns,
    bits: 3,
    symmetric: false,
    group: 5,
    codes: Uint8Array.from({ length: rows * columns }, () => (random() + 0.5) * 8),
    scale: reals(groups),
    zero: Uint8Array.from({ length: groups }, () => (random() + 0.5) * 8),
  };
}

export type MakeRecord = (rows: number, columns: number, name: string) => QuantizedRecord;

/** Quantizes every linear (to anything), writes and opens again. */
export async function quantized(
  make: MakeRecord,
  options: ModelOptions & { format?: CheckpointFormat; shard?: number } = {},
) {
  const source = await openCheckpointModel(await model(options));
  const records = new Map(LINEARS.map(({ name, rows, columns }) => [name, make(rows, columns, name)]));
  const output = memoryOutput();
  const written = await writeQuantizedCheckpoint({
    source,
    output,
    names: [...records.keys()],
    record: async (name) => records.get(name) ?? expect.unreachable(),
    format: options.format,
    maxShardBytes: options.shard,
    report: { recipe: { method: "vptq" } },
  });
  return { source, records, output, written };
}

export const folderOf = (output: MemoryOutput) => memoryFolder("out", output.files);
export const jsonOf = (output: MemoryOutput, name: string) =>
  JSON.parse(new TextDecoder().decode(output.files.get(name))) as JsonObject;

export async function refusal(promise: Promise<unknown>): Promise<BitwrightError> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (error instanceof BitwrightError) return error;
  throw new Error(`expected a refusal, got ${String(error)}`);
}
