import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { createRandom } from "../../src/random.js";
import { EVALUATION } from "../tolerances.js";
import { bitwright, hashesOf, json, MODEL, scratchFolder, start, waitFor } from "./cli.js";

// Whole jobs on the bundled model. Two of its six blocks are quantized, roughly, so that a job takes seconds.

const scratch = scratchFolder();
const recipe = join(scratch, "recipe.json");
writeFileSync(
  recipe,
  JSON.stringify({
    codebook: 64,
    iterations: 10,
    refine: 1,
    samples: 6,
    window: 96,
    overrides: [
      { match: "*", keep: true },
      { match: "model.layers.1.*", keep: false },
      { match: "model.layers.4.*", keep: false },
      { match: "*.v_proj", residual: [16] },
    ],
  }),
);
const options = ["--recipe", recipe, "--engine", "wasm", "--threads", "2"];
const quantize = (output: string, ...more: string[]) => ["quantize", MODEL, "-o", output, ...options, ...more];

const undisturbed = join(scratch, "undisturbed");
let result: Record<string, unknown>;
beforeAll(async () => {
  result = await json(...quantize(undisturbed));
});

/** What "within two seconds" may take on a busy machine. */
const STOP_MILLISECONDS = 4000;

/** Entries of the scratch folder that belong to an output. */
const traces = (name: string): string[] => readdirSync(scratch).filter((entry) => entry.startsWith(name));

describe("quantize", () => {
  it("writes a checkpoint that is what it says", async () => {
    expect(result.format).toBe("vptq");
    const inspection = await json("inspect", undisturbed);
    expect(inspection.format).toBe("vptq");
    const linears = inspection.linears as {
      name: string;
      quantized: boolean;
      bitsPerWeight: number;
      proxyError?: number;
    }[];
    const quantized = linears.filter((linear) => linear.quantized);
    expect(quantized).toHaveLength(14);
    for (const linear of result.linears as { name: string; bitsPerWeight: number; proxyError: number }[]) {
      const stored = quantized.find(({ name }) => name === linear.name);
      expect(stored?.bitsPerWeight).toBeCloseTo(linear.bitsPerWeight, 10);
      expect(stored?.proxyError).toBeCloseTo(linear.proxyError, 4);
    }
    expect(traces("undisturbed")).toEqual(["undisturbed"]);
  });

  it("plans the same bits in a dry run, and touches nothing", async () => {
    const output = join(scratch, "dry");
    const plan = await json(...quantize(output, "--dry-run"));
    expect(plan.bitsPerWeight).toBeCloseTo(result.bitsPerWeight as number, 10);
    expect(plan.estimate).toMatchObject({ seconds: expect.any(Number), memoryBytes: expect.any(Number) });
    expect(traces("dry")).toEqual([]);
    expect((await bitwright(...quantize(output, "--dry-run"))).stdout).toMatch(/nothing was written/);
  });

  it("gives the same bytes on one thread", async () => {
    const output = join(scratch, "one-thread");
    await json(...quantize(output), "--threads", "1");
    expect(hashesOf(output)).toEqual(hashesOf(undisturbed));
  });

  it("shows a line for each linear, and takes methods and options from the command line", async () => {
    const output = join(scratch, "rtn");
    const { code, stdout, stderr } = await bitwright("quantize", MODEL, "-o", output, "--method", "rtn", "--bits", "3");
    expect(code).toBe(0);
    expect(stderr.match(/^ {2}\d\.\S+ +\d+ x \d+ +3\.\d{3} bits {2}proxy error/gm)).toHaveLength(42);
    expect(stdout).toMatch(/bits per weight/);
    expect((await json("inspect", output)).format).toBe("bitwright");
  });

  it("is measured, decoded to a plain checkpoint, and measured the same", async () => {
    const plain = join(scratch, "plain");
    const sizes = ["--limit", "2", "--window", "256"];
    const measured = await json("eval", undisturbed, "--against", MODEL, ...sizes);
    expect(measured.klDivergence).toBeGreaterThan(0.001);
    expect(measured.topAgreement).toBeGreaterThan(0.3);
    expect(measured.againstPerplexity).toBe((await json("eval", MODEL, ...sizes)).perplexity);
    await json("dequantize", undisturbed, "-o", plain);
    const inspection = await json("inspect", plain);
    expect(inspection).toMatchObject({ format: "plain", bits: { linears: 16 } });
    const again = await json("eval", plain, ...sizes);
    expect(Math.abs((again.perplexity as number) / (measured.perplexity as number) - 1)).toBeLessThan(
      EVALUATION.rounded,
    );
  });
});

describe("an output that is there", () => {
  it("is kept without --overwrite and replaced with it", async () => {
    const output = join(scratch, "twice");
    await json(...quantize(output));
    const refused = await bitwright(...quantize(output));
    expect(refused.code).toBe(2);
    expect(refused.stderr).toMatch(/the output folder .* exists/);
    expect((await bitwright("dequantize", undisturbed, "-o", output)).code).toBe(2);
    await json(...quantize(output, "--seed", "1", "--overwrite"));
    expect(hashesOf(output)).not.toEqual(hashesOf(undisturbed));
    expect(traces("twice")).toEqual(["twice"]);
  });
});

describe("a job that is stopped", () => {
  it("by Ctrl-C ends soon with code 130, says how to go on, and goes on to equal bytes", async () => {
    const output = join(scratch, "stopped");
    const job = start(...quantize(output));
    await waitFor(() => /down_proj +\d/.test(job.stderr()), job);
    const since = performance.now();
    job.child.kill("SIGINT");
    const { code, stderr } = await job.done;
    expect(performance.now() - since).toBeLessThan(STOP_MILLISECONDS);
    expect(code).toBe(130);
    expect(stderr).toMatch(/stopped: .*--resume/);
    expect(traces("stopped")).toEqual(["stopped.journal"]);
    // what is finished is not dropped by accident, and not taken for another job's
    const forgotten = await bitwright(...quantize(output));
    expect(forgotten.code).toBe(2);
    expect(forgotten.stderr).toMatch(/unfinished work [\s\S]*--resume/);
    const other = await bitwright(...quantize(output, "--resume", "--seed", "9"));
    expect(other.code).toBe(2);
    expect(other.stderr).toMatch(/another job/);
    const resumed = await json(...quantize(output, "--resume"));
    expect((resumed.linears as { resumed: boolean }[]).some((linear) => linear.resumed)).toBe(true);
    expect(hashesOf(output)).toEqual(hashesOf(undisturbed));
    expect(traces("stopped")).toEqual(["stopped"]);
  });

  it("by SIGKILL at any moment goes on to equal bytes", async () => {
    const output = join(scratch, "killed");
    const random = createRandom(Date.now());
    const finishedUnits = (): number =>
      existsSync(`${output}.journal`)
        ? readdirSync(`${output}.journal`).filter((name) => name.endsWith(".unit")).length
        : 0;
    const kills: number[] = [0];
    while (kills.length <= 3 && !existsSync(output)) {
      const job = start(...quantize(output, "--resume"));
      // some way into what is left: after a number of linears more, and a little later
      const goal = kills[kills.length - 1] + random.integer(4);
      await waitFor(() => (finishedUnits() >= goal && /linears in/.test(job.stderr())) || existsSync(output), job);
      await new Promise((next) => setTimeout(next, random.next() * 100));
      job.child.kill("SIGKILL");
      await job.done;
      kills.push(finishedUnits());
    }
    const story = `killed after ${kills.slice(1).join(", ")} linears`;
    if (!existsSync(output)) {
      const resumed = await json(...quantize(output, "--resume"));
      const kept = (resumed.linears as { resumed: boolean }[]).filter((linear) => linear.resumed).length;
      expect(kept, story).toBe(kills[kills.length - 1]);
    }
    expect(hashesOf(output), story).toEqual(hashesOf(undisturbed));
    expect(traces("killed"), story).toEqual(["killed"]);
  });
});
