import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll } from "vitest";

// Runs the built command line as people do: a process of its own.

const MAIN = resolve("dist/node/cli/main.js");
export const MODEL = "models/wiki-7m";

export interface Finished {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Starts `bitwright`; `done` settles when it has ended. Ended by the test's end at the latest. */
export function start(...args: string[]): { child: ChildProcess; done: Promise<Finished>; stderr(): string } {
  if (!existsSync(MAIN)) throw new Error("dist/ is missing: npm run build");
  const child = spawn(process.execPath, [MAIN, ...args], { stdio: ["ignore", "pipe", "pipe"] });
  running.add(child);
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const done = new Promise<Finished>((settle, reject) => {
    child.on("error", reject);
    child.on("close", (code) => {
      running.delete(child);
      settle({ code, stdout, stderr });
    });
  });
  return { child, done, stderr: () => stderr };
}

export const bitwright = (...args: string[]): Promise<Finished> => start(...args).done;

/** The one document that a command prints with --json; fails when there is anything else on either stream. */
export async function json(...args: string[]): Promise<Record<string, unknown>> {
  const { code, stdout, stderr } = await bitwright(...args, "--json");
  if (code !== 0 || stderr !== "") throw new Error(`bitwright ${args.join(" ")}: code ${code}, ${stderr}`);
  const lines = stdout.split("\n");
  if (lines.length !== 2 || lines[1] !== "") throw new Error(`expected one line of JSON, got ${stdout.slice(0, 500)}`);
  return JSON.parse(lines[0]) as Record<string, unknown>;
}

/** Waits until `ready`; fails when the process ends before. */
export async function waitFor(ready: () => boolean, job: { child: ChildProcess }, seconds = 40): Promise<void> {
  for (const since = performance.now(); performance.now() - since < seconds * 1000; ) {
    if (ready()) return;
    if (job.child.exitCode !== null || job.child.signalCode !== null) break;
    await new Promise((next) => setTimeout(next, 10));
  }
  throw new Error("what was waited for did not come");
}

/** A new folder for one test file's outputs. */
export function scratchFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "bitwright-e2e-"));
  folders.push(folder);
  return folder;
}

/** SHA-256 of every file of a folder, by name. */
export const hashesOf = (folder: string): Record<string, string> =>
  Object.fromEntries(
    readdirSync(folder)
      .sort()
      .map((name) => [
        name,
        createHash("sha256")
          .update(readFileSync(join(folder, name)))
          .digest("hex"),
      ]),
  );

const running = new Set<ChildProcess>();
const folders: string[] = [];
afterAll(() => {
  for (const child of running) child.kill("SIGKILL");
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});
