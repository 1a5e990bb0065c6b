// A .zip of files as they are (stored, not compressed: quantized weights do not shrink), after PKWARE's APPNOTE 6.3.3. The
// parts stay Blobs: nothing is copied through memory. ZIP64 fields where a size or an offset needs more than 32 bits.

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/** CRC-32 (ISO 3309) of all bytes so far; begin with 0. */
export function crc32(bytes: Uint8Array, before = 0): number {
  let crc = ~before;
  for (let i = 0; i < bytes.length; i++) crc = TABLE[(crc ^ bytes[i]) & 0xff] ^ (crc >>> 8);
  return ~crc >>> 0;
}

const CHUNK = 16 * 2 ** 20;

async function crcOf(blob: Blob): Promise<number> {
  let crc = 0;
  for (let offset = 0; offset < blob.size; offset += CHUNK) {
    crc = crc32(new Uint8Array(await blob.slice(offset, offset + CHUNK).arrayBuffer()), crc);
  }
  return crc;
}

const MOST_32 = 0xffffffff;
/** The least date that the format knows, 1 January 1980: the same files give the same archive. */
const DATE = 0x0021;
const UTF8_NAMES = 0x0800;
/** The system whose attributes a file has, and those of one that its owner may write and all may read. */
const UNIX = 3 << 8;
const PLAIN_FILE = 0o100644 * 2 ** 16;

/** Numbers in little-endian order: [value, bytes]. */
function fields(...values: [value: number, bytes: 2 | 4 | 8][]): Uint8Array<ArrayBuffer> {
  const result = new Uint8Array(values.reduce((sum, [, bytes]) => sum + bytes, 0));
  const view = new DataView(result.buffer);
  let offset = 0;
  for (const [value, bytes] of values) {
    if (bytes === 2) view.setUint16(offset, value, true);
    else if (bytes === 4) view.setUint32(offset, value, true);
    else view.setBigUint64(offset, BigInt(value), true);
    offset += bytes;
  }
  return result;
}

/** The archive, with every file in a folder of this name. From `limit` on, numbers go to ZIP64 fields. */
export async function zipOf(folder: string, files: ReadonlyMap<string, Blob>, limit = MOST_32): Promise<Blob> {
  const capped = (value: number): number => (value >= limit ? MOST_32 : value);
  const parts: BlobPart[] = [];
  const directory: BlobPart[] = [];
  let offset = 0;
  let directoryBytes = 0;
  for (const [file, blob] of files) {
    const name = new TextEncoder().encode(`${folder}/${file}`);
    const { size } = blob;
    const crc = await crcOf(blob);
    const isLarge = size >= limit;
    const isFar = offset >= limit;
    // both sizes in a local header, as the format demands; in the directory only what does not fit
    const localExtra = isLarge ? fields([1, 2], [16, 2], [size, 8], [size, 8]) : new Uint8Array();
    const numbers = [...(isLarge ? [size, size] : []), ...(isFar ? [offset] : [])].map((n): [number, 8] => [n, 8]);
    const extra = numbers.length > 0 ? fields([1, 2], [8 * numbers.length, 2], ...numbers) : new Uint8Array();
    const version = isLarge || isFar ? 45 : 20;
    const common: [number, 2 | 4][] = [
      [version, 2],
      [UTF8_NAMES, 2],
      [0, 2], // stored
      [0, 2], // midnight
      [DATE, 2],
      [crc, 4],
      [capped(size), 4],
      [capped(size), 4],
      [name.length, 2],
    ];
    const local = fields([0x04034b50, 4], ...common, [localExtra.length, 2]);
    parts.push(local, name, localExtra, blob);
    const entry = fields(
      [0x02014b50, 4],
      [UNIX + version, 2],
      ...common,
      [extra.length, 2],
      [0, 2], // comment
      [0, 2], // disk
      [0, 2], // internal attributes
      [PLAIN_FILE, 4],
      [capped(offset), 4],
    );
    directory.push(entry, name, extra);
    directoryBytes += entry.length + name.length + extra.length;
    offset += local.length + name.length + localExtra.length + size;
  }
  const end: BlobPart[] = [];
  if (offset >= limit || directoryBytes >= limit) {
    end.push(
      fields(
        [0x06064b50, 4],
        [44, 8],
        [45, 2],
        [45, 2],
        [0, 4],
        [0, 4],
        [files.size, 8],
        [files.size, 8],
        [directoryBytes, 8],
        [offset, 8],
      ),
      fields([0x07064b50, 4], [0, 4], [offset + directoryBytes, 8], [1, 4]),
    );
  }
  end.push(
    fields(
      [0x06054b50, 4],
      [0, 2],
      [0, 2],
      [files.size, 2],
      [files.size, 2],
      [capped(directoryBytes), 4],
      [capped(offset), 4],
      [0, 2],
    ),
  );
  return new Blob([...parts, ...directory, ...end], { type: "application/zip" });
}
