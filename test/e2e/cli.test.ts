import { copyFileSync, existsSync, mkdirSync, readdirSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { expectedLogits, readJson } from "../golden/families/fixtures.js";
import { EVALUATION, FAMILY_LOGITS } from "../tolerances.js";
import { bitwright, json, MODEL, scratchFolder, start } from "./cli.js";

const scratch = scratchFolder();

describe("bad use", () => {
  const cases: [what: string, args: string[], message: RegExp][] = [
    ["an unknown command", ["evaluate", MODEL], /unknown command 'evaluate'/],
    ["a misspelt command", ["evl", MODEL], /unknown command 'evl' \(Did you mean eval\?\)/],
    ["a misspelt option", ["eval", MODEL, "--windw", "8"], /unknown option '--windw' \(Did you mean --window\?\)/],
    ["a missing argument", ["inspect"], /missing required argument 'model'/],
    ["a missing option", ["generate", MODEL], /expected one of --prompt and --chat, got neither/],
    [
      "a number out of range",
      ["eval", MODEL, "--window", "1"],
      /'1' is invalid\. Expected a whole number of at least 2/,
    ],
    [
      "a choice that is none",
      ["eval", MODEL, "--engine", "abacus"],
      /Allowed choices are auto, cuda, webgpu, wasm, blas, reference/,
    ],
    ["a folder that is not there", ["inspect", "no/such/folder"], /there is no folder no\/such\/folder/],
    ["a text that is not there", ["eval", MODEL, "--text", "no.txt"], /there is no text file no\.txt/],
    ["a text shorter than a window", ["eval", MODEL, "--window", "99999"], /not one window of 99999/],
    ["no output", ["quantize", MODEL], /missing required option '-o, --output <folder>'/],
    ["an impossible scheme", ["quantize", MODEL, "-o", join(scratch, "x"), "--codebook", "300"], /power of two/],
    [
      "a recipe that is not there",
      ["quantize", MODEL, "--dry-run", "--recipe", "no.json"],
      /there is no file no\.json/,
    ],
    [
      "a codebook that cannot be filled",
      ["quantize", MODEL, "--dry-run", "--codebook", "65536"],
      /hold only 16384 vectors of 4.*use 16384 codewords or fewer/,
    ],
    [
      "more windows than the text has",
      ["quantize", MODEL, "-o", join(scratch, "x"), "--samples", "500"],
      /gives 39 windows of 1024/,
    ],
  ];

  it.each(cases)("%s: exit code 2 and what to do", async (_what, args, message) => {
    const { code, stdout, stderr } = await bitwright(...args);
    expect(stderr).toMatch(/^error: /m);
    expect(stderr.replace(/\n\s+try: /, " ")).toMatch(message);
    expect(stderr).toMatch(/^ {2}try: /m);
    expect(stdout).toBe("");
    expect(code).toBe(2);
  });

  it("is a document with --json", async () => {
    for (const [, args, message] of cases.slice(2, 8)) {
      const { code, stdout, stderr } = await bitwright(...args, "--json");
      const { error } = JSON.parse(stdout) as { error: { kind: string; message: string; remedy: string } };
      expect(error.kind).toBe("usage");
      expect(`${error.message} ${error.remedy}`).toMatch(message);
      expect(stderr).toContain(error.message);
      expect(code).toBe(2);
    }
  });

  it("prints the help when there is no command", async () => {
    const { code, stderr } = await bitwright();
    expect(stderr).toMatch(/Usage: bitwright/);
    expect(code).toBe(2);
  });
});

describe("failures", () => {
  it("are exit code 1: a folder that is no checkpoint, a family that is unknown, a truncated file", async () => {
    const folder = join(scratch, "broken");
    mkdirSync(folder);
    const fails = async (message: RegExp) => {
      const { code, stderr } = await bitwright("inspect", folder);
      expect(stderr).toMatch(message);
      expect(stderr).not.toMatch(/\n\s+at /); // a stack would mean that nobody foresaw it
      expect(code).toBe(1);
    };
    await fails(/has no config\.json/);
    writeFileSync(join(folder, "config.json"), JSON.stringify({ model_type: "mamba" }));
    await fails(/mamba.*\n.*llama/);
    copyFileSync(`${MODEL}/config.json`, join(folder, "config.json"));
    await fails(/has no weights/);
    copyFileSync(`${MODEL}/model.safetensors`, join(folder, "model.safetensors"));
    truncateSync(join(folder, "model.safetensors"), 100_000);
    await fails(/model\.safetensors/);
  });
});

describe("help", () => {
  it("has examples for every command", async () => {
    const { code, stdout } = await bitwright("--help");
    expect(code).toBe(0);
    const commands = [...stdout.matchAll(/^ {2}([a-z]+) \[options\]/gm)].map(([, name]) => name);
    expect(commands.sort()).toEqual([
      "dequantize",
      "doctor",
      "eval",
      "export",
      "generate",
      "inspect",
      "logits",
      "quantize",
    ]);
    for (const command of commands) {
      const help = await bitwright(command, "--help");
      expect(help.code).toBe(0);
      expect(help.stdout).toMatch(new RegExp(`Examples:[\\s\\S]*\\$ .*bitwright ${command}`));
      expect(help.stdout).toContain("--json");
    }
    expect((await bitwright("--version")).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });
});

describe("eval", () => {
  const golden = readGolden();

  it("measures the perplexity that transformers measures", async () => {
    const result = await json("eval", MODEL, "--limit", String(golden.windows), "--window", String(golden.window));
    expect(result.tokens).toBe(golden.windows * (golden.window - 1));
    expect(Math.abs((result.perplexity as number) - golden.perplexity)).toBeLessThan(EVALUATION.perplexity);
    expect(result).toMatchObject({ windows: golden.windows, format: "plain", bitsPerWeight: 16, text: "wikitext2" });
    expect(result.seconds).toBeGreaterThan(0);
  });

  it("shows people the same, with the way there on standard error", async () => {
    const { code, stdout, stderr } = await bitwright(
      "eval",
      MODEL,
      "--limit",
      "1",
      "--window",
      "64",
      "--against",
      MODEL,
    );
    expect(code).toBe(0);
    expect(stdout).toMatch(/^perplexity +\d+\.\d{3}/m);
    expect(stdout).toMatch(/^KL divergence +0 nats/m);
    expect(stdout).toMatch(/^top-1 the same +100\.0 %/m);
    expect(stderr).toMatch(/^engine: /m);
    expect((await bitwright("eval", MODEL, "--limit", "1", "--window", "64", "--quiet")).stderr).toBe("");
  });
});

describe("logits", () => {
  it.each([
    ["in one pass", []],
    ["through the cache", ["--cached"]],
  ])("are transformers', without a tokenizer, %s", async (_how, cached) => {
    const fixture = "llama-gqa-llama3-tied";
    const { tokens, shape, logits } = expectedLogits(fixture);
    const file = join(scratch, "tokens.json");
    writeFileSync(file, JSON.stringify(tokens));
    const result = await json("logits", `test/golden/families/${fixture}`, "--tokens", file, ...cached);
    expect(result.shape).toEqual(shape);
    const bytes = Uint8Array.from(Buffer.from(result.logits as string, "base64"));
    const values = new Float32Array(bytes.buffer);
    const largest = logits.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const worst = values.reduce((most, value, i) => Math.max(most, Math.abs(value - logits[i])), 0);
    expect(values.length).toBe(logits.length);
    expect(worst / largest).toBeLessThanOrEqual(FAMILY_LOGITS);
  });

  it("say what is wrong with the tokens", async () => {
    const file = join(scratch, "bad.json");
    for (const [content, message] of [
      ["[1, 2]", /expected an array of arrays/],
      ["[[1], [2, 3]]", /equal lengths/],
      ["[[99999]]", /not in the vocabulary/],
      ["[[1, 2", /is not JSON/],
    ] as const) {
      writeFileSync(file, content);
      const { code, stderr } = await bitwright("logits", MODEL, "--tokens", file);
      expect(stderr).toMatch(message);
      expect(code).toBe(2);
    }
  });
});

describe("generate", () => {
  it("streams the prompt and its continuation, and nothing else, to standard output", async () => {
    const args = ["generate", MODEL, "--prompt", "The river flows", "--max-tokens", "12"];
    const result = await json(...args);
    expect(result.tokens).toHaveLength(12);
    const { stdout } = await bitwright(...args, "--quiet");
    expect(stdout).toBe(`The river flows${result.text}\n`);
    expect(result.endedBy).toBe("max tokens");
  });

  it("draws the same by the same seed", async () => {
    const draw = async (seed: string) =>
      (await json("generate", MODEL, "--prompt", "In 1950", "--max-tokens", "12", "--temperature", "1", "--seed", seed))
        .text;
    expect(await draw("5")).toBe(await draw("5"));
    expect(await draw("5")).not.toBe(await draw("6"));
  });

  it("puts a message into the chat template and prints the answer alone", async () => {
    const model = join(scratch, "chat");
    mkdirSync(model);
    for (const file of readdirSync(MODEL)) copyFileSync(join(MODEL, file), join(model, file));
    const template = "{% for m in messages %}= {{ m.role }} = \n {{ m.content }}\n{% endfor %}";
    writeFileSync(join(model, "chat_template.jinja"), template);
    const args = ["generate", model, "--chat", "The river flows", "--system", "Be brief .", "--max-tokens", "8"];
    const result = await json(...args);
    expect(result.prompt).toBe("= system = \n Be brief .\n= user = \n The river flows\n");
    expect(result.tokens).toHaveLength(8);
    const { stdout } = await bitwright(...args, "--quiet");
    expect(stdout).toBe(`${result.text}\n`);

    const base = await bitwright("generate", MODEL, "--chat", "Hello");
    expect(base.stderr).toMatch(/wiki-7m has no chat template/);
    expect(base.code).toBe(1);
  });

  it("stops soon at Ctrl-C, with code 130", async () => {
    const job = start("generate", MODEL, "--prompt", "The", "--max-tokens", "1000", "--temperature", "1");
    let since = 0;
    job.child.stdout?.once("data", () =>
      setTimeout(() => {
        since = performance.now();
        job.child.kill("SIGINT");
      }, 200),
    );
    const { code, stderr } = await job.done;
    expect(code).toBe(130);
    expect(stderr).toMatch(/^stopped/m);
    expect(performance.now() - since).toBeLessThan(4000);
  });
});

describe("inspect and doctor", () => {
  it("inspect counts every bit", async () => {
    const result = await json("inspect", MODEL);
    expect(result).toMatchObject({ format: "plain", family: "llama", parameters: 6_819_072, fileBytes: 13_644_168 });
    expect(result.bits).toMatchObject({ linears: 16, withoutEmbeddings: 16, withEmbeddings: 16 });
    expect(result.linears).toHaveLength(42);
    expect((await bitwright("inspect", MODEL)).stdout).toMatch(/5\.mlp\.down_proj/);
  });

  it("doctor finds the engines and says what is missing", async () => {
    const result = await json("doctor");
    expect(result.healthy).toBe(true);
    const findings = result.findings as { name: string; state: string; remedy?: string }[];
    expect(findings.find(({ name }) => name === "engine wasm")?.state).toBe("ok");
    for (const { state, remedy } of findings) if (state !== "ok") expect(remedy).toBeTruthy();
    expect((await bitwright("doctor")).stdout).toMatch(/--engine auto takes (wasm|blas)/);
  });
});

it("left nothing in its scratch folder but what the tests wrote", () => {
  expect(readdirSync(scratch).sort()).toEqual(["bad.json", "broken", "chat", "tokens.json"]);
  expect(existsSync(join(scratch, "x.journal"))).toBe(false);
});

function readGolden() {
  return readJson("../perplexity", "expected.json") as { window: number; windows: number; perplexity: number };
}
