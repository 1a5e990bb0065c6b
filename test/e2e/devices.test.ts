import { existsSync, readdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import type { sharedOut } from "../../src/node/devices.js";
import type { createEngine } from "../../src/node/engines.js";
import type { journalFolder, prepareJob, runJob } from "../../src/node/quantize.js";
import type { QuantizeEvent } from "../../src/pipeline/events.js";
import { type RecipeInput, resolveRecipe } from "../../src/pipeline/recipe.js";
import type { JobShare } from "../../src/pipeline/share.js";
import { bitwright, hashesOf, MODEL, scratchFolder } from "./cli.js";

// The built package: the other processes are files of it.
const built = async <T>(name: string): Promise<T> => (await import(resolve("dist/node", name))) as T;
const devices = await built<{ sharedOut: typeof sharedOut }>("devices.js");
const engines = await built<{ createEngine: typeof createEngine }>("engines.js");
const jobs = await built<{
  prepareJob: typeof prepareJob;
  runJob: typeof runJob;
  journalFolder: typeof journalFolder;
}>("quantize.js");

const scratch = scratchFolder();
const recipe: RecipeInput = {
  ...{ codebook: 16, iterations: 4, refine: 0, samples: 4, window: 64, propagate: "full", asymmetric: 0 },
  overrides: [
    { match: "*", keep: true },
    ...["1", "2", "4"].map((block) => ({ match: `model.layers.${block}.*`, keep: false })),
  ],
};

/** Runs the job in `count` processes of the wasm engine; a card is an engine's option like the number of threads. */
async function quantize(output: string, count: number, input = recipe, signal?: AbortSignal, resume = false) {
  const job = await jobs.prepareJob(MODEL, input, "c4");
  const { engine } = await engines.createEngine("wasm", { threads: 1 });
  const events: string[] = [];
  let share: JobShare | undefined;
  try {
    const order = {
      model: MODEL,
      recipe: job.recipe,
      calibration: job.calibration,
      journal: jobs.journalFolder(output),
      engine: engine.name,
    };
    const options = Array.from({ length: count }, () => ({ threads: 1 }));
    if (count > 1) share = devices.sharedOut(order, options, signal);
    const result = await jobs.runJob(job, output, {
      engine,
      resume,
      share,
      onEvent: (event) => {
        if (event.type === "linear") events.push(event.name);
      },
      signal,
    });
    return { result, events };
  } finally {
    share?.cancel?.();
    await engine.close();
    await job.model.close();
  }
}

describe("a job in several processes", () => {
  it("gives the bytes of one, tells of every linear once, and leaves nothing behind", async () => {
    const one = join(scratch, "one");
    const three = join(scratch, "three");
    const alone = await quantize(one, 1);
    const together = await quantize(three, 3);
    expect(hashesOf(three)).toEqual(hashesOf(one));
    expect(together.events.toSorted()).toEqual(alone.events.toSorted());
    expect(together.result.linears.map(({ name }) => name)).toEqual(alone.result.linears.map(({ name }) => name));
    expect(readdirSync(scratch).filter((name) => name.startsWith("three"))).toEqual(["three"]);
  });

  it("refuses what depends on the blocks before", async () => {
    const output = join(scratch, "quantized-stream");
    await expect(quantize(output, 2, { ...recipe, propagate: "quantized" })).rejects.toMatchObject({
      kind: "usage",
      message: expect.stringMatching(/several devices/),
    });
    expect(existsSync(output)).toBe(false);
  });

  it("ends the other processes where the work never begins", async () => {
    const order = {
      model: MODEL,
      recipe: resolveRecipe(recipe),
      journal: join(scratch, "none"),
      engine: "wasm",
    } as const;
    const share = devices.sharedOut(order, [{ threads: 1 }, { threads: 1 }], undefined);
    await share.ready?.(); // it waits for its beginning
    share.cancel?.();
    await expect(share.others?.(() => {})).rejects.toMatchObject({ kind: "aborted" });
    expect(existsSync(order.journal)).toBe(false);
  });

  it("tells at once of a process that cannot begin", async () => {
    const output = join(scratch, "no-model");
    const job = await jobs.prepareJob(MODEL, recipe, "c4");
    const { engine } = await engines.createEngine("wasm", { threads: 1 });
    const order = {
      ...{ model: join(scratch, "nowhere"), recipe: job.recipe, calibration: job.calibration },
      ...{ journal: jobs.journalFolder(output), engine: engine.name },
    };
    let linears = 0;
    try {
      const share = devices.sharedOut(order, [{ threads: 1 }, { threads: 1 }], undefined);
      const onEvent = ({ type }: QuantizeEvent) => void (type === "linear" && linears++);
      await expect(jobs.runJob(job, output, { engine, share, onEvent })).rejects.toMatchObject({
        kind: "usage",
        message: expect.stringMatching(/^the process on device 0: there is no folder .*nowhere$/),
      });
    } finally {
      await engine.close();
      await job.model.close();
    }
    expect(linears).toBe(0);
  });

  it("stops with the signal, and goes on in another number of processes to the same bytes", async () => {
    const output = join(scratch, "stopped");
    const longer = { ...recipe, iterations: 60 };
    const stop = new AbortController();
    setTimeout(() => stop.abort(), 300);
    await expect(quantize(output, 2, longer, stop.signal)).rejects.toMatchObject({ kind: "aborted" });
    expect(existsSync(output)).toBe(false);
    await quantize(output, 3, longer, undefined, true);
    await quantize(join(scratch, "unstopped"), 1, longer);
    expect(hashesOf(output)).toEqual(hashesOf(join(scratch, "unstopped")));
  });

  it("says on the command line which cards are wanted", async () => {
    const { code, stderr } = await bitwright("quantize", MODEL, "-o", join(scratch, "no"), "--devices", "0,0");
    expect([code, stderr]).toEqual([2, expect.stringMatching(/different cards/)]);
  });
});
