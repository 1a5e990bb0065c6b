import { formatError, unsupportedError } from "../errors.js";
import { bf16ToF32, f16ToF32 } from "../tensor/index.js";
import { isFloat, storedName, viewBytes } from "./dtypes.js";
import type { ByteSource } from "./folder.js";
import { checkRange } from "./memory.js";
import { type Header, headerLength, parseHeader } from "./safetensors-header.js";
import type { TensorInfo, TensorReader } from "./tensors.js";

/** Most elements of a tensor that is read as f32. */
const ELEMENTS = 2 ** 31;
/** Bytes converted at a time, so that a large tensor is not in memory twice. */
const CHUNK = 16 * 2 ** 20;

/** A safetensors file: reads its header now, and tensors when they are asked for. Takes over the source. */
export async function openSafetensors(source: ByteSource): Promise<TensorReader> {
  try {
    return readerOf(source, await readHeader(source));
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function readHeader(source: ByteSource): Promise<Header> {
  if (source.size < 8) {
    throw formatError(
      `${source.name} has ${source.size} bytes, too few for a safetensors file`,
      "the file is truncated: fetch it again",
    );
  }
  const length = headerLength(await source.read(0, 8), source.size, source.name);
  return parseHeader(await source.read(8, length), source.size, source.name);
}

function readerOf(source: ByteSource, header: Header): TensorReader {
  const entryOf = (name: string) => {
    const entry = header.tensors.get(name);
    if (!entry) throw formatError(`tensor ${name} is missing from ${source.name}`);
    return entry;
  };
  const readRange = async (name: string, offset: number, length: number): Promise<Uint8Array> => {
    const entry = entryOf(name);
    checkRange(`tensor ${name} of ${source.name}`, entry.bytes, offset, length);
    return source.read(entry.offset + offset, length);
  };
  const info = (name: string): TensorInfo | undefined => header.tensors.get(name);
  return {
    name: source.name,
    names: [...header.tensors.keys()],
    info,
    readRange,
    readRaw: async (name) => readRange(name, 0, entryOf(name).bytes),
    readF32: async (name) =>
      readAsF32(name, entryOf(name), source.name, (offset, length) => readRange(name, offset, length)),
    close: () => source.close(),
  };
}

async function readAsF32(
  name: string,
  { dtype, bytes }: TensorInfo,
  where: string,
  read: (offset: number, length: number) => Promise<Uint8Array>,
): Promise<Float32Array> {
  if (!isFloat(dtype)) {
    throw unsupportedError(
      `tensor ${name} of ${where} is ${storedName(dtype)}; numbers are read from F32, F16 and BF16`,
      "convert the checkpoint to one of these types first",
    );
  }
  const size = dtype === "f32" ? 4 : 2;
  const elements = bytes / size;
  if (elements > ELEMENTS)
    throw unsupportedError(`tensor ${name} of ${where} has ${elements} elements, at most ${ELEMENTS}`);
  const values = new Float32Array(elements);
  for (let offset = 0; offset < bytes; offset += CHUNK) {
    const chunk = await read(offset, Math.min(CHUNK, bytes - offset));
    const target = values.subarray(offset / size, (offset + chunk.length) / size);
    if (dtype === "f32") target.set(viewBytes("f32", chunk));
    else if (dtype === "f16") f16ToF32(viewBytes("f16", chunk), target);
    else bf16ToF32(viewBytes("bf16", chunk), target);
  }
  return values;
}
