import type { Writable } from "node:stream";
import Table from "cli-table3";
import pc from "picocolors";
import { BitwrightError } from "../../errors.js";
import type { Table as TableData } from "../../report/table.js";

/** Where a command writes. Results go to standard output, everything about the way there to standard error. */
export interface Terminal {
  /** One JSON document on standard output and nothing else; standard error is left to failures. */
  readonly json: boolean;
  /** A person watches standard error: progress may redraw itself. */
  readonly live: boolean;
  /** Progress is wanted at all. */
  readonly verbose: boolean;
  readonly stdout: Writable;
  readonly stderr: Writable;
  /** A line of the result for people. Nothing with --json. */
  print(line?: string): void;
  /** Text of the result without a line end, as it comes. Nothing with --json. */
  stream(text: string): void;
  /** A table of the result for people. Nothing with --json. */
  table(table: TableData): void;
  /** A line about what goes on. Nothing with --json or --quiet. */
  note(line: string): void;
  /** Something that should be known; with --json it goes into the document as `warnings`. */
  warn(line: string): void;
  /** The result as a document: printed with --json, nothing otherwise. */
  document(value: Record<string, unknown>): void;
  /** What went wrong, for people on standard error; with --json also as the document. */
  fail(error: unknown): void;
}

export interface TerminalOptions {
  json: boolean;
  quiet: boolean;
  stdout: Writable & { isTTY?: boolean };
  stderr: Writable & { isTTY?: boolean };
}

export function createTerminal({ json, quiet, stdout, stderr }: TerminalOptions): Terminal {
  const verbose = !json && !quiet;
  const color = pc.createColors(pc.isColorSupported && stderr.isTTY === true);
  const warnings: string[] = [];
  const terminal: Terminal = {
    json,
    verbose,
    live: verbose && stderr.isTTY === true,
    stdout,
    stderr,
    print: (line = "") => void (json || stdout.write(`${line}\n`)),
    stream: (text) => void (json || stdout.write(text)),
    table: (table) => terminal.print(drawTable(table)),
    note: (line) => void (verbose && stderr.write(`${line}\n`)),
    warn: (line) => {
      warnings.push(line);
      if (!json) stderr.write(`${color.yellow("warning")}: ${line}\n`);
    },
    document: (value) => {
      if (json) stdout.write(`${JSON.stringify(warnings.length > 0 ? { ...value, warnings } : value)}\n`);
    },
    fail: (error) => {
      const { kind, message, remedy } = describeError(error);
      if (json) stdout.write(`${JSON.stringify({ error: { kind, message, remedy } })}\n`);
      stderr.write(`${color.red("error")}: ${message}\n`);
      if (remedy !== undefined) stderr.write(`${color.cyan("  try")}: ${remedy}\n`);
    },
  };
  return terminal;
}

/** A table with lines, for a terminal of any width; no colours, so that it can be pasted. */
export function drawTable({ columns, rows }: TableData): string {
  const table = new Table({
    head: columns.map(({ title }) => title),
    colAligns: columns.map(({ align }) => align),
    style: { head: [], border: [], compact: true },
  });
  table.push(...rows);
  return table.toString();
}

/** Errors that nobody foresaw are shown with their stack: they are ours to mend. */
export function describeError(error: unknown): { kind: string; message: string; remedy?: string } {
  if (error instanceof BitwrightError) return { kind: error.kind, message: error.message, remedy: error.remedy };
  const { code } = error as { code?: unknown };
  if (code === "ENOSPC") {
    return { kind: "io", message: "the disk is full", remedy: "free some space, or choose another output folder" };
  }
  if (typeof code === "string" && /^E[A-Z]+$/.test(code)) return { kind: "io", message: (error as Error).message };
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return {
    kind: "internal",
    message: text,
    remedy: "this is a fault of Bitwright: please report it with the lines above",
  };
}
