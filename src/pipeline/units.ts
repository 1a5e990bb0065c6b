import { joinBytes } from "../files/memory.js";
import type { LinearMetrics } from "../quant/method.js";
import type { QuantizedRecord } from "../quant/record.js";
import type { Journal } from "./journal.js";

/** A finished linear as the journal keeps it. */
export interface Unit {
  name: string;
  record: QuantizedRecord;
  metrics: LinearMetrics;
  seconds: number;
}

// Layout: "BWUNIT1\0", u32 header bytes, header JSON with arrays as { $array: [type, offset, length] }, padding to 8, the arrays.

const MAGIC = "BWUNIT1\0";
const TYPES = { Uint8Array, Uint16Array, Uint32Array, Int32Array, Float32Array } as const;
type TypeName = keyof typeof TYPES;
type Lifted = { $array: [TypeName, number, number] };

const align = (offset: number): number => Math.ceil(offset / 8) * 8;

/** Any plain value with typed arrays in it, as bytes. */
export const encodeArrays = (value: object): Uint8Array => joinBytes(arrayParts(value));

/** The same bytes in parts, without a copy of the arrays: for what is large. */
export function arrayParts(value: object): Uint8Array[] {
  const arrays: Uint8Array[] = [];
  let end = 0;
  const header = JSON.stringify(value, (_key, item: unknown) => {
    if (!ArrayBuffer.isView(item)) return item;
    const type = item.constructor.name as TypeName;
    const array = item as InstanceType<(typeof TYPES)[TypeName]>;
    const offset = end;
    end = align(end + array.byteLength);
    arrays.push(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
    arrays.push(new Uint8Array(end - offset - array.byteLength)); // padding
    return { $array: [type, offset, array.length] } satisfies Lifted;
  });
  const headerBytes = new TextEncoder().encode(header);
  const start = align(MAGIC.length + 4 + headerBytes.length);
  const head = new Uint8Array(start);
  head.set(new TextEncoder().encode(MAGIC));
  new DataView(head.buffer).setUint32(MAGIC.length, headerBytes.length, true);
  head.set(headerBytes, MAGIC.length + 4);
  return [head, ...arrays];
}

/** What `encodeArrays` was given; undefined when the bytes are not whole. The arrays are views of the bytes where these are aligned. */
export function decodeArrays(given: Uint8Array): unknown {
  const bytes = given.byteOffset % 8 === 0 ? given : given.slice();
  const prefix = MAGIC.length + 4;
  if (bytes.length < prefix || new TextDecoder().decode(bytes.subarray(0, MAGIC.length)) !== MAGIC) return undefined;
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(MAGIC.length, true);
  if (prefix + length > bytes.length) return undefined;
  const start = align(prefix + length);
  try {
    return JSON.parse(new TextDecoder().decode(bytes.subarray(prefix, prefix + length)), (_key, value: unknown) => {
      if (value === null || typeof value !== "object" || !("$array" in value)) return value;
      const [type, offset, count] = (value as Lifted).$array;
      const bytesPerElement = TYPES[type].BYTES_PER_ELEMENT;
      if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(count)) throw new RangeError("not an array");
      if (offset < 0 || count < 0 || start + offset + count * bytesPerElement > bytes.length)
        throw new RangeError("array outside");
      return new TYPES[type](bytes.buffer as ArrayBuffer, bytes.byteOffset + start + offset, count);
    });
  } catch {
    return undefined;
  }
}

const entryName = (linear: string): string => `${linear}.unit`;

/** Puts a finished linear into the journal. */
export const writeUnit = (journal: Journal, unit: Unit): Promise<void> =>
  journal.write(entryName(unit.name), encodeUnit(unit));

/** A finished linear of the journal; undefined when it is not there whole. */
export async function readUnit(journal: Journal, name: string): Promise<Unit | undefined> {
  const bytes = await journal.read(entryName(name));
  return bytes && decodeUnit(bytes, name);
}

export const encodeUnit = (unit: Unit): Uint8Array => encodeArrays(unit);

/** Undefined when the bytes are not a whole unit of that name: the work is then done again. */
export function decodeUnit(bytes: Uint8Array, name: string): Unit | undefined {
  const unit = decodeArrays(bytes) as Unit | undefined;
  if (unit?.name !== name) return undefined;
  return unit.record?.kind === "affine" || unit.record?.kind === "codebook" ? unit : undefined;
}
