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

/** An output held in memory; `files` is filled by `commit`. */
export interface MemoryOutput extends OutputFolder {
  readonly files: Map<string, Uint8Array>;
}

export function memoryOutput(): MemoryOutput {
  const pending = new Map<string, Uint8Array>();
  const files = new Map<string, Uint8Array>();
  return {
    files,
    async create(name): Promise<ByteSink> {
      checkPlainName(name, "the output");
      if (pending.has(name)) throw usageError(`the output already has a file ${name}`);
      pending.set(name, new Uint8Array());
      const parts: Uint8Array[] = [];
      return {
        write: async (bytes) => void parts.push(bytes.slice()),
        async close() {
          const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
          let offset = 0;
          for (const part of parts) {
            joined.set(part, offset);
            offset += part.length;
          }
          pending.set(name, joined);
        },
      };
    },
    async commit() {
      for (const [name, bytes] of pending) files.set(name, bytes);
      pending.clear();
    },
    discard: async () => pending.clear(),
  };
}
