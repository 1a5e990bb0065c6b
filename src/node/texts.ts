import { readFile, stat } from "node:fs/promises";
import { basename, resolve } from "node:path";
import { ioError, usageError } from "../errors.js";
import { formatBytes } from "../report/format.js";
import { parseCorpus } from "../text/corpus.js";
import { packageFolder } from "./package.js";

/** Texts that come with the package, by short name (data/README.md). */
export const BUNDLED_TEXTS: Readonly<Record<string, string>> = {
  c4: "c4-slice.txt",
  wikitext2: "wikitext2-validation-slice.txt",
};

/** A string of JavaScript holds half a gigabyte. */
const MOST_BYTES = 400_000_000;

export interface NamedText {
  /** For messages and reports: the bundled name or the file's own. */
  name: string;
  text: string;
}

/**
 * The text of a bundled name or of a file (plain text, or .jsonl with a "text" field). A file called like a bundled text is
 * meant by a path, "./c4". Throws "usage" when there is no such file or it holds no text, "format" for what is not text.
 */
export async function readText(nameOrPath: string): Promise<NamedText> {
  const bundled = Object.hasOwn(BUNDLED_TEXTS, nameOrPath) ? BUNDLED_TEXTS[nameOrPath] : undefined;
  const path = bundled === undefined ? resolve(nameOrPath) : resolve(packageFolder, "data", bundled);
  const remedy = `name a text file, a .jsonl file, or one of ${Object.keys(BUNDLED_TEXTS).join(", ")}`;
  let bytes: Uint8Array;
  try {
    const { size } = await stat(path);
    if (size > MOST_BYTES) {
      throw usageError(
        `${nameOrPath} has ${formatBytes(size)}: at most ${formatBytes(MOST_BYTES)} of text can be read`,
        "give a part of it",
      );
    }
    bytes = await readFile(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") throw usageError(`there is no text file ${nameOrPath}`, remedy);
    if (code === "EISDIR") throw usageError(`${nameOrPath} is a folder, not a text file`, remedy);
    if (code !== undefined)
      throw ioError(`${nameOrPath} cannot be read: ${(error as Error).message}`, undefined, error);
    throw error;
  }
  const name = bundled === undefined ? basename(path) : nameOrPath;
  return { name, text: parseCorpus(bundled === undefined ? nameOrPath : path, bytes) };
}
