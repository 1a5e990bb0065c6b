import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Folder } from "../../../src/files/folder.js";
import { memoryFolder, memorySource } from "../../../src/files/memory.js";
import { openSafetensors } from "../../../src/files/safetensors.js";
import { INDEX_FILE } from "../../../src/files/sharded.js";
import type { TensorReader } from "../../../src/files/tensors.js";

// Checkpoints of wiki-7m that the official VPTQ code wrote (trim.py). Their embedding and norms are the model's own.

export const GOLDEN_CHECKPOINTS = ["v4k256-perm-norm", "v8k256R256-perm-norm"] as const;
export type GoldenCheckpoint = (typeof GOLDEN_CHECKPOINTS)[number];

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
export const goldenFile = (path: string): Uint8Array => new Uint8Array(readFileSync(at(path)));
export const goldenJson = (path: string): unknown => JSON.parse(readFileSync(at(path), "utf8"));
export const modelFile = (name: string): Uint8Array => goldenFile(`../../../models/wiki-7m/${name}`);

export const goldenTensors = (path: string): Promise<TensorReader> =>
  openSafetensors(memorySource(path, goldenFile(path)));

/** The whole checkpoint, as two shards: the quantized tensors, and the model's file for the rest. */
export async function goldenFolder(name: GoldenCheckpoint): Promise<Folder> {
  const quantized = goldenFile(`${name}/quantized.safetensors`);
  const model = modelFile("model.safetensors");
  const own = (await openSafetensors(memorySource(name, quantized))).names;
  const plain = (await openSafetensors(memorySource("wiki-7m", model))).names.filter((key) => !key.includes("proj."));
  const weight_map = Object.fromEntries([
    ...own.map((key) => [key, "quantized.safetensors"]),
    ...plain.map((key) => [key, "wiki-7m.safetensors"]),
  ]);
  return memoryFolder(
    name,
    new Map([
      ["config.json", goldenFile(`${name}/config.json`)],
      ["tokenizer.json", modelFile("tokenizer.json")],
      [INDEX_FILE, new TextEncoder().encode(JSON.stringify({ metadata: {}, weight_map }))],
      ["quantized.safetensors", quantized],
      ["wiki-7m.safetensors", model],
    ]),
  );
}

/** Tokens [64] and the first 256 logits at each, by transformers 4.49.0 with vptq 0.0.5.post1 (compare within 1e-4). */
export async function goldenLogits(name: GoldenCheckpoint): Promise<{ tokens: Int32Array; logits: Float32Array }> {
  const tensors = await goldenTensors(`${name}/logits.safetensors`);
  const tokens = new Int32Array(new Uint8Array(await tensors.readRaw("input_ids")).buffer);
  return { tokens, logits: await tensors.readF32("logits") };
}
