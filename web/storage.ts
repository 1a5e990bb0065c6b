import { ioError } from "../src/errors.js";
import { type Journal, memoryJournal, type SpillFile } from "../src/index.js";

// Where a job keeps what is finished: the origin's private file system, which outlives the page, or else memory.

/** Folder of the journals, one folder in it a job. */
const JOURNALS = "bitwright-journals";
/** Jobs whose unfinished work is kept. */
const KEPT = 3;
const HEADER = "job.json";
/** Beginning of the names of scratch files. */
const SCRATCH = "bitwright-activations-";

export interface JournalStore {
  /** Of the job with this key. */
  open(key: string): Promise<Journal>;
  /** Its finished linears. */
  count(key: string): Promise<number>;
  remove(key: string): Promise<void>;
  /** True when it outlives the page. */
  readonly lasting: boolean;
}

/** The private file system, unless the browser has none that writes atomically, or another page of ours is using it. */
export async function openStore(): Promise<JournalStore> {
  try {
    if (!("createWritable" in FileSystemFileHandle.prototype) || !(await takeLock())) return memoryStore();
    const root = await navigator.storage.getDirectory();
    for (const [name] of await entriesOf(root)) if (name.startsWith(SCRATCH)) await root.removeEntry(name); // of a page that died
    return diskStore(await root.getDirectoryHandle(JOURNALS, { create: true }));
  } catch {
    return memoryStore(); // a private window
  }
}

/** Milliseconds that another page of ours, such as this one before it was reloaded, has to end. */
const PATIENCE = 2000;

/** Held until the worker ends. */
function takeLock(): Promise<boolean> {
  return new Promise((taken) => {
    const hold = () => {
      taken(true);
      return new Promise(() => {});
    };
    navigator.locks.request(JOURNALS, { signal: AbortSignal.timeout(PATIENCE) }, hold).catch(() => taken(false));
  });
}

function memoryStore(): JournalStore {
  const journals = new Map<string, { journal: Journal; units: Set<string> }>();
  return {
    lasting: false,
    async open(key) {
      const known = journals.get(key);
      if (known) return known.journal;
      journals.clear(); // memory is dear: one job
      const inner = memoryJournal();
      const units = new Set<string>();
      const journal: Journal = {
        ...inner,
        async write(name, bytes) {
          await inner.write(name, bytes);
          if (isUnit(name)) units.add(name);
        },
        async clear() {
          await inner.clear();
          units.clear();
        },
      };
      journals.set(key, { journal, units });
      return journal;
    },
    count: async (key) => journals.get(key)?.units.size ?? 0,
    remove: async (key) => void journals.delete(key),
  };
}

const isUnit = (name: string): boolean => name.endsWith(".unit");

/** An entry is written to a file of its own, which the browser puts in place when it is closed. */
function diskStore(root: FileSystemDirectoryHandle): JournalStore {
  const folderOf = (key: string) => root.getDirectoryHandle(key).catch(ignoreMissing);
  const remove = async (key: string) => void (await root.removeEntry(key, { recursive: true }).catch(ignoreMissing));
  return {
    lasting: true,
    async open(key) {
      await dropOldest(root, key);
      return {
        async read(name) {
          const file = await (await folderOf(key))?.getFileHandle(encodeURIComponent(name)).catch(ignoreMissing);
          return file && new Uint8Array(await (await file.getFile()).arrayBuffer());
        },
        async write(name, bytes) {
          try {
            const folder = await root.getDirectoryHandle(key, { create: true });
            const file = await folder.getFileHandle(encodeURIComponent(name), { create: true });
            const stream = await file.createWritable();
            for (const part of bytes instanceof Uint8Array ? [bytes] : bytes) await stream.write(part.slice());
            await stream.close();
          } catch (error) {
            throw storageError("what is finished", error);
          }
        },
        clear: () => remove(key),
      };
    },
    async count(key) {
      const folder = await folderOf(key);
      let units = 0;
      if (folder) for (const [name] of await entriesOf(folder)) if (isUnit(name)) units++;
      return units;
    },
    remove,
  };
}

const storageError = (what: string, error: unknown) =>
  ioError(
    `${what} could not be put into the browser's storage: ${error instanceof Error ? error.message : error}`,
    "free space on the disk, or clear the data of other pages in the browser",
    error,
  );

function ignoreMissing(error: unknown): undefined {
  if (error instanceof DOMException && error.name === "NotFoundError") return undefined;
  throw error;
}

async function entriesOf(folder: FileSystemDirectoryHandle): Promise<[string, FileSystemHandle][]> {
  const entries: [string, FileSystemHandle][] = [];
  for await (const entry of folder.entries()) entries.push(entry);
  return entries;
}

async function dropOldest(root: FileSystemDirectoryHandle, key: string): Promise<void> {
  const others: { name: string; at: number }[] = [];
  for (const [name, handle] of await entriesOf(root)) {
    if (name === key || !(handle instanceof FileSystemDirectoryHandle)) continue;
    const header = await handle.getFileHandle(HEADER).catch(ignoreMissing);
    others.push({ name, at: header ? (await header.getFile()).lastModified : 0 });
  }
  others.sort((a, b) => b.at - a.at);
  for (const { name } of others.slice(KEPT - 1)) await root.removeEntry(name, { recursive: true });
}

/** What only workers have, and the types of the page do not know. */
interface SyncAccess {
  read(into: Uint8Array, at: { at: number }): number;
  write(from: Uint8Array, at: { at: number }): number;
  close(): void;
}

/** A scratch file of the private file system, for activations that memory has no room for; removed when it is closed. */
export async function createSpill(): Promise<SpillFile> {
  const root = await navigator.storage.getDirectory();
  const name = `${SCRATCH}${crypto.randomUUID()}`;
  const file = await root.getFileHandle(name, { create: true });
  const access = await (file as unknown as { createSyncAccessHandle(): Promise<SyncAccess> }).createSyncAccessHandle();
  return {
    async write(offset, bytes) {
      const own = bytes.slice(); // never a view of shared memory
      try {
        for (let done = 0; done < own.length; ) done += access.write(own.subarray(done), { at: offset + done });
      } catch (error) {
        throw storageError("activations", error);
      }
    },
    async read(offset, length) {
      const bytes = new Uint8Array(length);
      const got = access.read(bytes, { at: offset });
      if (got !== length) throw new Error(`the scratch file ends at ${offset + got}`);
      return bytes;
    },
    async close() {
      access.close();
      await root.removeEntry(name);
    },
  };
}
