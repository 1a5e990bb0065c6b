// One share of a job on several devices, started by devices.ts: takes a ShareOrder, answers with ShareMessages.
import { BitwrightError } from "../errors.js";
import { quantizeLinears } from "../pipeline/job.js";
import { shareOf } from "../pipeline/share.js";
import type { ShareMessage, ShareOrder } from "./devices.js";
import { createEngine } from "./engines.js";
import { diskJournal } from "./journal.js";
import { availableMemory } from "./memory.js";
import { prepareJob } from "./quantize.js";

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

async function run(order: ShareOrder): Promise<void> {
  const job = await prepareJob(order.model, order.recipe, order.calibration, order.format);
  try {
    const { engine } = await createEngine(order.engine, order.engineOptions);
    try {
      await quantizeLinears(job.model, order.recipe, {
        engine,
        calibration: job.calibration?.tokens,
        calibrationName: job.calibration?.name,
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
    await job.model.close();
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
