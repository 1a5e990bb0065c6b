import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { platform } from "node:process";
import { fileURLToPath } from "node:url";
import { type Koffi, loadKoffi } from "../../src/engine/koffi.js";

export interface Built {
  koffi: Koffi;
  /** With the libraries by the names that were asked for. */
  folder: string;
  /** Deletes the folder. */
  remove(): void;
}

/** Compiles <source>.c of this folder to shared libraries by the names given, or says why that cannot be done here. */
export async function buildLibraries(libraries: Readonly<Record<string, string>>): Promise<Built | { reason: string }> {
  if (platform !== "linux") return { reason: `the fakes of CUDA are for Linux, this is ${platform}` };
  const loaded = await loadKoffi();
  if ("reason" in loaded) return loaded;
  const folder = mkdtempSync(join(tmpdir(), "bitwright-fake-"));
  const remove = () => rmSync(folder, { recursive: true, force: true });
  for (const [source, name] of Object.entries(libraries)) {
    const path = fileURLToPath(new URL(`${source}.c`, import.meta.url));
    const options = ["-shared", "-fPIC", "-O1", "-std=c11", "-Wall", "-Wextra", "-Werror", `-Wl,-soname,${name}`];
    try {
      execFileSync("cc", [...options, "-o", join(folder, name), path], { stdio: "pipe" });
    } catch (error) {
      remove();
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      return { reason: "there is no C compiler (cc)" };
    }
  }
  return { koffi: loaded.koffi, folder, remove };
}
