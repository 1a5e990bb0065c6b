import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Journal } from "../pipeline/journal.js";
import { diskError, errorCode } from "./folder.js";
import { writeFileAtomic } from "./output.js";

/** A journal in a folder of its own, made at the first write; each entry is synced and renamed into place. */
export function diskJournal(folder: string): Journal & { remove(): Promise<void> } {
  const pathOf = (name: string) => join(folder, encodeURIComponent(name));
  let isMade = false;
  return {
    async read(name) {
      try {
        const { buffer, byteOffset, length } = await readFile(pathOf(name));
        return new Uint8Array(buffer, byteOffset, length);
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

const entriesOf = (folder: string): Promise<string[]> =>
  readdir(folder).catch((error: unknown) => {
    if (errorCode(error) === "ENOENT") return [];
    throw error;
  });
