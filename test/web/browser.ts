import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { expect } from "vitest";
// @ts-expect-error: a script, without types
import { buildWeb as buildScript, serveWeb as serveScript } from "../../scripts/web.mjs";
import { findBrowser } from "../browser.js";

// The page in a real Chromium, from a server like that of `npm run web`.

interface WebServer {
  address: string;
  close(): Promise<void>;
}
export const buildWeb = buildScript as (output: string) => Promise<void>;
export const serveWeb = serveScript as (
  folder: string,
  options?: { port?: number; isolated?: boolean },
) => Promise<WebServer>;

const found = findBrowser();
if ("reason" in found) console.log(`skipped: the page is not tested, ${found.reason}`);
export const browserPath = "path" in found ? found.path : undefined;

/** Milliseconds that anything may take on a busy machine; most take a second. */
const WAIT = 120_000;

/** WebGPU by the processor, which every machine has. */
const ARGUMENTS = [
  "--no-sandbox",
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
  "--enable-features=Vulkan",
];

export interface OpenPage {
  page: Page;
  /** What went wrong on the page, and what it asked of other servers. Must be empty at the end. */
  problems: string[];
  close(): Promise<void>;
}

export interface TestSite {
  server: WebServer;
  /** Without the headers that isolate a page. */
  bareServer: WebServer;
  /** A new page with its engine started. */
  open(address?: string, options?: BrowserContextOptions): Promise<OpenPage>;
  /** Runs `body` with a new page, on which nothing may go wrong. */
  onPage(body: (page: Page) => Promise<void>, address?: string): Promise<void>;
  close(): Promise<void>;
}

export async function startSite(): Promise<TestSite> {
  const folder = mkdtempSync(join(tmpdir(), "bitwright-web-"));
  await buildWeb(folder);
  const server = await serveWeb(folder);
  const bareServer = await serveWeb(folder, { isolated: false });
  const browser: Browser = await chromium.launch({ executablePath: browserPath, args: ARGUMENTS });
  const site: TestSite = {
    server,
    bareServer,
    async onPage(body, address) {
      const { page, problems, close } = await site.open(address);
      try {
        await body(page);
        expect(problems).toEqual([]);
      } finally {
        await close();
      }
    },
    async open(address = server.address, options = {}) {
      const context = await browser.newContext({ acceptDownloads: true, ...options });
      context.setDefaultTimeout(WAIT);
      const page = await context.newPage();
      const problems: string[] = [];
      page.on("pageerror", (error) => problems.push(String(error)));
      page.on("console", (message) => {
        const isMissingFile = message.text().includes("404"); // files that a checkpoint may have are asked for
        if (message.type() === "error" && !isMissingFile) problems.push(message.text());
      });
      page.on("request", (request) => {
        const isOurs = request.url().startsWith(address) || /^(blob|data):/.test(request.url());
        if (!isOurs) problems.push(`a request to ${request.url()}`);
      });
      await page.goto(address);
      await engineStarted(page);
      return { page, problems, close: () => context.close() };
    },
    async close() {
      await browser.close();
      await server.close();
      await bareServer.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
  return site;
}

/** Waits for the engine's line, or for an error; gives the line. */
export async function engineStarted(page: Page): Promise<string> {
  await page.waitForFunction(() => {
    const text = document.querySelector("#engine-info")?.textContent ?? "";
    const failed = document.querySelector<HTMLElement>("#failure")?.hidden === false;
    return failed || (text !== "" && !text.startsWith("starting"));
  });
  return (await page.textContent("#engine-info")) ?? "";
}

export async function chooseEngine(page: Page, choice: string): Promise<string> {
  await page.selectOption("#engine", choice);
  return engineStarted(page);
}

/** Chooses a folder of this machine, as people do. */
export const chooseFolder = (page: Page, folder: string): Promise<void> => page.setInputFiles("#folder", folder);

/** Waits until the job of the form can begin. */
export const planned = (page: Page): Promise<unknown> => page.waitForSelector("#start:enabled");

/** Waits for the result, and fails with what the page says when there is none. */
export async function finished(page: Page): Promise<void> {
  await page.waitForFunction(
    () =>
      document.querySelector<HTMLElement>("#result")?.hidden === false ||
      document.querySelector<HTMLElement>("#failure")?.hidden === false,
  );
  expect(await failure(page)).toBe("");
}

/** What the page says is wrong. */
export const failure = (page: Page): Promise<string> =>
  page.$eval("#failure", (box) => ((box as HTMLElement).hidden ? "" : (box.textContent ?? "")));

/** The bytes of what a click downloads, and the name that is proposed. */
export async function download(page: Page, selector: string): Promise<{ name: string; bytes: Buffer }> {
  const [item] = await Promise.all([page.waitForEvent("download"), page.click(selector)]);
  const parts: Buffer[] = [];
  for await (const part of await item.createReadStream()) parts.push(part as Buffer);
  return { name: item.suggestedFilename(), bytes: Buffer.concat(parts) };
}

/** Every file of the result, downloaded one by one. */
export async function downloadFiles(page: Page): Promise<Map<string, Uint8Array>> {
  const names = await page.$$eval("#files a", (links) => links.map((link) => link.textContent ?? ""));
  const files = new Map<string, Uint8Array>();
  for (const [index, expected] of names.entries()) {
    const { name, bytes } = await download(page, `#files li:nth-child(${index + 1}) a`);
    expect(name).toBe(expected);
    files.set(name, new Uint8Array(bytes));
  }
  return files;
}
