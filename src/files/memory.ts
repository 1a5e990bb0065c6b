import { formatError, ioError, usageError } from "../errors.js";
import type { ByteSink, ByteSource, Folder, OutputFolder } from "./folder.js";
import { checkPlainName } from "./names.js";

/** Throws "format" unless the range lies within the file. */
export function checkRange(name: string, size: number, offset: number, length: number): void {
  const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length);
  if (whole && offset >= 0 && length >= 0 && offset + length <= size) return;
  throw formatError(`${name}: bytes ${offset} to ${offset + length} lie outside the file of ${size} bytes`);
}

export const missingFile = (folder: string, name: string) =>
  ioError(`there is no file ${name} in ${folder}`, "check that the checkpoint is complete");

/** A ByteSource over bytes in memory; reads are views, not copies. */
export function memorySource(name: string, bytes: Uint8Array): ByteSource {
  return {
    name,
    size: bytes.byteLength,
    async read(offset, length) {
      checkRange(name, bytes.byteLength, offset, length);
      return bytes.subarray(offset, offset + length);
    },
    close: async () => {},
  };
}

/** A folder of byte arrays. */
export function memoryFolder(name: string, files: ReadonlyMap<string, Uint8Array>): Folder {
  return {
    name,
    list: async () => [...files.keys()].sort(),
    async open(file) {
      checkPlainName(file, name);
      const bytes = files.get(file);
      if (!bytes) throw missingFile(name, file);
      return memorySource(`${name}/${file}`, bytes);
    },
  };
}

/** A folder of Blobs or Files, as a browser hands them out; bytes are read when they are asked for. */
export function blobFolder(name: string, files: ReadonlyMap<string, Blob>): Folder {
  return {
    name,
    list: async () => [...files.keys()].sort(),
    async open(file) {
      checkPlainName(file, name);
      const blob = files.get(file);
      if (!blob) throw missingFile(name, file);
      const label = `${name}/${file}`;
      return {
        name: label,
        size: blob.size,
        async read(offset, length) {
          checkRange(label, blob.size, offset, length);
          try {
            return new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer());
          } catch (cause) {
            throw ioError(`${label} could not be read`, "the file may have changed or gone: choose it again", cause);
          }
        },
        close: async () => {},
      };
    },
  };
}

/** An output whose files are there, whole, after `commit`. */
interface CollectedOutput<T> extends OutputFolder {
  readonly files: Map<string, T>;
}

/** An output held in memory; `files` is filled by `commit`. */
export type MemoryOutput = CollectedOutput<Uint8Array>;

/** An output of Blobs, for a browser, which keeps large ones on its disk; `files` is filled by `commit`. */
export type BlobOutput = CollectedOutput<Blob>;

export const memoryOutput = (): MemoryOutput => collectedOutput((bytes) => bytes.slice(), joinBytes);

export const blobOutput = (): BlobOutput =>
  collectedOutput(
    (bytes) => new Blob([bytes.slice()]),
    (parts) => new Blob(parts),
  );

/** `hold` keeps what is written, `join` makes the parts one file. */
function collectedOutput<P, T>(hold: (bytes: Uint8Array) => P, join: (parts: P[]) => T): CollectedOutput<T> {
  const pending = new Map<string, T>();
  const names = new Set<string>();
  const files = new Map<string, T>();
  return {
    files,
    async create(name): Promise<ByteSink> {
      checkPlainName(name, "the output");
      if (names.has(name)) throw usageError(`the output already has a file ${name}`);
      names.add(name);
      const parts: P[] = [];
      return {
        write: async (bytes) => void parts.push(hold(bytes)),
        close: async () => void pending.set(name, join(parts)),
      };
    },
    async commit() {
      for (const [name, file] of pending) files.set(name, file);
      pending.clear();
      names.clear();
    },
    async discard() {
      pending.clear();
      names.clear();
    },
  };
}

/** A copy of all parts, one after the other. */
export function joinBytes(parts: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    joined.set(part, offset);
    offset += part.length;
  }
  return joined;
}
