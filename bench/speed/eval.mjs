// Speed of perplexity beside transformers on the CPU, in turns on one machine. Needs a Python with torch and transformers.
//
//   node bench/speed/eval.mjs MODEL TEXT [--window 1024] [--limit 24] [--threads 2] [--rounds 3] [--python python3]
import { execFileSync } from "node:child_process";
import { parseArgs } from "node:util";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    window: { type: "string", default: "1024" },
    limit: { type: "string", default: "24" },
    threads: { type: "string", default: "2" },
    rounds: { type: "string", default: "3" },
    python: { type: "string", default: "python3" },
  },
});
const [model, text] = positionals;
if (!model || !text) {
  console.error("usage: node bench/speed/eval.mjs MODEL TEXT [--window N] [--limit N] [--threads N] [--python PATH]");
  process.exit(2);
}
const run = (command, args) =>
  JSON.parse(execFileSync(command, args, { stdio: ["ignore", "pipe", "ignore"], encoding: "utf8" }));
const { window, limit, threads } = values;
const bitwright = (engine) =>
  run(process.execPath, [
    "dist/node/cli/main.js",
    "eval",
    model,
    "--text",
    text,
    "--window",
    window,
    "--limit",
    limit,
    "--engine",
    engine,
    "--threads",
    threads,
    "--json",
  ]);
const peers = {
  transformers: () => run(values.python, ["bench/speed/eval_transformers.py", model, text, window, limit, threads]),
  blas: () => bitwright("blas"),
  wasm: () => bitwright("wasm"),
};
const results = Object.fromEntries(Object.keys(peers).map((name) => [name, []]));
for (let round = 0; round < Number(values.rounds); round++) {
  for (const [name, measure] of Object.entries(peers)) {
    const { seconds, perplexity, windows } = measure();
    results[name].push({ speed: (windows * Number(window)) / seconds, perplexity });
  }
}
const median = (numbers) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)];
const base = median(results.transformers.map(({ speed }) => speed));
for (const [name, rounds] of Object.entries(results)) {
  const speed = median(rounds.map((round) => round.speed));
  console.log(
    `${name.padEnd(12)} ${speed.toFixed(0).padStart(6)} tokens/s  ${(speed / base).toFixed(2)} of transformers  perplexity ${rounds[0].perplexity.toFixed(4)}`,
  );
}
