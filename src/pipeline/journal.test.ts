import { describe, expect, it } from "vitest";
import { type JobIdentity, memoryJournal, openJob } from "./journal.js";

const job: JobIdentity = { version: 1, model: "m", recipe: "r", calibration: "c", arithmetic: "wasm" };

describe("openJob", () => {
  it("keeps the entries of the same job and drops them without --resume", async () => {
    const journal = memoryJournal();
    await openJob(journal, job, false);
    await journal.write("x", Uint8Array.of(1));
    await openJob(journal, job, true);
    (await journal.read("x"))?.fill(9);
    expect(await journal.read("x")).toEqual(Uint8Array.of(1)); // what was read is the reader's own
    await openJob(journal, job, false);
    expect(await journal.read("x")).toBeUndefined();
  });

  it.each([
    ["recipe", "another recipe"],
    ["model", "another model"],
    ["calibration", "another calibration"],
    ["arithmetic", "It was begun with wasm, now it is blas"],
  ] as const)("refuses to continue when the %s differs", async (key, message) => {
    const journal = memoryJournal();
    await openJob(journal, job, false);
    await expect(openJob(journal, { ...job, [key]: "blas" }, true)).rejects.toThrow(message);
  });

  it("refuses an unreadable header", async () => {
    const journal = memoryJournal();
    await journal.write("job.json", new TextEncoder().encode("{"));
    await expect(openJob(journal, job, true)).rejects.toThrow("unreadable header");
  });
});
