import { formatError, unsupportedError } from "../errors.js";
import { storedBytes, storedDType, storedNames } from "./dtypes.js";
import { decodeText, isObject, parseJson } from "./json.js";
import type { TensorInfo } from "./tensors.js";

// The header of a safetensors file: u64 length, JSON of that length, then the tensors without gaps. Hostile input: everything
// is bounded before it is parsed, and every product is checked.

/** What a header may have; the format itself bounds the first. */
export const HEADER_LIMITS = { bytes: 100_000_000, tensors: 250_000, rank: 32, name: 1000 } as const;

export interface HeaderEntry extends TensorInfo {
  /** From the first byte of the file. */
  readonly offset: number;
}

export interface Header {
  /** In the order in which the tensors lie in the file. */
  readonly tensors: ReadonlyMap<string, HeaderEntry>;
  readonly metadata: ReadonlyMap<string, string>;
}

/** Length of the header, from the first eight bytes. */
export function headerLength(prefix: Uint8Array, fileBytes: number, where: string): number {
  const length = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true);
  if (length > BigInt(HEADER_LIMITS.bytes)) {
    throw formatError(
      `${where}: the header claims ${length} bytes, more than the ${HEADER_LIMITS.bytes} that the format allows`,
      "this is not a safetensors file, or its first bytes are damaged",
    );
  }
  if (Number(length) > fileBytes - 8) {
    throw formatError(
      `${where}: the header claims ${length} bytes, the file has ${fileBytes - 8} after its first eight`,
      "the file is truncated: fetch it again",
    );
  }
  return Number(length);
}

/** Parses and checks the JSON of a header. */
export function parseHeader(bytes: Uint8Array, fileBytes: number, where: string): Header {
  if (bytes[0] !== 0x7b)
    throw formatError(`${where}: the header does not begin with "{"`, "this is not a safetensors file");
  const keys = countKeys(bytes, where);
  const json = parseJson(decodeText(bytes, `the header of ${where}`), `the header of ${where}`);
  if (!isObject(json)) throw formatError(`${where}: the header is not a JSON object`);

  const dataStart = 8 + bytes.length;
  const metadata = new Map<string, string>();
  const entries: [string, HeaderEntry][] = [];
  let parsedKeys = 0;
  for (const [name, value] of Object.entries(json)) {
    if (!isObject(value)) throw formatError(`${where}: the header's entry ${quote(name)} is not an object`);
    parsedKeys += 1 + Object.keys(value).length;
    if (name === "__metadata__") {
      for (const [key, text] of Object.entries(value)) {
        if (typeof text !== "string") throw formatError(`${where}: __metadata__ ${quote(key)} is not text`);
        metadata.set(key, text);
      }
    } else entries.push([name, parseEntry(name, value, dataStart, fileBytes, where)]);
  }
  // JSON.parse keeps the last of two equal keys without a word
  if (parsedKeys !== keys) throw formatError(`${where}: the header names a tensor or a property twice`);
  entries.sort(([, a], [, b]) => a.offset - b.offset || a.bytes - b.bytes);
  checkLayout(entries, dataStart, fileBytes, where);
  return { tensors: new Map(entries), metadata };
}

/** Counts keys (colons outside strings) and bounds depth and size, so that parsing cannot cost more than the limits. */
function countKeys(bytes: Uint8Array, where: string): number {
  const most = HEADER_LIMITS.tensors * 4;
  let keys = 0;
  let commas = 0;
  let depth = 0;
  let inString = false;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i];
    if (inString) {
      if (byte === 0x5c) i++;
      else if (byte === 0x22) inString = false;
    } else if (byte === 0x22) inString = true;
    else if (byte === 0x3a) keys++;
    else if (byte === 0x2c) commas++;
    else if (byte === 0x7b || byte === 0x5b) {
      // header, tensor, shape: nothing is deeper
      if (++depth > 3) throw formatError(`${where}: the header is nested deeper than any header can be`);
    } else if (byte === 0x7d || byte === 0x5d) depth--;
  }
  if (keys > most || commas > 4 * most) {
    throw formatError(`${where}: the header has more than ${HEADER_LIMITS.tensors} tensors, or absurd shapes`);
  }
  return keys;
}

function parseEntry(
  name: string,
  value: Record<string, unknown>,
  dataStart: number,
  fileBytes: number,
  where: string,
): HeaderEntry {
  const label = `${where}: tensor ${quote(name)}`;
  if (name.length === 0 || name.length > HEADER_LIMITS.name) {
    throw formatError(`${label}: a name has 1 to ${HEADER_LIMITS.name} characters, this one ${name.length}`);
  }
  const { dtype: dtypeName, shape, data_offsets: offsets } = value;
  if (typeof dtypeName !== "string") throw formatError(`${label} has no dtype`);
  const dtype = storedDType(dtypeName);
  if (!dtype) {
    throw unsupportedError(`${label} has dtype ${quote(dtypeName)}`, `known are ${storedNames().join(", ")}`);
  }
  if (!isCounts(shape) || shape.length > HEADER_LIMITS.rank) {
    throw formatError(`${label}: the shape is not a list of at most ${HEADER_LIMITS.rank} sizes`);
  }
  let bytes = storedBytes(dtype);
  for (const size of shape) bytes *= size;
  if (!isCounts(offsets) || offsets.length !== 2 || offsets[0] > offsets[1]) {
    throw formatError(`${label}: data_offsets is not [begin, end]`);
  }
  const [begin, end] = offsets;
  if (!Number.isSafeInteger(bytes) || end - begin !== bytes) {
    throw formatError(
      `${label}: ${dtypeName} of shape [${shape.join(", ")}] takes ${bytes} bytes, its data_offsets [${begin}, ${end}] hold ${end - begin}`,
    );
  }
  if (dataStart + end > fileBytes) {
    throw formatError(
      `${label} ends at byte ${dataStart + end}, the file has ${fileBytes}`,
      "the file is truncated: fetch it again",
    );
  }
  return { dtype, shape, bytes, offset: dataStart + begin };
}

/** The format wants the tensors to cover the rest of the file, without gaps or overlaps. */
function checkLayout(entries: [string, HeaderEntry][], dataStart: number, fileBytes: number, where: string): void {
  let end = dataStart;
  let previous = "the header";
  for (const [name, entry] of entries) {
    if (entry.offset !== end) {
      const what = entry.offset < end ? "overlaps" : `leaves a gap of ${entry.offset - end} bytes after`;
      throw formatError(`${where}: tensor ${quote(name)} ${what} ${previous}`, "the header is damaged");
    }
    end = entry.offset + entry.bytes;
    previous = quote(name);
  }
  if (end !== fileBytes) {
    throw formatError(`${where}: ${fileBytes - end} bytes after the last tensor belong to none`, "the file is damaged");
  }
}

const isCounts = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);

const quote = (text: string): string => JSON.stringify(text.length > 120 ? `${text.slice(0, 120)}…` : text);
