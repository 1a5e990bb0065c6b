import { randomBytes } from "node:crypto";
import { type FileHandle, mkdir, open, readdir, rename, rm, rmdir, stat, statfs } from "node:fs/promises";
import { hostname } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { ioError, usageError } from "../errors.js";
import type { ByteSink, OutputFolder } from "../files/folder.js";
import { checkPlainName } from "../files/names.js";
import { WriteBehind } from "../files/write-behind.js";
import { CALL_BYTES, diskError, errorCode } from "./folder.js";

export interface OutputOptions {
  /** Replace an existing checkpoint; it stays until the new one stands. */
  overwrite?: boolean;
  /** Bytes that will be written, as far as known: refused at once when the disk has less room. */
  expectedBytes?: number;
}

/**
 * A folder that appears as a whole: files are written into `OUT.partial-HOST-PID` beside it, synced, and renamed by `commit`.
 * Throws "usage" when OUT exists and may not be replaced, "io" when the disk is too small.
 */
export async function createOutput(path: string, options: OutputOptions = {}): Promise<OutputFolder> {
  const target = resolve(path);
  const parent = dirname(target);
  const partial = `${target}.partial-${OWNER}${process.pid}`;
  const replaced = `${target}.replaced-${OWNER}${process.pid}`;
  if (inUse.has(partial)) throw usageError(`the output ${path} is being written already`);
  try {
    await mkdir(parent, { recursive: true });
    await cleanUp(target);
    await checkTarget(target, path, options.overwrite ?? false);
    await checkRoom(parent, options.expectedBytes ?? 0, path);
    await mkdir(partial);
  } catch (error) {
    throw diskError(error, `the output ${path} could not be begun`);
  }
  inUse.add(partial);
  const names = new Set<string>();
  const handles = new Map<string, FileHandle>();
  return {
    async create(name) {
      checkPlainName(name, path);
      if (names.has(name)) throw usageError(`the output already has a file ${name}`);
      names.add(name);
      const shown = join(path, name);
      let handle: FileHandle;
      try {
        handle = await open(join(partial, name), "wx");
      } catch (error) {
        throw diskError(error, `${shown} could not be created`);
      }
      handles.set(name, handle);
      const sink = fileSink(handle, shown);
      return {
        write: (bytes) => sink.write(bytes),
        async close() {
          await sink.close();
          handles.delete(name);
        },
      };
    },
    async commit() {
      if (handles.size > 0) throw ioError(`files of the output are still open: ${[...handles.keys()].join(", ")}`);
      try {
        await syncFolder(partial);
        await replace(partial, target, replaced);
        await syncFolder(parent);
      } catch (error) {
        throw diskError(error, `the output ${path} could not be put in place`);
      }
      inUse.delete(partial);
      await rm(replaced, { recursive: true, force: true });
    },
    async discard() {
      for (const handle of handles.values()) await handle.close().catch(() => {});
      handles.clear();
      if (inUse.delete(partial)) await rm(partial, { recursive: true, force: true });
    },
  };
}

/** Marks names beside an output as this machine's; the process's number follows. */
const OWNER = `${hostname().replace(/[^\w-]/g, "_")}-`;

/** Outputs that this process is writing. */
const inUse = new Set<string>();

/** A system that is not asked to leaves the disk idle at first, and has it all to do at the end. */
const SYNC_BYTES = 2 ** 25;

/** A sink over an open file; `close` syncs. Disk errors are "io" errors that name the file. */
export function fileSink(handle: FileHandle, shown: string): ByteSink {
  let offset = 0;
  let asked = 0;
  /** The sync under way. It fails of what the ones after it may not be told of. */
  let syncing: Promise<void> | undefined;
  const behind = new WriteBehind();
  const beginSync = () => {
    asked = offset;
    const own = handle.datasync().then(() => {
      syncing = undefined;
    });
    own.catch(() => {}); // told by `close`
    syncing = own;
  };
  const writeAll = async (bytes: Uint8Array) => {
    try {
      for (let done = 0; done < bytes.byteLength; ) {
        const { bytesWritten } = await handle.write(bytes, done, Math.min(CALL_BYTES, bytes.byteLength - done), offset);
        done += bytesWritten;
        offset += bytesWritten;
      }
      if (offset - asked >= SYNC_BYTES && !syncing) beginSync();
    } catch (error) {
      await handle.close().catch(() => {});
      throw diskError(error, `${shown} could not be written past byte ${offset}`);
    }
  };
  return {
    write: (bytes) => behind.add(() => writeAll(bytes)),
    async close() {
      await behind.end();
      try {
        await syncing;
        await handle.sync();
        await handle.close();
      } catch (error) {
        throw diskError(error, `${shown} could not be synced`);
      }
    },
  };
}

/** Writes a file so that it is there whole or not at all: a temporary name beside it, sync, rename. */
export async function writeFileAtomic(path: string, bytes: Uint8Array | readonly Uint8Array[] | string): Promise<void> {
  const target = resolve(path);
  const temporary = join(dirname(target), `.${basename(target)}.${process.pid}-${randomBytes(4).toString("hex")}.tmp`);
  const whole = typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes;
  try {
    const handle = await open(temporary, "wx");
    try {
      await writeParts(handle, whole instanceof Uint8Array ? [whole] : whole);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, target);
    await syncFolder(dirname(target));
  } catch (error) {
    await rm(temporary, { force: true });
    throw diskError(error, `${path} could not be written`);
  }
}

/**
 * In few calls, of CALL_BYTES at most: each takes a turn of the event loop, and a long work has few of them.
 */
async function writeParts(handle: FileHandle, parts: readonly Uint8Array[]): Promise<void> {
  let left = parts.filter(({ byteLength }) => byteLength > 0);
  while (left.length > 0) {
    const { bytesWritten } = await handle.writev(bytesOfParts(left, 0, CALL_BYTES));
    if (!(bytesWritten > 0)) throw new Error(`${bytesWritten} bytes were written`);
    left = bytesOfParts(left, bytesWritten, Number.POSITIVE_INFINITY);
  }
}

/** Bytes [begin, end) of all parts one after the other, without a copy. */
export function bytesOfParts(parts: readonly Uint8Array[], begin: number, end: number): Uint8Array[] {
  let at = 0;
  return parts.flatMap((part) => {
    const [from, to] = [Math.max(0, begin - at), Math.min(part.byteLength, end - at)];
    at += part.byteLength;
    return from < to ? [part.subarray(from, to)] : [];
  });
}

/** Makes a rename in the folder last. Windows has no such call for folders. */
async function syncFolder(path: string): Promise<void> {
  if (process.platform === "win32") return;
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function replace(from: string, to: string, aside: string): Promise<void> {
  const there = await listFolder(to);
  if (there?.length === 0) await rmdir(to);
  else if (there) await rename(to, aside);
  try {
    await rename(from, to);
  } catch (error) {
    if (there && there.length > 0) await rename(aside, to);
    throw error;
  }
}

const listFolder = async (path: string) =>
  readdir(path, { withFileTypes: true }).catch((error: unknown) => {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  });

async function checkTarget(target: string, shown: string, overwrite: boolean): Promise<void> {
  const info = await stat(target).catch(() => undefined);
  if (!info) return;
  if (!info.isDirectory()) throw usageError(`the output ${shown} is a file`, "give the name of a new folder");
  const entries = (await listFolder(target)) ?? [];
  if (entries.length === 0) return;
  if (!overwrite) {
    throw usageError(`the output folder ${shown} exists`, "choose another name, or replace it with --overwrite");
  }
  // a slip of the hand must not remove a home folder
  const isCheckpoint = entries.some((entry) => entry.name === "config.json");
  if (!isCheckpoint || entries.some((entry) => entry.isDirectory())) {
    throw usageError(
      `the output folder ${shown} does not look like a checkpoint (a config.json and no folders), it will not be replaced`,
      "choose another name, or remove it yourself",
    );
  }
}

async function checkRoom(parent: string, bytes: number, shown: string): Promise<void> {
  const { bavail, bsize } = await statfs(parent);
  const free = bavail * bsize;
  if (bytes <= free) return;
  throw ioError(
    `the output ${shown} needs about ${megabytes(bytes)}, the disk has ${megabytes(free)} left`,
    "free some space or choose another place",
  );
}

const megabytes = (bytes: number): string => `${Math.ceil(bytes / 1e6).toLocaleString("en-US")} MB`;

/** Removes what killed runs of this machine left beside the target, and puts back a checkpoint that was being replaced. */
async function cleanUp(target: string): Promise<void> {
  for (const { name } of (await listFolder(dirname(target))) ?? []) {
    for (const kind of [".partial-", ".replaced-"]) {
      const prefix = basename(target) + kind + OWNER;
      const pid = name.startsWith(prefix) ? Number(name.slice(prefix.length)) : Number.NaN;
      if (!Number.isSafeInteger(pid) || pid <= 0 || (pid !== process.pid && isAlive(pid))) continue;
      const path = join(dirname(target), name);
      if (kind === ".replaced-" && !(await listFolder(target))) await rename(path, target);
      else await rm(path, { recursive: true, force: true });
    }
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errorCode(error) !== "ESRCH";
  }
}
