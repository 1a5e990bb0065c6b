import { formatError } from "../errors.js";
import type { Folder } from "./folder.js";

export type JsonObject = { [key: string]: unknown };

export const isObject = (value: unknown): value is JsonObject =>
  value !== null && typeof value === "object" && !Array.isArray(value);

/** Most bytes of a JSON file, unless its reader says otherwise; the largest tokenizers have about 35 MB. */
export const JSON_BYTES = 128 * 2 ** 20;

/** UTF-8 text; anything else is a "format" error. */
export function decodeText(bytes: Uint8Array, where: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw formatError(`${where} is not UTF-8 text`);
  }
}

/** Deepest nesting of a JSON file: JSON.parse has no bound, but whatever walks or writes its result recurses. */
const DEPTH = 200;

export function parseJson(text: string, where: string): unknown {
  checkDepth(text, where);
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message.slice(0, 200) : "";
    throw formatError(`${where} is not JSON: ${reason}`, "the file may be truncated: fetch it again");
  }
}

function checkDepth(text: string, where: string): void {
  let depth = 0;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (inString) {
      if (code === 0x5c) i++;
      else if (code === 0x22) inString = false;
    } else if (code === 0x22) inString = true;
    else if (code === 0x7b || code === 0x5b) {
      if (++depth > DEPTH) throw formatError(`${where} is JSON nested more than ${DEPTH} deep`);
    } else if (code === 0x7d || code === 0x5d) depth--;
  }
}

/** The whole of a small file. Larger than `limit` bytes is a "format" error. */
export async function readFile(folder: Folder, name: string, limit: number): Promise<Uint8Array> {
  const source = await folder.open(name);
  try {
    if (source.size > limit) {
      throw formatError(
        `${folder.name}/${name} has ${source.size} bytes, more than the ${limit} that such a file may have`,
      );
    }
    return await source.read(0, source.size);
  } finally {
    await source.close();
  }
}

/** A JSON file; not JSON, not UTF-8 or larger than `limit` bytes is a "format" error. */
export async function readJson(folder: Folder, name: string, limit = JSON_BYTES): Promise<unknown> {
  const where = `${folder.name}/${name}`;
  return parseJson(decodeText(await readFile(folder, name, limit), where), where);
}

/** A JSON file that must hold an object. */
export async function readJsonObject(folder: Folder, name: string, limit = JSON_BYTES): Promise<JsonObject> {
  const value = await readJson(folder, name, limit);
  if (!isObject(value)) throw formatError(`${folder.name}/${name}: expected a JSON object`);
  return value;
}
