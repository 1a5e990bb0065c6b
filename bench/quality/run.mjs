// Quantizes a model at each setting, writes the checkpoint, loads it again and measures it: the tables of docs/RESULTS.md.
//
//   node bench/quality/run.mjs MODEL --text wiki.test.raw --calibration c4.txt --out DIR [--only REGEX] [--jobs 2] [--threads 1]
//
// One line of JSON a setting goes to DIR/results.jsonl (finished ones are not run again), a Markdown table to the terminal.
import { spawn } from "node:child_process";
import { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { settings } from "./settings.mjs";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    text: { type: "string" },
    calibration: { type: "string" },
    out: { type: "string" },
    only: { type: "string", default: "" },
    jobs: { type: "string", default: "1" },
    threads: { type: "string", default: "2" },
    samples: { type: "string", default: "128" },
    window: { type: "string", default: "1024" },
    engine: { type: "string", default: "wasm" },
    limit: { type: "string" },
    extra: { type: "string", default: "" },
    keep: { type: "boolean", default: false },
  },
});
const [model] = positionals;
if (!model || !options.text || !options.calibration || !options.out) {
  console.error(
    "usage: node bench/quality/run.mjs MODEL --text FILE --calibration FILE --out DIR [--only REGEX] [--jobs N] [--threads N]",
  );
  process.exit(2);
}

const cli = "dist/node/cli/main.js";
const bitwright = (...args) =>
  new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [cli, ...args, "--json"], { stdio: ["ignore", "pipe", "pipe"] });
    let out = "";
    let err = "";
    child.stdout.on("data", (data) => (out += data));
    child.stderr.on("data", (data) => (err += data));
    child.on("close", (code) =>
      code === 0 ? resolve(JSON.parse(out)) : reject(new Error(`exit ${code}: ${err || out}`)),
    );
  });

mkdirSync(options.out, { recursive: true });
const file = join(options.out, "results.jsonl");
const readResults = () =>
  existsSync(file)
    ? readFileSync(file, "utf8")
        .trim()
        .split("\n")
        .filter(Boolean)
        .map((line) => JSON.parse(line))
    : [];
const finished = new Set(readResults().map(({ name }) => name));
const engine = ["--engine", options.engine, "--threads", options.threads];
const limit = options.limit ? ["--limit", options.limit] : [];

async function measure({ name, args }) {
  const folder = join(options.out, name.replace(/[^a-z0-9]+/gi, "-"));
  const calibration = ["--calibration", options.calibration, "--samples", options.samples, "--window", options.window];
  const quantized = await bitwright(
    "quantize",
    model,
    "-o",
    folder,
    ...args,
    ...options.extra.split(" ").filter(Boolean),
    ...calibration,
    ...engine,
    "--overwrite",
  );
  const evaluated = await bitwright(
    "eval",
    folder,
    "--text",
    options.text,
    "--window",
    options.window,
    "--against",
    model,
    ...engine,
    ...limit,
  );
  const result = {
    name,
    args: args.join(" "),
    bitsPerWeight: quantized.bitsPerWeight,
    meanProxyError: quantized.meanProxyError,
    quantizeSeconds: quantized.seconds,
    perplexity: evaluated.perplexity,
    klDivergence: evaluated.klDivergence,
    topAgreement: evaluated.topAgreement,
    evalSeconds: evaluated.seconds,
  };
  appendFileSync(file, `${JSON.stringify(result)}\n`);
  console.error(
    `${name}: ${result.perplexity.toFixed(3)} at ${result.bitsPerWeight.toFixed(4)} bits, ${result.quantizeSeconds.toFixed(0)} s`,
  );
  if (!options.keep) rmSync(folder, { recursive: true, force: true });
}

const queue = settings.filter(({ name }) => new RegExp(options.only).test(name) && !finished.has(name));
const workers = Array.from({ length: Number(options.jobs) }, async () => {
  for (let next = queue.shift(); next; next = queue.shift()) {
    await measure(next).catch((error) => console.error(`${next.name}: ${error.message}`));
  }
});
await Promise.all(workers);

console.log("| setting | bits per weight | perplexity | KL | top-1 | seconds |\n|---|---|---|---|---|---|");
const order = new Map(settings.map(({ name }, index) => [name, index]));
for (const r of readResults().sort((a, b) => (order.get(a.name) ?? 0) - (order.get(b.name) ?? 0))) {
  console.log(
    `| ${r.name} | ${r.bitsPerWeight.toFixed(4)} | ${r.perplexity.toFixed(3)} | ${r.klDivergence.toFixed(4)} | ${r.topAgreement.toFixed(4)} | ${r.quantizeSeconds.toFixed(0)} |`,
  );
}
