import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  createReferenceEngine,
  memoryOutput,
  openCheckpointModel,
  openFolder,
  quantize,
} from "../../src/node/index.js";
import {
  browserPath,
  chooseEngine,
  chooseFolder,
  failure,
  finished,
  planned,
  startSite,
  type TestSite,
} from "./browser.js";

// The form: what it refuses, and who can use it.

const TINY = "test/golden/families/llama-gqa-llama3-tied";

describe.skipIf(browserPath === undefined)("the form of the page", { timeout: 240_000 }, () => {
  let site: TestSite;
  let scratch: string;
  beforeAll(async () => {
    scratch = mkdtempSync(join(tmpdir(), "bitwright-form-"));
    site = await startSite();
  });
  afterAll(async () => {
    await site?.close();
    rmSync(scratch, { recursive: true, force: true });
  });

  it("asks for a card's memory where a card computes", () =>
    site.onPage(async (page) => {
      const shown = () => page.isVisible("#device-memory");
      expect(await shown()).toBe(true); // automatic
      await chooseEngine(page, "wasm");
      expect(await shown()).toBe(false);
    }));

  it("says what is wrong with a folder, an address, a number", () =>
    site.onPage(async (page) => {
      const refused = async (pattern: RegExp) => {
        await page.waitForFunction(() => document.querySelector<HTMLElement>("#failure")?.hidden === false);
        expect(await failure(page)).toMatch(pattern);
        expect(await page.isDisabled("#start")).toBe(true);
      };
      const folder = (name: string, files: Record<string, string | Buffer>) => {
        const path = join(scratch, name);
        mkdirSync(path);
        for (const [file, bytes] of Object.entries(files)) writeFileSync(join(path, file), bytes);
        return path;
      };
      const config = readFileSync(`${TINY}/config.json`);
      await chooseFolder(page, folder("no-config", { "notes.txt": "x" }));
      await refused(/no-config has no config\.json.*What to do: give the folder of a Hugging Face checkpoint/);
      await chooseFolder(page, folder("no-weights", { "config.json": config }));
      await refused(/no-weights has no weights/);
      await chooseFolder(page, folder("cut", { "config.json": config, "model.safetensors": Buffer.alloc(20, 1) }));
      await refused(/header claims .*What to do/);
      const done = memoryOutput();
      await quantize(
        await openCheckpointModel(await openFolder(TINY)),
        { method: "rtn" },
        { engine: createReferenceEngine(), output: done },
      );
      await chooseFolder(
        page,
        folder("done", Object.fromEntries([...done.files].map(([name, bytes]) => [name, Buffer.from(bytes)]))),
      );
      await refused(/done is quantized already.*start from the full-precision checkpoint/);
      await page.fill("#address", "ftp://host/model");
      await page.press("#address", "Enter");
      await refused(/http/);
      await page.fill("#address", `${site.server.address}nothing/`);
      await page.click("#open-address");
      await refused(/nothing has no config\.json/);
      // a model without a tokenizer can be rounded, not calibrated
      await chooseFolder(page, TINY);
      await refused(/tokenizer\.json.*What to do/);
      await page.check("input[value=rtn]");
      await planned(page);
      expect(await failure(page)).toBe("");
      await page.click("#open-example");
      await page.check("input[value=vptq]");
      await planned(page);
      await page.fill("#vectorLength", "0");
      await refused(/Vector length: expected a whole number from 1 to 64/);
      expect(await page.getAttribute("#vectorLength", "aria-invalid")).toBe("true");
      await page.fill("#vectorLength", "4");
      await planned(page);
      await page.fill("#samples", "5000");
      await refused(/c4 has \d+ tokens.*What to do: use \d+ calibration windows/);
      await page.fill("#samples", "");
      await planned(page);
      await page.selectOption("#format", "gptq");
      await refused(/gptq/);
      await page.selectOption("#format", "");
      await planned(page);
    }));

  it("takes a folder that is dropped on it", () =>
    site.onPage(async (page) => {
      await page.check("input[value=rtn]");
      const box = (await page.locator("#drop").boundingBox()) as { x: number; y: number };
      const session = await page.context().newCDPSession(page);
      const data = { items: [], files: [join(process.cwd(), TINY)], dragOperationsMask: 1 };
      for (const type of ["dragEnter", "dragOver", "drop"] as const) {
        await session.send("Input.dispatchDragEvent", { type, x: box.x + 20, y: box.y + 20, data });
      }
      await planned(page);
      expect(await page.textContent("#model")).toMatch(/^llama-gqa-llama3-tied: llama/);
    }));

  it("can be used by the keyboard and by those who hear it", () =>
    site.onPage(async (page) => {
      const unnamed = await page.$$eval("input, select, button, progress", (fields) =>
        fields.flatMap((field) => {
          const named = (field as HTMLInputElement).labels?.length || field.getAttribute("aria-labelledby");
          return named || field.textContent?.trim() ? [] : [field.id];
        }),
      );
      expect(unnamed).toEqual([]);
      const visited: string[] = [];
      for (let presses = 0; presses < 10; presses++) {
        await page.keyboard.press("Tab");
        visited.push(await page.evaluate(() => document.activeElement?.id || document.activeElement?.className || ""));
      }
      const order = ["skip", "folder", "address", "open-address", "open-example", "vectorLength", "codebook"];
      expect(visited.filter((id) => order.includes(id))).toEqual(order);
      await chooseEngine(page, "wasm");
      await page.check("input[value=rtn]");
      await chooseFolder(page, TINY);
      await planned(page);
      await page.focus("#bits");
      await page.keyboard.press("Tab");
      await page.focus("#start");
      await page.keyboard.press("Enter");
      await finished(page);
      expect(await page.textContent("#announcement")).toBe("Done.");
      expect(await page.evaluate(() => document.activeElement?.id)).toBe("result-title");
    }));
});
