import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { RecipeInput } from "../../src/index.js";
import {
  consecutiveWindows,
  createWasmEngine,
  type Engine,
  evaluate,
  memoryFolder,
  memoryOutput,
  nodeWorkers,
  openCheckpointModel,
  openFolder,
  openModel,
  openTokenizer,
  quantize,
  readText,
} from "../../src/node/index.js";
import { MOVED_CODES } from "../tolerances.js";
import {
  browserPath,
  chooseEngine,
  chooseFolder,
  download,
  downloadFiles,
  engineStarted,
  failure,
  finished,
  planned,
  startSite,
  type TestSite,
} from "./browser.js";

// What the page makes, against what Node makes of the same input.

const TINY = "test/golden/families/llama-gqa-llama3-tied";
const WIKI = "models/wiki-7m";

let site: TestSite;
let engine: Engine;
let scratch: string;

/** Files of a checkpoint that Node quantized. */
async function byNode(folder: string, recipe: RecipeInput, text?: string): Promise<Map<string, Uint8Array>> {
  const opened = await openFolder(folder);
  const model = await openCheckpointModel(opened);
  const output = memoryOutput();
  const calibration =
    text === undefined ? undefined : (await openTokenizer(opened)).encode((await readText(text)).text);
  await quantize(model, recipe, { engine, output, calibration, calibrationName: text });
  await model.close();
  return output.files;
}

function expectSameFiles(found: ReadonlyMap<string, Uint8Array>, expected: ReadonlyMap<string, Uint8Array>): void {
  expect([...found.keys()].sort()).toEqual([...expected.keys()].sort());
  for (const [name, bytes] of expected) {
    expect(Buffer.compare(found.get(name) as Uint8Array, bytes), `${name} differs`).toBe(0);
  }
}

describe.skipIf(browserPath === undefined)("the page", { timeout: 240_000 }, () => {
  beforeAll(async () => {
    scratch = mkdtempSync(join(tmpdir(), "bitwright-page-"));
    engine = await createWasmEngine({ threads: 2, spawnWorker: nodeWorkers(), reproducible: true });
    site = await startSite();
  });
  afterAll(async () => {
    await site?.close();
    await engine?.close();
    rmSync(scratch, { recursive: true, force: true });
  });

  it("quantizes a folder on WebAssembly to the bytes that Node makes", () =>
    site.onPage(async (page) => {
      expect(await page.evaluate(() => crossOriginIsolated)).toBe(true);
      expect(await page.isDisabled("#start")).toBe(true);
      expect(await chooseEngine(page, "wasm-plain")).toMatch(/^wasm: WebAssembly SIMD, \d+ thread.*asked for/);
      await page.check("input[value=rtn]");
      await page.selectOption("#bits", "3");
      await page.selectOption("#group", "32");
      await chooseFolder(page, TINY);
      await planned(page);
      expect(await page.textContent("#model")).toMatch(/llama-gqa-llama3-tied: llama, 2 blocks/);
      await page.click("#start");
      await finished(page);
      const expected = await byNode(TINY, { method: "rtn", bits: 3, group: 32 });
      const files = await downloadFiles(page);
      expectSameFiles(files, expected);
      // what was planned is what came out
      const bits = await page.textContent("#plan-figures dd");
      expect(await page.textContent("#result-rows tr:first-child td:last-child")).toBe(bits);
      expect(await page.locator("#lines tr").count()).toBe(14);
      const archive = await download(page, "#download-all");
      expect(archive.name).toBe("llama-gqa-llama3-tied-quantized.zip");
      for (const bytes of expected.values()) expect(archive.bytes.includes(Buffer.from(bytes))).toBe(true);
    }));

  it("quantizes on WebGPU to what Node makes, as far as f32 goes", ({ skip }) =>
    site.onPage(async (page) => {
      const info = await chooseEngine(page, "webgpu");
      const reason = await failure(page);
      if (reason.includes("no WebGPU engine")) {
        console.log(`skipped: ${reason}`);
        skip();
      }
      expect(info).toMatch(/^webgpu: /);
      // too little memory is a refusal in time, and enough of it another engine
      await page.fill("#device-memory", "0.00001");
      await page.locator("#device-memory").blur();
      await page.waitForFunction(() => document.querySelector<HTMLElement>("#failure")?.hidden === false);
      expect(await failure(page)).toMatch(/Memory of the card, GB: expected a number from 0.01 to 1000/);
      await page.fill("#device-memory", "1");
      await page.locator("#device-memory").blur();
      await page.waitForFunction(() => document.querySelector<HTMLElement>("#failure")?.hidden === true);
      expect(await engineStarted(page)).toBe(info);
      await page.check("input[value=rtn]");
      await chooseFolder(page, TINY);
      await planned(page);
      await page.click("#start");
      await finished(page);
      const found = await openCheckpointModel(memoryFolder("page", await downloadFiles(page)));
      const expected = await openCheckpointModel(
        memoryFolder("node", await byNode(TINY, { method: "rtn", bits: 4, group: 64 })),
      );
      for (const { name, shape } of expected.layers) {
        const weight = `${name}.weight`;
        const [a, b] = await Promise.all(
          [found, expected].map(({ weights }) => weights.read(weight, [shape.rows, shape.columns])),
        );
        const different = a.reduce((sum, value, index) => sum + (value === b[index] ? 0 : 1), 0);
        expect(different / a.length, name).toBeLessThanOrEqual(MOVED_CODES);
      }
    }));

  it("saves to a folder where the browser can", () =>
    site.onPage(async (page) => {
      // the private file system has the same handles as the folder that a person would pick
      await page.evaluate(() => {
        Object.assign(globalThis, { showDirectoryPicker: () => navigator.storage.getDirectory() });
      });
      await page.check("input[value=rtn]");
      await chooseFolder(page, TINY);
      await planned(page);
      await page.click("#start");
      await finished(page);
      await page.click("#save-folder");
      await page.waitForFunction(() => document.querySelector("#download-state")?.textContent?.startsWith("saved"));
      const saved = await page.evaluate(async () => {
        const root = await navigator.storage.getDirectory();
        const folder = await root.getDirectoryHandle("llama-gqa-llama3-tied-quantized");
        const sizes: [string, number][] = [];
        for await (const [name, handle] of folder.entries()) {
          sizes.push([name, (await (handle as FileSystemFileHandle).getFile()).size]);
        }
        return sizes.sort();
      });
      const files = await downloadFiles(page);
      expect(saved).toEqual([...files].map(([name, { length }]) => [name, length]).sort());
    }));

  it("stops, keeps what is finished over a reload, continues to the bytes of an undisturbed run, and measures", () =>
    site.onPage(async (page) => {
      const prepare = async () => {
        await chooseEngine(page, "wasm-plain");
        await page.check("input[value=gptq]");
        await page.selectOption("#bits", "3");
        await page.fill("#samples", "4");
        await page.fill("#window", "128");
        await page.click("#open-example");
        await planned(page);
      };
      await prepare();
      expect(await page.textContent("#model")).toMatch(/^wiki-7m: llama, 6 blocks, 6.82 M parameters/);
      expect(await page.textContent("#start")).toBe("Quantize");
      await page.click("#start");
      await page.waitForSelector("#lines tr:nth-child(3)");
      expect(await page.isDisabled("#bits")).toBe(true);
      await page.click("#stop");
      await page.waitForSelector("#start:enabled");
      expect(await page.textContent("#progress-text")).toBe("Stopped. What is finished is kept.");
      expect(await failure(page)).toBe("");
      expect(await page.textContent("#start")).toBe("Continue");
      const kept = await page.locator("#lines tr").count();
      expect(kept).toBeLessThan(42);
      expect(await page.textContent("#why-not")).toBe(`${kept} of 42 linears of this job are finished and kept.`);
      // another job has nothing to continue
      await page.selectOption("#bits", "4");
      await page.waitForFunction(() => document.querySelector("#start:enabled")?.textContent === "Quantize");
      await page.reload();
      await engineStarted(page);
      await prepare();
      expect(await page.textContent("#start")).toBe("Continue");
      await page.check("#evaluate");
      await page.fill("#evaluate-windows", "1");
      await page.click("#start");
      await finished(page);
      const times = await page.$$eval("#lines td:last-child", (cells) => cells.map((cell) => cell.textContent));
      expect(times.filter((text) => text === "before")).toHaveLength(kept);
      const recipe = { method: "gptq", bits: 3, group: 64, samples: 4, window: 128 } as const;
      const expected = await byNode(WIKI, recipe, "c4");
      expectSameFiles(await downloadFiles(page), expected);
      expect(await page.textContent("#start")).toBe("Quantize"); // nothing is left to continue
      const [before, after] = await perplexities(expected);
      const cells = page.locator("#result-rows tr", { hasText: "perplexity" }).locator("td");
      expect(await cells.allTextContents()).toEqual([before, after]);
    }));

  it("starts over where that is wanted", () =>
    site.onPage(async (page) => {
      await chooseEngine(page, "wasm");
      await page.check("input[value=gptq]");
      await page.fill("#samples", "2");
      await page.fill("#window", "64");
      await page.click("#open-example");
      await planned(page);
      await page.click("#start");
      await page.waitForSelector("#lines tr:nth-child(2)");
      await page.click("#stop");
      await page.waitForSelector("#again");
      await page.click("#again");
      await finished(page);
      const times = await page.$$eval("#lines td:last-child", (cells) => cells.map((cell) => cell.textContent));
      expect(times).toHaveLength(42);
      expect(times).not.toContain("before");
    }));

  it.each([
    { method: "vptq", field: "#codebook", value: "16", format: "vptq" },
    { method: "omniquant", field: "#bits", value: "4", format: "bitwright" },
  ])("runs $method with a text of one's own", ({ method, field, value, format }) =>
    site.onPage(async (page) => {
      const path = join(scratch, "own.jsonl");
      const { text } = await readText("c4");
      const lines = text.split("\n").slice(0, 3);
      writeFileSync(path, lines.map((line) => JSON.stringify({ text: line })).join("\n"));
      await page.check(`input[value=${method}]`);
      await page.selectOption(field, value);
      if (method === "omniquant") await page.fill("#epochs", "0");
      if (method === "omniquant") await page.fill("#tuneEpochs", "1");
      await page.selectOption("#text", "own");
      await page.setInputFiles("#text-file", path);
      await page.fill("#samples", "1");
      await page.fill("#window", "32");
      await page.click("#open-example");
      await planned(page);
      expect(await page.textContent("#plan-text")).toMatch(/1 of the windows of 32 tokens that own\.jsonl gives/);
      await page.click("#start");
      await finished(page);
      const result = await openCheckpointModel(memoryFolder("page", await downloadFiles(page)));
      expect(result.layers).toHaveLength(42);
      expect(result.format).toBe(format);
      const report = (await result.report()) as { recipe: { method: string }; calibration: string };
      expect([report.recipe.method, report.calibration]).toEqual([method, "own.jsonl"]);
    }),
  );

  it("works with one thread, and says why, where its server does not isolate it", () =>
    site.onPage(async (page) => {
      expect(await chooseEngine(page, "wasm-plain")).toMatch(/1 thread /);
      expect(await page.textContent("#engine-hint")).toMatch(/One thread only.*Cross-Origin-Opener-Policy/);
      await page.check("input[value=rtn]");
      await chooseFolder(page, TINY);
      await planned(page);
      await page.click("#start");
      await finished(page);
      expectSameFiles(await downloadFiles(page), await byNode(TINY, { method: "rtn", bits: 4, group: 64 }));
    }, site.bareServer.address));

  /** Perplexities of the bundled model and of a quantized one, as the page writes them. */
  async function perplexities(files: ReadonlyMap<string, Uint8Array>): Promise<[string, string]> {
    const before = await openModel(engine, await openFolder(WIKI));
    const after = await openModel(engine, memoryFolder("node", files));
    const tokens = (await before.tokenizer()).encode((await readText("wikitext2")).text);
    const windows = consecutiveWindows(tokens, 512, 1);
    const { perplexity, againstPerplexity = Number.NaN } = await evaluate(after.decoder, windows, {
      against: before.decoder,
    });
    await before.close();
    await after.close();
    return [againstPerplexity.toFixed(2), perplexity.toFixed(2)];
  }
});
