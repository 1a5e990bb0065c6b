// One share of a job on several devices, started by devices.ts: takes a ShareOrder, gets ready, begins when it is told to, and
// answers with ShareMessages.
import { openCheckpointModel } from "../checkpoint/open.js";
import { BitwrightError, throwIfAborted } from "../errors.js";
import { quantizeLinears } from "../pipeline/job.js";
import { shareOf } from "../pipeline/share.js";
import { BEGIN, type ShareMessage, type ShareOrder } from "./devices.js";
import { createEngine } from "./engines.js";
import { openFolder } from "./folder.js";
import { diskJournal } from "./journal.js";
import { availableMemory } from "./memory.js";

const stop = new AbortController();
// Ctrl-C reaches every process of a terminal: the one that started this one decides
process.on("SIGINT", () => {});
process.on("SIGTERM", () => stop.abort());
process.on("disconnect", () => stop.abort()); // the one that started it is gone

const tell = (message: ShareMessage) =>
  new Promise<void>((resolve) => {
    if (process.connected) process.send?.(message, () => resolve());
    else resolve();
  });

/** Resolves when the work may begin, or is to be stopped. */
const begun = new Promise<void>((resolve) => {
  process.on("message", (message) => {
    if (message === BEGIN) resolve();
  });
  stop.signal.addEventListener("abort", () => resolve(), { once: true });
});

async function run(order: ShareOrder): Promise<void> {
  const model = await openCheckpointModel(await openFolder(order.model));
  try {
    const { engine } = await createEngine(order.engine, order.engineOptions);
    try {
      await tell({ type: "ready" });
      await begun;
      throwIfAborted(stop.signal);
      await quantizeLinears(model, order.recipe, {
        engine,
        calibration: order.calibration?.tokens,
        calibrationName: order.calibration?.name,
        journal: diskJournal(order.journal),
        resume: true,
        format: order.format,
        activationMemory: Math.floor(availableMemory() / (2 * order.count)),
        share: shareOf(order.index, order.count),
        onEvent: (event) => {
          if (event.type === "linear" && !event.resumed) void tell({ type: "linear", done: event });
        },
        signal: stop.signal,
      });
    } finally {
      await engine.close();
    }
  } finally {
    await model.close();
  }
}

process.once("message", async (order: ShareOrder) => {
  try {
    await run(order);
    await tell({ type: "finished" });
  } catch (error) {
    const known = error instanceof BitwrightError ? error : undefined;
    const message = error instanceof Error ? error.message : String(error);
    await tell({ type: "failed", kind: known?.kind ?? "io", message, remedy: known?.remedy });
  }
  if (process.connected) process.disconnect();
});
