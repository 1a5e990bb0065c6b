import { open, rm } from "node:fs/promises";
import { join } from "node:path";
import type { SpillFile } from "../pipeline/activations.js";
import { diskError, readBytes } from "./folder.js";

let count = 0;

/**
 * A scratch file in `folder`. Its name is removed at once where the system allows it, so that a killed run leaves nothing
 * behind; elsewhere on `close`.
 */
export async function createSpillFile(folder: string): Promise<SpillFile> {
  const path = join(folder, `.bitwright-activations-${process.pid}-${count++}`);
  const handle = await open(path, "wx+").catch((error: unknown) => {
    throw diskError(error, `the scratch file ${path} could not be created`);
  });
  if (process.platform !== "win32") await rm(path, { force: true });
  return {
    async write(offset, bytes) {
      try {
        for (let done = 0; done < bytes.byteLength; ) {
          done += (await handle.write(bytes, done, bytes.byteLength - done, offset + done)).bytesWritten;
        }
      } catch (error) {
        throw diskError(error, "activations could not be written to the scratch file");
      }
    },
    async read(offset, length) {
      const bytes = await readBytes(handle, offset, length);
      if (bytes.length < length) throw new Error(`the scratch file ends at ${offset + bytes.length}`);
      return bytes;
    },
    async close() {
      await handle.close();
      await rm(path, { force: true });
    },
  };
}
