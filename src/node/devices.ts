import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { findCudaDriver } from "../engine/cuda/driver.js";
import type { EngineName } from "../engine/engine.js";
import { BitwrightError, type ErrorKind, usageError } from "../errors.js";
import type { LinearDone } from "../pipeline/events.js";
import type { Recipe } from "../pipeline/recipe.js";
import { type JobShare, shareOf } from "../pipeline/share.js";
import type { CheckpointFormat } from "../quant/bits.js";
import type { EngineChoice, EngineOptions } from "./engines.js";

// A job on several devices: this process works on the first, and starts one for each of the others. They read the model and
// the text themselves, and meet in the journal on disk.

/** What a process needs to do its share; plain data, sent as a message. */
export interface ShareOrder {
  model: string;
  recipe: Recipe;
  /** A file or a bundled name. */
  calibration: string;
  format?: CheckpointFormat;
  journal: string;
  engine: EngineChoice;
  engineOptions: EngineOptions;
  index: number;
  count: number;
}

/** What it answers. */
export type ShareMessage =
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
  const count = "driver" in found ? found.driver.cards().length : 0;
  const absent = devices.find((device) => device >= count);
  if (absent !== undefined)
    throw usageError(
      `--devices: expected cards from 0 to ${count - 1}, got ${absent}`,
      "bitwright doctor lists the cards",
    );
}

/** The first share, with processes for the others. */
export function sharedOut(
  order: Omit<ShareOrder, "index" | "count" | "engineOptions">,
  options: readonly EngineOptions[],
  signal: AbortSignal | undefined,
): JobShare {
  const count = options.length;
  const stop = new AbortController(); // fires with the signal, and when one of them fails: that stops the rest
  signal?.addEventListener("abort", () => stop.abort(), { once: true });
  if (signal?.aborted) stop.abort();
  return {
    ...shareOf(0, count),
    async others(onLinear) {
      const orders = options.map((engineOptions, index) => ({ ...order, engineOptions, index, count })).slice(1);
      const settled = await Promise.allSettled(
        orders.map((one) =>
          runShare(one, stop.signal, onLinear).catch((error: unknown) => {
            stop.abort();
            throw error;
          }),
        ),
      );
      const failures = settled.flatMap((one) => (one.status === "rejected" ? [one.reason as unknown] : []));
      const isStop = (error: unknown) => error instanceof BitwrightError && error.kind === "aborted";
      if (failures.length > 0) throw failures.find((error) => !isStop(error)) ?? failures[0];
    },
    cancel: () => stop.abort(),
  };
}

/** Resolves when the process has finished its share. */
function runShare(order: ShareOrder, signal: AbortSignal, onLinear: (done: LinearDone) => void): Promise<void> {
  const where = `the process on device ${order.engineOptions.device ?? 0}`;
  return new Promise((resolve, reject) => {
    const child = fork(fileURLToPath(new URL("./share-process.js", import.meta.url)), { stdio: "inherit" });
    const stop = () => void child.kill("SIGTERM");
    let outcome: ShareMessage | undefined;
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) stop();
    child.on("message", (message: ShareMessage) => {
      if (message.type === "linear") onLinear(message.done);
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
    child.send(order);
  });
}
