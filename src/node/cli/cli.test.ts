import { PassThrough } from "node:stream";
import { describe, expect, it } from "vitest";
import { BitwrightError } from "../../errors.js";
import type { QuantizeEvent } from "../../pipeline/events.js";
import { byteSize, numberBetween, wholeNumber } from "./options.js";
import { createQuantizeView } from "./quantize-view.js";
import { createTerminal, describeError, drawTable } from "./terminal.js";

/** A terminal whose output is kept. */
function record(options: { json?: boolean; quiet?: boolean; tty?: boolean } = {}) {
  const { json = false, quiet = false, tty = false } = options;
  const written = { stdout: "", stderr: "" };
  const stream = (name: keyof typeof written) => {
    const pass: PassThrough & { isTTY?: boolean } = new PassThrough();
    pass.isTTY = tty;
    pass.on("data", (chunk: Buffer) => {
      written[name] += chunk.toString();
    });
    return pass;
  };
  return { terminal: createTerminal({ json, quiet, stdout: stream("stdout"), stderr: stream("stderr") }), written };
}

describe("values of options", () => {
  it("are whole numbers within bounds", () => {
    expect(wholeNumber(2)("17")).toBe(17);
    for (const bad of ["1", "2.5", "", " ", "1e999", "x", "-3"])
      expect(() => wholeNumber(2)(bad)).toThrow(/at least 2/);
    expect(() => wholeNumber(0, 9)("10")).toThrow(/from 0 to 9/);
  });

  it("are numbers within bounds", () => {
    expect(numberBetween(0, 1)("0.25")).toBe(0.25);
    for (const bad of ["1.01", "NaN", "", "-1"]) expect(() => numberBetween(0, 1)(bad)).toThrow(/from 0 to 1/);
  });

  it("are sizes in decimal and binary units", () => {
    const parse = byteSize(0);
    expect(["500MB", "5 GB", "2GiB", "12", "1.5kB", "3m", "7b"].map(parse)).toEqual([
      5e8,
      5e9,
      2 ** 31,
      12,
      1500,
      3e6,
      7,
    ]);
    for (const bad of ["", "GB", "5 XB", "-1MB", "1e6"]) expect(() => parse(bad)).toThrow(/size/);
    expect(() => byteSize(1e6)("5kB")).toThrow(/at least 1000000/);
  });
});

describe("a terminal", () => {
  it("separates the result from the way there", () => {
    const { terminal, written } = record();
    terminal.print("result");
    terminal.note("progress");
    terminal.warn("mind");
    terminal.document({ not: "shown" });
    expect(written).toEqual({ stdout: "result\n", stderr: "progress\nwarning: mind\n" });
  });

  it("prints one document with --json, warnings in it, and nothing else", () => {
    const { terminal, written } = record({ json: true });
    terminal.print("result");
    terminal.stream("text");
    terminal.table({ columns: [], rows: [] });
    terminal.note("progress");
    terminal.warn("mind");
    terminal.document({ a: 1 });
    expect(written).toEqual({ stdout: '{"a":1,"warnings":["mind"]}\n', stderr: "" });
  });

  it("is silent about the way with --quiet, but not about warnings", () => {
    const { terminal, written } = record({ quiet: true });
    terminal.note("progress");
    terminal.warn("mind");
    expect(written.stderr).toBe("warning: mind\n");
  });

  it("tells what went wrong and what to do; unforeseen errors with their stack", () => {
    const { terminal, written } = record({ json: true });
    terminal.fail(new BitwrightError("format", "no weights", "fetch them"));
    expect(JSON.parse(written.stdout)).toEqual({
      error: { kind: "format", message: "no weights", remedy: "fetch them" },
    });
    expect(written.stderr).toBe("error: no weights\n  try: fetch them\n");
    expect(describeError(new TypeError("x is undefined")).message).toMatch(/x is undefined\n\s+at /);
    expect(describeError(Object.assign(new Error("write"), { code: "ENOSPC" }))).toMatchObject({ kind: "io" });
  });

  it("draws tables", () => {
    const table = {
      columns: [
        { title: "name", align: "left" as const },
        { title: "bits", align: "right" as const },
      ],
      rows: [
        ["a", "2.066"],
        ["long", "16"],
      ],
    };
    const lines = drawTable(table).split("\n");
    expect(lines).toContain("│ a    │ 2.066 │");
    expect(lines).toContain("│ long │    16 │");
  });
});

describe("the view of a quantize job", () => {
  const linear: QuantizeEvent = {
    type: "linear",
    block: 0,
    name: "model.layers.0.mlp.down_proj",
    method: "vptq",
    rows: 256,
    columns: 768,
    bitsPerWeight: 2.0833,
    seconds: 1.5,
    resumed: false,
    proxyError: 0.0421,
    damping: 0.02,
    deadColumns: 0,
    notes: ["damping was raised"],
  };
  const events: QuantizeEvent[] = [
    { type: "start", model: "m", blocks: 1, linears: 2, windows: 4, tokens: 4096, engine: "wasm", resumedLinears: 1 },
    { type: "block", block: 0, blocks: 1 },
    { type: "pass", block: 0, slots: ["down"], window: 0, windows: 4 },
    { type: "progress", fraction: 0.5, elapsedSeconds: 2, remainingSeconds: 2 },
    linear,
    { ...linear, resumed: true },
    { type: "kept", block: 0, name: "model.layers.0.mlp.up_proj" },
    { type: "writing", bytes: 1e6 },
    { type: "done", linears: 2, bitsPerWeight: 2, seconds: 3, meanProxyError: 0.04 },
  ];

  it("is lines in a log", () => {
    const { terminal, written } = record();
    const view = createQuantizeView(terminal);
    for (const event of events) view.onEvent(event);
    view.stop();
    expect(written.stdout).toBe("");
    expect(written.stderr.split("\n")).toEqual([
      "2 linears in 1 blocks, 1 of them finished before",
      "calibration: 4 windows, 4,096 tokens",
      "quantize: 0 %, block 1 of 1",
      expect.stringMatching(
        /0\.mlp\.down_proj +256 x 768 +2\.083 bits +proxy error 0\.0421 +1\.5 s {2}\(damping was raised\)/,
      ),
      expect.stringMatching(/finished before/),
      expect.stringMatching(/0\.mlp\.up_proj +kept as it is/),
      "quantize: 100 %, writing 1.00 MB",
      "",
    ]);
  });

  it("is nothing with --json", () => {
    const { terminal, written } = record({ json: true });
    const view = createQuantizeView(terminal);
    for (const event of events) view.onEvent(event);
    view.stop();
    expect(written).toEqual({ stdout: "", stderr: "" });
  });
});
