import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { findCudaDriver } from "../engine/cuda/driver.js";
import type { EngineName } from "../engine/engine.js";
import { BitwrightError, type ErrorKind, unsupportedError, usageError } from "../errors.js";
import type { LinearDone } from "../pipeline/events.js";
import type { Recipe } from "../pipeline/recipe.js";
import { type JobShare, shareOf } from "../pipeline/share.js";
import type { CheckpointFormat } from "../quant/bits.js";
import type { EngineChoice, EngineOptions } from "./engines.js";
import type { PreparedJob } from "./quantize.js";

// A job on several devices: this process works on the first, and starts one for each of the others. They read the model
// themselves, and meet in the journal on disk.

/** What a process needs to do its share; plain data, sent as a message. */
export interface ShareOrder {
  model: string;
  recipe: Recipe;
  /** The text as token ids; the windows are drawn from them again. */
  calibration?: PreparedJob["calibration"];
  format?: CheckpointFormat;
  journal: string;
  engine: EngineChoice;
  engineOptions: EngineOptions;
  index: number;
  count: number;
}

/** What follows the order once the journal is open. */
export const BEGIN = "begin";

/** What it answers; "ready" when it waits for its beginning. */
export type ShareMessage =
  | { type: "ready" }
  | { type: "linear"; done: LinearDone }
  | { type: "finished" }
  | { type: "failed"; kind: ErrorKind; message: string; remedy?: string };

/** Throws "usage" where one of the cards is not there: before hours of work on the others. */
export async function requireCards(devices: readonly number[], engine: EngineName): Promise<void> {
  if (engine !== "cuda")
    throw usageError(
      `--devices on the ${engine} engine: only the cuda engine takes more than one card`,
      "leave it out",
    );
  const found = await findCudaDriver();
  if ("reason" in found) throw unsupportedError(`no cuda engine: ${found.reason}`, "bitwright doctor says what to do");
  const count = found.driver.cards().length;
  const absent = devices.find((device) => device >= count);
  if (absent !== undefined)
    throw usageError(
      `--devices: expected cards from 0 to ${count - 1}, got ${absent}`,
      "bitwright doctor lists the cards",
    );
}

/**
 * The first share, with processes for the others. They start at once, and have their model and their device ready when the work
 * begins; `cancel` ends them where it never does.
 */
export function sharedOut(
  order: Omit<ShareOrder, "index" | "count" | "engineOptions">,
  options: readonly EngineOptions[],
  signal: AbortSignal | undefined,
): JobShare {
  const count = options.length;
  const stop = new AbortController(); // fires with the signal, and when one of them fails: that stops the rest
  signal?.addEventListener("abort", () => stop.abort(), { once: true });
  if (signal?.aborted) stop.abort();
  let onLinear = (_done: LinearDone) => {};
  const orders = options.map((engineOptions, index) => ({ ...order, engineOptions, index, count })).slice(1);
  const processes: ShareProcess[] = [];
  try {
    for (const one of orders) processes.push(startShare(one, stop.signal, (done) => onLinear(done)));
  } catch (error) {
    stop.abort(); // those that were started
    throw error;
  }
  const finished = processes.map((process) =>
    process.finished.catch((error: unknown) => {
      stop.abort();
      throw error;
    }),
  );
  const all = Promise.allSettled(finished);
  return {
    ...shareOf(0, count),
    ready: async () => void (await Promise.all(processes.map(({ ready }) => ready))),
    async others(tell) {
      onLinear = tell;
      for (const process of processes) process.begin();
      const failures = (await all).flatMap((one) => (one.status === "rejected" ? [one.reason as unknown] : []));
      const isStop = (error: unknown) => error instanceof BitwrightError && error.kind === "aborted";
      if (failures.length > 0) throw failures.find((error) => !isStop(error)) ?? failures[0];
    },
    cancel: () => stop.abort(),
  };
}

/** A process that gets ready for its share, and does it from `begin` on. */
interface ShareProcess {
  begin(): void;
  /** Resolves when it can begin; rejects when it cannot. */
  ready: Promise<void>;
  /** Resolves when the share is in the journal. */
  finished: Promise<void>;
}

function startShare(order: ShareOrder, signal: AbortSignal, onLinear: (done: LinearDone) => void): ShareProcess {
  const where = `the process on device ${order.engineOptions.device ?? 0}`;
  // "advanced" carries typed arrays
  const file = fileURLToPath(new URL("./share-process.js", import.meta.url));
  const child = fork(file, { stdio: "inherit", serialization: "advanced" });
  let toldReady = () => {};
  const isReady = new Promise<void>((resolve) => {
    toldReady = resolve;
  });
  const finished = new Promise<void>((resolve, reject) => {
    const stop = () => void child.kill("SIGTERM");
    let outcome: ShareMessage | undefined;
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) stop();
    child.on("message", (message: ShareMessage) => {
      if (message.type === "linear") onLinear(message.done);
      else if (message.type === "ready") toldReady();
      else outcome = message;
    });
    child.on("error", reject);
    child.on("exit", (code, by) => {
      signal.removeEventListener("abort", stop);
      if (outcome?.type === "finished") resolve();
      else if (outcome?.type === "failed")
        reject(new BitwrightError(outcome.kind, `${where}: ${outcome.message}`, outcome.remedy));
      else if (signal.aborted) reject(new BitwrightError("aborted", `${where} was stopped`));
      else
        reject(
          new BitwrightError(
            "io",
            `${where} ended early (${by ?? `exit code ${code}`})`,
            "what is finished is kept; the same command with --resume goes on",
          ),
        );
    });
  });
  const send = (message: ShareOrder | typeof BEGIN) => {
    if (child.connected) child.send(message, () => {}); // a process that is gone is told of by its exit
  };
  send(order);
  const ready = Promise.race([isReady, finished]);
  ready.catch(() => {}); // told by `finished` too
  const begin = () => {
    if (!signal.aborted) send(BEGIN); // it would overtake the signal that ends the process
  };
  return { begin, ready, finished };
}
