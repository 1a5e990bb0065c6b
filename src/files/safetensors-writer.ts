import { formatError, unsupportedError, usageError } from "../errors.js";
import { storedBytes, storedName } from "./dtypes.js";
import type { ByteSink, OutputFolder } from "./folder.js";
import { HEADER_LIMITS } from "./safetensors-header.js";
import { INDEX_FILE, SINGLE_FILE } from "./sharded.js";
import type { StoredDType } from "./tensors.js";

/** A tensor to be written; its bytes are asked for when its turn comes. */
export interface OutgoingTensor {
  name: string;
  dtype: StoredDType;
  shape: readonly number[];
  /** All bytes, little-endian, in one piece or several. */
  read(): Promise<Uint8Array> | AsyncIterable<Uint8Array>;
}

export const tensorBytes = (tensor: Pick<OutgoingTensor, "dtype" | "shape">): number =>
  tensor.shape.reduce((product, size) => product * size, storedBytes(tensor.dtype));

/**
 * The order in the file: as given, but tensors whose size is no multiple of 8 bytes come last, wide elements first. So every
 * tensor begins at a multiple of its element size, which some readers need.
 */
function alignedOrder<T extends Pick<OutgoingTensor, "dtype" | "shape">>(tensors: readonly T[]): T[] {
  const whole = tensors.filter((tensor) => tensorBytes(tensor) % 8 === 0);
  const ragged = tensors.filter((tensor) => tensorBytes(tensor) % 8 !== 0);
  return [...whole, ...ragged.sort((a, b) => storedBytes(b.dtype) - storedBytes(a.dtype))];
}

/** Writes one safetensors file, front to back; at most one tensor is in memory. Closes the sink. */
export async function writeSafetensors(
  sink: ByteSink,
  tensors: readonly OutgoingTensor[],
  metadata: Readonly<Record<string, string>> = { format: "pt" },
): Promise<void> {
  const ordered = alignedOrder(tensors);
  await sink.write(headerBytes(ordered, metadata));
  for (const tensor of ordered) {
    let written = 0;
    const source = tensor.read();
    for await (const bytes of Symbol.asyncIterator in source ? source : once(source)) {
      written += bytes.byteLength;
      await sink.write(bytes);
    }
    if (written !== tensorBytes(tensor)) {
      throw formatError(
        `tensor ${tensor.name}: shape [${tensor.shape.join(", ")}] takes ${tensorBytes(tensor)} bytes, its source gave ${written}`,
      );
    }
  }
  await sink.close();
}

async function* once(bytes: Promise<Uint8Array>): AsyncIterable<Uint8Array> {
  yield await bytes;
}

function headerBytes(tensors: readonly OutgoingTensor[], metadata: Readonly<Record<string, string>>): Uint8Array {
  const header = new Map<string, unknown>([["__metadata__", metadata]]);
  let offset = 0;
  for (const tensor of tensors) {
    if (header.has(tensor.name)) throw usageError(`two tensors are called ${tensor.name}`);
    const end = offset + tensorBytes(tensor);
    header.set(tensor.name, { dtype: storedName(tensor.dtype), shape: tensor.shape, data_offsets: [offset, end] });
    offset = end;
  }
  // entry by entry: an object would put names that look like numbers first
  const entries = [...header].map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`);
  const json = new TextEncoder().encode(`{${entries.join(",")}}`);
  const padded = Math.ceil(json.length / 8) * 8;
  if (padded > HEADER_LIMITS.bytes)
    throw unsupportedError(`a header of ${padded} bytes is more than the format allows`);
  const result = new Uint8Array(8 + padded).fill(0x20);
  new DataView(result.buffer).setBigUint64(0, BigInt(padded), true);
  result.set(json, 8);
  return result;
}

/** Hugging Face's default. */
export const DEFAULT_SHARD_BYTES = 5e9;

/** Splits tensors into shards of at most `maxShardBytes`, in order; a larger tensor gets a shard of its own. */
export function planShards<T extends Pick<OutgoingTensor, "dtype" | "shape">>(
  tensors: readonly T[],
  maxShardBytes: number,
): T[][] {
  const shards: T[][] = [];
  let room = 0;
  for (const tensor of tensors) {
    const bytes = tensorBytes(tensor);
    if (shards.length === 0 || bytes > room) {
      shards.push([]);
      room = maxShardBytes;
    }
    shards[shards.length - 1].push(tensor);
    room -= bytes;
  }
  return shards;
}

/** Writes tensors as `model.safetensors`, or as shards with their index. Returns the bytes of all tensors. */
export async function writeCheckpointTensors(
  output: OutputFolder,
  tensors: readonly OutgoingTensor[],
  maxShardBytes = DEFAULT_SHARD_BYTES,
): Promise<number> {
  const shards = planShards(tensors, maxShardBytes);
  const totalBytes = tensors.reduce((sum, tensor) => sum + tensorBytes(tensor), 0);
  if (shards.length <= 1) {
    await writeSafetensors(await output.create(SINGLE_FILE), tensors);
    return totalBytes;
  }
  const number = (value: number) => String(value).padStart(5, "0");
  const weightMap: [string, string][] = [];
  for (const [index, shard] of shards.entries()) {
    const file = `model-${number(index + 1)}-of-${number(shards.length)}.safetensors`;
    await writeSafetensors(await output.create(file), shard);
    for (const { name } of shard) weightMap.push([name, file]);
  }
  const index = { metadata: { total_size: totalBytes }, weight_map: Object.fromEntries(weightMap) };
  const sink = await output.create(INDEX_FILE);
  await sink.write(new TextEncoder().encode(`${JSON.stringify(index, null, 2)}\n`));
  await sink.close();
  return totalBytes;
}

const UNITS: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/** Bytes of a size like "5GB", "500 MiB" or "1000000". Throws "usage". */
export function parseByteSize(text: string): number {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?b)?\s*$/i.exec(text);
  const unit = match && UNITS[(match[2] ?? "").toLowerCase()];
  const bytes = match && unit ? Math.floor(Number(match[1]) * unit) : Number.NaN;
  if (!Number.isSafeInteger(bytes) || bytes < 1) {
    throw usageError(`${JSON.stringify(text.slice(0, 50))} is not a size`, "write it like 5GB, 500MB or 2GiB");
  }
  return bytes;
}
