import { formatError, unsupportedError } from "../errors.js";
import type { Folder } from "./folder.js";
import { isObject, readJsonObject } from "./json.js";
import { checkPlainName } from "./names.js";
import { openSafetensors } from "./safetensors.js";
import { HEADER_LIMITS } from "./safetensors-header.js";
import type { TensorReader } from "./tensors.js";

export const SINGLE_FILE = "model.safetensors";
export const INDEX_FILE = "model.safetensors.index.json";

const SHARDS = 4096;

/**
 * The tensors of a Hugging Face checkpoint: `model.safetensors`, or the shards of its index, or the only safetensors file
 * there is. Reads headers only.
 */
export async function openCheckpoint(folder: Folder): Promise<TensorReader> {
  const files = await folder.list();
  if (files.includes(SINGLE_FILE)) return openSafetensors(await folder.open(SINGLE_FILE));
  if (files.includes(INDEX_FILE)) return openShards(folder, files);
  const others = files.filter((file) => file.endsWith(".safetensors"));
  if (others.length === 1) return openSafetensors(await folder.open(others[0]));
  if (others.length > 1) {
    throw formatError(
      `${folder.name} has ${others.length} safetensors files (${others.slice(0, 3).join(", ")}, ...) but no ${INDEX_FILE}`,
      "fetch the index of the checkpoint too",
    );
  }
  const pickle = files.find((file) => /\.(bin|pt|pth|ckpt)$/.test(file));
  if (pickle) {
    throw unsupportedError(
      `${folder.name} holds its weights as pickled PyTorch (${pickle}), which runs code when it is read`,
      "convert it to safetensors, or fetch the model's safetensors revision",
    );
  }
  throw formatError(
    `${folder.name} has no weights: expected ${SINGLE_FILE} or ${INDEX_FILE}`,
    "give the folder of a Hugging Face checkpoint",
  );
}

async function openShards(folder: Folder, files: readonly string[]): Promise<TensorReader> {
  const where = `${folder.name}/${INDEX_FILE}`;
  const shardOf = parseIndex(await readJsonObject(folder, INDEX_FILE), where);
  const counts = new Map<string, number>();
  for (const shard of shardOf.values()) counts.set(shard, (counts.get(shard) ?? 0) + 1);
  if (counts.size > SHARDS) throw formatError(`${where} names ${counts.size} shards, more than ${SHARDS}`);
  for (const [shard, tensors] of counts) {
    if (files.includes(shard)) continue;
    throw formatError(
      `${folder.name}: shard ${shard} is missing, the index has ${tensors} tensors in it`,
      "fetch the missing file; the checkpoint is incomplete",
    );
  }
  const readers = new Map<string, TensorReader>();
  const close = async () => {
    for (const reader of readers.values()) await reader.close();
  };
  try {
    for (const shard of [...counts.keys()].sort()) {
      readers.set(shard, await openSafetensors(await folder.open(shard)));
    }
    for (const [name, shard] of shardOf) {
      if (readers.get(shard)?.info(name)) continue;
      throw formatError(
        `tensor ${name} is missing from ${folder.name}/${shard}, where the index has it`,
        "index and shards belong to different checkpoints: fetch them again",
      );
    }
  } catch (error) {
    await close();
    throw error;
  }
  const readerOf = (name: string): TensorReader => {
    const reader = readers.get(shardOf.get(name) ?? "");
    if (!reader) throw formatError(`tensor ${name} is missing from ${folder.name}`);
    return reader;
  };
  return {
    name: folder.name,
    // shard by shard, as they lie on the disk
    names: [...readers].flatMap(([shard, reader]) => reader.names.filter((name) => shardOf.get(name) === shard)),
    info: (name) => readers.get(shardOf.get(name) ?? "")?.info(name),
    readRaw: async (name) => readerOf(name).readRaw(name),
    readRange: async (name, offset, length) => readerOf(name).readRange(name, offset, length),
    readF32: async (name) => readerOf(name).readF32(name),
    close,
  };
}

/** Shard of each tensor. */
export function parseIndex(index: Record<string, unknown>, where: string): Map<string, string> {
  const map = index.weight_map;
  if (!isObject(map)) throw formatError(`${where}: expected "weight_map", an object of tensor names and shard files`);
  const shards = new Map<string, string>();
  for (const [name, shard] of Object.entries(map)) {
    if (typeof shard !== "string") throw formatError(`${where}: the shard of ${name.slice(0, 100)} is not a file name`);
    try {
      checkPlainName(shard, where);
    } catch (cause) {
      throw formatError(`${where}: ${cause instanceof Error ? cause.message : String(cause)}`);
    }
    shards.set(name, shard);
  }
  if (shards.size === 0 || shards.size > HEADER_LIMITS.tensors) {
    throw formatError(`${where} names ${shards.size} tensors, expected 1 to ${HEADER_LIMITS.tensors}`);
  }
  return shards;
}
