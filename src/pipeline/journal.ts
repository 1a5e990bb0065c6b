import { usageError } from "../errors.js";
import { joinBytes } from "../files/memory.js";

/**
 * What a killed run leaves behind: one entry a finished linear, and a header that names the job. Writing is atomic: an entry
 * is there whole or not at all.
 */
export interface Journal {
  /** Bytes of the caller's own. */
  read(name: string): Promise<Uint8Array | undefined>;
  /** `bytes` whole, or in parts to be written one after the other. */
  write(name: string, bytes: Uint8Array | readonly Uint8Array[]): Promise<void>;
  /** Removes every entry. */
  clear(): Promise<void>;
}

/** A journal that lives as long as the page or the process. */
export function memoryJournal(): Journal {
  const entries = new Map<string, Uint8Array>();
  return {
    read: async (name) => entries.get(name)?.slice(),
    write: async (name, bytes) => void entries.set(name, joinBytes(bytes instanceof Uint8Array ? [bytes] : bytes)),
    clear: async () => entries.clear(),
  };
}

/** Everything that decides the bytes of the result; the journal of one job is of no use to another. */
export interface JobIdentity {
  version: number;
  model: string;
  recipe: string;
  calibration: string;
  arithmetic: string;
}

const HEADER = "job.json";

const CAUSES: Record<keyof JobIdentity, string> = {
  version: "another version of the journal",
  model: "another model",
  recipe: "another recipe",
  calibration: "another calibration text, sample count, window or seed",
  arithmetic: "another engine (results differ in the last bits)",
};

/** Starts or continues a job. Continuing what was begun as another job is a "usage" error that says what differs. */
export async function openJob(journal: Journal, job: JobIdentity, resume: boolean): Promise<void> {
  const header = resume ? await journal.read(HEADER) : undefined;
  if (header) {
    const found = parseHeader(header);
    const keys = Object.keys(CAUSES) as (keyof JobIdentity)[];
    const different = keys.filter((key) => found?.[key] !== job[key]);
    if (different.length > 0) {
      const causes = found ? different.map((key) => CAUSES[key]).join(", ") : "an unreadable header";
      const engine =
        different.includes("arithmetic") && found
          ? ` It was begun with ${found.arithmetic}, now it is ${job.arithmetic}.`
          : "";
      throw usageError(
        `the unfinished work belongs to another job: ${causes}.${engine}`,
        "run with the same options to continue it, or without --resume to start again",
      );
    }
    return;
  }
  await journal.clear();
  await journal.write(HEADER, new TextEncoder().encode(JSON.stringify(job, null, 1)));
}

function parseHeader(bytes: Uint8Array): JobIdentity | undefined {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return value !== null && typeof value === "object" ? (value as JobIdentity) : undefined;
  } catch {
    return undefined;
  }
}
