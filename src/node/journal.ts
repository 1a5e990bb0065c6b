import { mkdir, open, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Journal } from "../pipeline/journal.js";
import { diskError, errorCode, readBytes } from "./folder.js";
import { writeFileAtomic } from "./output.js";

/** A journal in a folder of its own, made at the first write; each entry is synced and renamed into place. */
export function diskJournal(folder: string): Journal & { remove(): Promise<void> } {
  const pathOf = (name: string) => join(folder, encodeURIComponent(name));
  let isMade = false;
  return {
    async read(name) {
      try {
        return await readWhole(pathOf(name));
      } catch (error) {
        if (errorCode(error) === "ENOENT") return undefined;
        throw diskError(error, `the journal entry ${pathOf(name)} could not be read`);
      }
    },
    async write(name, bytes) {
      if (!isMade) await mkdir(folder, { recursive: true });
      isMade = true;
      await writeFileAtomic(pathOf(name), bytes);
    },
    async clear() {
      for (const name of await entriesOf(folder)) await rm(join(folder, name), { recursive: true, force: true });
    },
    remove() {
      isMade = false;
      return rm(folder, { recursive: true, force: true });
    },
  };
}

/** `readFile` refuses 2 GiB, which the state of a large block's training exceeds. */
async function readWhole(path: string): Promise<Uint8Array> {
  const handle = await open(path, "r");
  try {
    return await readBytes(handle, 0, (await handle.stat()).size);
  } finally {
    await handle.close();
  }
}

const entriesOf = (folder: string): Promise<string[]> =>
  readdir(folder).catch((error: unknown) => {
    if (errorCode(error) === "ENOENT") return [];
    throw error;
  });
