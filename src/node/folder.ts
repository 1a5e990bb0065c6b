import { type FileHandle, open, readdir, realpath, stat } from "node:fs/promises";
import { basename, dirname, join, resolve, sep } from "node:path";
import { formatError, ioError, usageError } from "../errors.js";
import type { ByteSource, Folder } from "../files/folder.js";
import { decodeText, JSON_BYTES, parseJson } from "../files/json.js";
import { checkRange, missingFile } from "../files/memory.js";
import { checkPlainName } from "../files/names.js";

/** Most bytes asked of one system call; Node refuses 2 GiB and more, or counts them in 32 bits. */
export const CALL_BYTES = 2 ** 30;

export const errorCode = (error: unknown): string | undefined =>
  error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;

/** A folder on disk. Throws "usage" when there is none. */
export async function openFolder(path: string): Promise<Folder> {
  const root = await realpath(path).catch(() => undefined);
  const info = root === undefined ? undefined : await stat(root);
  if (root === undefined || !info) {
    throw usageError(`there is no folder ${path}`, "give the folder of a Hugging Face checkpoint");
  }
  if (!info.isDirectory()) throw usageError(`${path} is not a folder`, `did you mean ${dirname(path)}?`);
  return {
    name: path,
    async list() {
      const entries = await readdir(root, { withFileTypes: true });
      return entries
        .filter((entry) => entry.isFile() || entry.isSymbolicLink())
        .map((entry) => entry.name)
        .sort();
    },
    async open(name) {
      checkPlainName(name, path);
      return openFile(await resolveInside(root, name, path), join(path, name));
    },
  };
}

/**
 * The real path of a file of the folder. Links may point into the folder, or, as in the Hugging Face cache
 * (snapshots/REVISION/FILE -> ../../blobs/HASH), into its grandparent's `blobs`.
 */
async function resolveInside(root: string, name: string, shown: string): Promise<string> {
  let real: string;
  try {
    real = await realpath(join(root, name));
  } catch (error) {
    if (errorCode(error) === "ENOENT") throw missingFile(shown, name);
    throw ioError(`${join(shown, name)} could not be opened`, "check the permissions", error);
  }
  const allowed = [root, join(dirname(dirname(root)), "blobs")];
  if (!allowed.some((folder) => real.startsWith(folder.endsWith(sep) ? folder : folder + sep))) {
    throw ioError(
      `${join(shown, name)} is a link to ${real}, outside the folder`,
      "copy the file into the folder if it belongs there",
    );
  }
  return real;
}

/** Opens one file of the disk for reading. `shown` is its name in messages. */
export async function openFile(path: string, shown = path): Promise<ByteSource> {
  let handle: FileHandle;
  try {
    if (!(await stat(path)).isFile()) throw ioError(`${shown} is not a regular file`);
    handle = await open(path, "r");
  } catch (error) {
    if (errorCode(error) === "ENOENT") throw missingFile(dirname(shown), basename(shown));
    throw diskError(error, `${shown} could not be opened`);
  }
  const { size } = await handle.stat();
  return {
    name: shown,
    size,
    async read(offset, length) {
      checkRange(shown, size, offset, length);
      const bytes = await readBytes(handle, offset, length).catch((error: unknown) => {
        throw diskError(error, `${shown} could not be read`);
      });
      if (bytes.length < length) throw formatError(`${shown} became shorter while it was read`);
      return bytes;
    },
    close: () => handle.close(),
  };
}

/** `length` bytes from `offset` on, of any number; fewer where the file ends before. */
export async function readBytes(handle: FileHandle, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await handle.read(bytes, done, Math.min(CALL_BYTES, length - done), offset + done);
    if (bytesRead === 0) return bytes.subarray(0, done);
    done += bytesRead;
  }
  return bytes;
}

/** A JSON file by its path: "io" when it cannot be read, "format" when it is not JSON. */
export async function readJsonFile(path: string, limit = JSON_BYTES): Promise<unknown> {
  const source = await openFile(resolve(path), path);
  try {
    if (source.size > limit) throw formatError(`${path} has ${source.size} bytes, more than the ${limit} allowed`);
    return parseJson(decodeText(await source.read(0, source.size), path), path);
  } finally {
    await source.close();
  }
}

/** What the operating system said, as an "io" error; errors of our own pass through. */
export function diskError(error: unknown, what: string): Error {
  const code = errorCode(error);
  if (error instanceof Error && code === undefined) return error;
  switch (code) {
    case "ENOSPC":
    case "EDQUOT":
      return ioError(`${what}: the disk is full`, "free some space or choose another place, then run again", error);
    case "EFBIG":
      return ioError(`${what}: the file would be larger than the disk allows`, "use a smaller --max-shard-size", error);
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return ioError(`${what}: not permitted (${code})`, "check the permissions, or choose another place", error);
    case "EMFILE":
    case "ENFILE":
      return ioError(`${what}: too many files are open`, "raise the limit (ulimit -n)", error);
    default:
      return ioError(`${what}: ${error instanceof Error ? error.message : String(error)}`, undefined, error);
  }
}
