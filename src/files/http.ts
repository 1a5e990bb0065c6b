import { type BitwrightError, formatError, ioError, unsupportedError, usageError } from "../errors.js";
import type { ByteSource, Folder } from "./folder.js";
import { checkRange, joinBytes, memorySource, missingFile } from "./memory.js";
import { checkPlainName } from "./names.js";

// Files of a web server, read in parts by Range requests (RFC 9110, section 14). The server is not trusted: what it sends is
// held against what was asked for, and never more than that is read.

/** Bytes asked of one request: a part that fails is asked for again. */
const PART = 16 * 2 ** 20;
/** Most bytes of a file whose server answers no Range request: it is read whole, at once. */
const WHOLE = 64 * 2 ** 20;
/** Bytes that are read of an answer whose body says nothing. */
const SMALL = 64 * 2 ** 10;
const ATTEMPTS = 4;
/** Milliseconds without a byte after which a request has failed. */
const PATIENCE = 30_000;
/** Milliseconds before the second attempt; each later one waits twice as long. */
const PAUSE = 500;

export interface HttpOptions {
  /** Default: the platform's. */
  fetch?: typeof fetch;
  /** Milliseconds before the second attempt. Default 500. */
  pause?: number;
}

/** What a server says of a file: its size, or all of it. */
type Found = { size: number } | { bytes: Uint8Array };

/**
 * The files of a web address that have these names: a server has no list of its own. `base` ends in "/". Asks for the first
 * byte of each; throws "io" when the server cannot be reached or refuses. `add` puts names on the list unasked.
 */
export async function httpFolder(
  base: URL,
  names: readonly string[],
  options: HttpOptions = {},
): Promise<Folder & { add(names: Iterable<string>): void }> {
  const shown = base.href.replace(/\/$/, "");
  const listed = new Set<string>();
  const found = new Map<string, Found>();
  const urlOf = (name: string): URL => new URL(encodeURIComponent(name), base);
  // the first alone: a wrong address is one failed request, not twenty
  for (const group of [names.slice(0, 1), names.slice(1)]) {
    await Promise.all(
      group.map(async (name) => {
        const file = await probe(urlOf(name), options);
        if (!file) return;
        found.set(name, file);
        listed.add(name);
      }),
    );
  }
  return {
    name: shown,
    add(more) {
      for (const name of more) listed.add(name);
    },
    list: async () => [...listed].sort(),
    async open(name) {
      checkPlainName(name, shown);
      const file = listed.has(name) ? (found.get(name) ?? (await probe(urlOf(name), options))) : undefined;
      if (!file) throw missingFile(shown, name);
      found.set(name, file);
      const label = `${shown}/${name}`;
      return "bytes" in file ? memorySource(label, file.bytes) : httpSource(urlOf(name), label, file.size, options);
    },
  };
}

function httpSource(url: URL, name: string, size: number, options: HttpOptions): ByteSource {
  return {
    name,
    size,
    async read(offset, length) {
      checkRange(name, size, offset, length);
      if (length <= PART) return readPart(url, name, size, offset, length, options);
      const bytes = new Uint8Array(length);
      for (let done = 0; done < length; done += PART) {
        bytes.set(await readPart(url, name, size, offset + done, Math.min(PART, length - done), options), done);
      }
      return bytes;
    },
    close: async () => {},
  };
}

/** Undefined where there is no such file. */
async function probe(url: URL, options: HttpOptions): Promise<Found | undefined> {
  return request(url, 0, 1, options, async ({ response, take }) => {
    if (response.status !== 200) await take(SMALL); // to its end: an answer that is broken off costs the connection
    if (response.status === 404 || response.status === 410) return undefined;
    if (response.status === 416) return { bytes: new Uint8Array() }; // an empty file has no first byte
    if (response.status === 206) {
      const range = contentRange(response);
      const size = range?.size ?? (await sizeByHead(url, options));
      if (size === undefined)
        throw unsupportedError(
          `${url.href}: the server does not say how large the file is`,
          "it must expose Content-Range or Content-Length to other origins",
        );
      return { size };
    }
    const declared = Number(response.headers.get("content-length") ?? 0);
    const whole = declared <= WHOLE ? await take(WHOLE) : undefined;
    if (whole) return { bytes: whole };
    throw unsupportedError(
      `${url.href}: the server answers no Range requests, and a file of more than ${WHOLE / 2 ** 20} MiB is not read whole`,
      "download the checkpoint and choose its folder",
    );
  });
}

async function sizeByHead(url: URL, options: HttpOptions): Promise<number | undefined> {
  const fetcher = options.fetch ?? fetch;
  const response = await fetcher(url, { ...COMMON, method: "HEAD" }).catch(() => undefined);
  const length = Number(response?.ok ? (response.headers.get("content-length") ?? Number.NaN) : Number.NaN);
  return Number.isSafeInteger(length) && length > 0 ? length : undefined;
}

function readPart(
  url: URL,
  name: string,
  size: number,
  offset: number,
  length: number,
  options: HttpOptions,
): Promise<Uint8Array> {
  if (length === 0) return Promise.resolve(new Uint8Array());
  return request(url, offset, length, options, async ({ response, take }) => {
    const range = contentRange(response);
    const changed = range && (range.first !== offset || range.last !== offset + length - 1 || range.size !== size);
    if (response.status !== 206 || changed)
      throw formatError(
        `${name}: asked for bytes ${offset} to ${offset + length - 1} of ${size}, the server answered with ${response.status} ${response.headers.get("content-range") ?? ""}`,
        "the file may have changed: open the address again",
      );
    const bytes = await take(length);
    if (bytes?.length === length) return bytes;
    if (bytes) throw new Interrupted(`it ended after ${bytes.length} of ${length} bytes`);
    throw formatError(`${name}: the server sent more than the ${length} bytes that were asked for`);
  });
}

const reasonOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause));

/** Worth another attempt: the connection, not the answer, failed. */
class Interrupted extends Error {}

const COMMON = { credentials: "omit", referrerPolicy: "no-referrer", cache: "no-store" } as const;

interface Answer {
  response: Response;
  /** The body, or undefined when it has more than `most` bytes. */
  take(most: number): Promise<Uint8Array | undefined>;
}

/** One Range request and its answer, again when the connection breaks or the server has no time. */
async function request<T>(
  url: URL,
  offset: number,
  length: number,
  options: HttpOptions,
  use: (answer: Answer) => Promise<T>,
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    let isWhole = false;
    const stop = new AbortController();
    let timer = setTimeout(() => stop.abort(), PATIENCE);
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(() => stop.abort(), PATIENCE);
    };
    try {
      const headers = { range: `bytes=${offset}-${offset + length - 1}` };
      const response = await (options.fetch ?? fetch)(url, { ...COMMON, headers, signal: stop.signal }).catch(
        (cause: unknown) => {
          throw new Interrupted(reasonOf(cause));
        },
      );
      const { status } = response;
      if (status === 429 || status >= 500) throw new Interrupted(`the server answered ${status}`);
      if (status >= 400 && ![404, 410, 416].includes(status)) throw refused(url, status);
      return await use({
        response,
        async take(most) {
          const bytes = await bodyOf(response, most, heard);
          isWhole = bytes !== undefined;
          return bytes;
        },
      });
    } catch (error) {
      if (!(error instanceof Interrupted)) throw error;
      if (attempt === ATTEMPTS) throw unreachable(url, error);
      await new Promise((resume) => setTimeout(resume, (options.pause ?? PAUSE) * 2 ** (attempt - 1)));
    } finally {
      clearTimeout(timer);
      if (!isWhole) stop.abort(); // what is left of the body is not wanted
    }
  }
}

async function bodyOf(response: Response, most: number, heard: () => void): Promise<Uint8Array | undefined> {
  const parts: Uint8Array[] = [];
  let length = 0;
  const reader = response.body?.getReader();
  while (reader) {
    const { done, value } = await reader.read().catch((cause: unknown) => {
      throw new Interrupted(reasonOf(cause));
    });
    if (done) break;
    heard();
    length += value.length;
    if (length > most) return undefined;
    parts.push(value);
  }
  return joinBytes(parts);
}

/** "bytes 0-99/1234"; undefined where the server does not send or expose it. Sizes are whole and safe, or it is none. */
function contentRange(response: Response): { first: number; last: number; size: number } | undefined {
  const match = /^bytes (\d{1,16})-(\d{1,16})\/(\d{1,16})$/.exec(response.headers.get("content-range") ?? "");
  if (!match) return undefined;
  const [first, last, size] = match.slice(1).map(Number);
  return [first, last, size].every(Number.isSafeInteger) ? { first, last, size } : undefined;
}

function refused(url: URL, status: number): BitwrightError {
  const why =
    status === 401 || status === 403 ? "it wants a sign-in, or the file is private" : "it refuses the request";
  return ioError(
    `${url.href}: the server answered ${status} (${why})`,
    "check the address, or download the checkpoint and choose its folder",
  );
}

const unreachable = (url: URL, cause: Error): BitwrightError =>
  ioError(
    `${url.href} could not be read: ${cause.message}`,
    "check the address and the connection; a server must allow other origins (CORS) to read its files",
    cause,
  );

/** Throws "usage" for what is not a plain http or https address. */
export function parseAddress(text: string): URL {
  let url: URL;
  try {
    url = new URL(text.trim());
  } catch {
    throw usageError(`${JSON.stringify(text.slice(0, 100))} is not an address`, "it begins with https://");
  }
  if (url.protocol !== "https:" && url.protocol !== "http:")
    throw usageError(`an address begins with https:// or http://, not ${url.protocol}`);
  if (url.username !== "" || url.password !== "")
    throw usageError("the address has a name or a password in it", "take them out: only public files are read");
  return url;
}
