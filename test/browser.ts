import { existsSync } from "node:fs";
import { createServer } from "node:http";
import { type BuildOptions, build } from "esbuild";
import { type Browser, chromium, type Page } from "playwright-core";

const BROWSERS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/** Sandboxes of containers do not nest; WebGPU comes from the software adapter that the browser brings. */
const SWITCHES = ["--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];

export interface TestPage {
  page: Page;
  close(): Promise<void>;
}

/** The machine's Chromium, or why there is none: tests skip then, and say so. */
export function findBrowser(): { path: string } | { reason: string } {
  const path = process.env.BITWRIGHT_BROWSER ?? BROWSERS.find((candidate) => existsSync(candidate));
  return path ? { path } : { reason: `no browser (${BROWSERS.join(", ")}, or named in BITWRIGHT_BROWSER)` };
}

/** A page from this machine, which browsers trust as they do https, with a script in it. */
export async function openPage(path: string, script: string): Promise<TestPage> {
  const server = createServer((request, response) => {
    const isScript = request.url === "/script.js";
    // with these headers a page has SharedArrayBuffer
    response.writeHead(request.url === "/" || isScript ? 200 : 404, {
      "content-type": isScript ? "text/javascript" : "text/html",
      "cross-origin-opener-policy": "same-origin",
      "cross-origin-embedder-policy": "require-corp",
    });
    response.end(isScript ? script : '<!doctype html><script type="module" src="/script.js"></script>');
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the server has no port");
  let browser: Browser | undefined;
  const close = async () => {
    await browser?.close();
    await new Promise((resolve) => server.close(resolve));
  };
  try {
    browser = await chromium.launch({ executablePath: path, args: SWITCHES });
    const page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${address.port}/`);
    return { page, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** A module of this repository as a browser gets it. `code` is TypeScript that stands at its root. */
export async function bundleForBrowser(code: string, options: BuildOptions = {}): Promise<string> {
  const { outputFiles } = await build({
    ...options,
    stdin: { contents: code, resolveDir: process.cwd(), sourcefile: "entry.ts", loader: "ts" },
    bundle: true,
    platform: "browser",
    format: "esm",
    target: "es2022",
    write: false,
    logLevel: "silent",
  });
  return outputFiles[0].text;
}
