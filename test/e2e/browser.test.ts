import { existsSync } from "node:fs";
import { builtinModules } from "node:module";
import { createContext, runInContext } from "node:vm";
import { type BuildFailure, build, type Plugin } from "esbuild";
import { describe, expect, it } from "vitest";

// The library must run in a browser: bundle its entry as a browser would get it, and let nothing of Node in.

/** Names every import of a Node builtin with the file that has it, instead of stopping at the first. */
function findBuiltins(found: string[]): Plugin {
  const builtins = new Set(builtinModules);
  return {
    name: "find-builtins",
    setup(setup) {
      setup.onResolve({ filter: /.*/ }, ({ path, importer }) => {
        if (!path.startsWith("node:") && !builtins.has(path)) return undefined;
        found.push(`${importer} imports ${path}`);
        return { path, external: true };
      });
    },
  };
}

async function bundle(entry: { file: string } | { code: string }) {
  const builtins: string[] = [];
  const result = await build({
    ...("file" in entry
      ? { entryPoints: [entry.file] }
      : { stdin: { contents: entry.code, resolveDir: process.cwd(), sourcefile: "entry.ts" } }),
    bundle: true,
    platform: "browser",
    format: "iife",
    globalName: "bitwright",
    target: "es2022",
    write: false,
    logLevel: "silent",
    plugins: [findBuiltins(builtins)],
  });
  return { code: result.outputFiles[0].text, builtins };
}

/** What a browser has and the language itself has not. */
const BROWSER_GLOBALS = [
  "AbortController",
  "AbortSignal",
  "Blob",
  "TextDecoder",
  "TextEncoder",
  "URL",
  "WebAssembly",
  "clearTimeout",
  "console",
  "crypto",
  "fetch",
  "navigator",
  "performance",
  "queueMicrotask",
  "setTimeout",
  "structuredClone",
] as const;

function runAsBrowser(code: string): unknown {
  const globals: Record<string, unknown> = {};
  for (const name of BROWSER_GLOBALS) globals[name] = (globalThis as Record<string, unknown>)[name];
  return runInContext(`${code}; bitwright`, createContext(globals));
}

describe("the bundle for the browser", () => {
  it.skipIf(!existsSync("src/index.ts"))("has no import of Node and loads without Node's globals", async () => {
    const { code, builtins } = await bundle({ file: "src/index.ts" });
    expect(builtins).toEqual([]);
    const library = runAsBrowser(code) as Record<string, unknown>;
    expect(Object.keys(library).length).toBeGreaterThan(0);
  });

  it("is refused when a builtin or a global of Node gets in", async () => {
    expect((await bundle({ code: 'import "node:fs"; import { join } from "path"; join("a");' })).builtins).toEqual([
      expect.stringMatching(/entry\.ts imports node:fs/),
      expect.stringMatching(/entry\.ts imports path/),
    ]);
    const { code } = await bundle({ code: "export const folder = process.cwd();" });
    expect(() => runAsBrowser(code)).toThrow(/process is not defined/);
    await expect(bundle({ code: 'import "no-such-package";' })).rejects.toSatisfy((error: BuildFailure) =>
      error.errors.some(({ text }) => text.includes("no-such-package")),
    );
  });
});
