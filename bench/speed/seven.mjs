// How long a model of LLaMA-2-7B's size takes: some of its blocks with random weights are quantized, and from the beginning of the
// second to the end of the last passes what these cost: reading, statistics or training, quantization. So 32 times this, what the
// process takes before its blocks, and for each block what it takes behind the last one, the writing (and its end: a bit too much).
// On two cards the second passes the text through the first one's blocks before it comes to its own, which is seen at the end of the
// first of these; how they share 32 blocks says pipeline/share.ts.
//
//   node bench/speed/seven.mjs [--method vptq,omniquant] [--engine cuda] [--device 0 | --devices 0,1] [--layers 2] [--samples 128]
//     [--window 2048] [--options="--vector-length 8 ..."]
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { shareOf } from "../../dist/pipeline/share.js";
import { writeSyntheticModel } from "../synthetic-model.mjs";

const { values: args } = parseArgs({
  options: {
    method: { type: "string", default: "vptq,omniquant" },
    engine: { type: "string", default: "cuda" },
    device: { type: "string" },
    devices: { type: "string" },
    layers: { type: "string", default: "2" },
    samples: { type: "string", default: "128" },
    window: { type: "string", default: "2048" },
    hidden: { type: "string", default: "4096" },
    mlp: { type: "string", default: "11008" },
    heads: { type: "string", default: "32" },
    options: { type: "string" },
  },
});
const BLOCKS = 32;
const OPTIONS = {
  vptq: "--vector-length 8 --codebook 65536 --residual 256 --refine 0 --propagate full --asymmetric 0",
  omniquant: "--bits 4 --group channel --activations 4 --precision f16",
};
const [layers, window, samples] = [args.layers, args.window, args.samples].map(Number);
const [hidden, mlp, heads] = [args.hidden, args.mlp, args.heads].map(Number);
const cards = args.devices?.split(",").length ?? 1;
if (cards > 2) throw new Error(`--devices: expected one or two cards, got ${cards}`);
const first = firstCards(layers);
const least = cards > 1 ? 6 : 2;
if (layers < least) throw new Error(`--layers: expected ${least} or more, got ${layers}`);
const scratch = mkdtempSync(join(tmpdir(), "bitwright-seven-"));
try {
  const model = join(scratch, "model");
  writeSyntheticModel(model, { layers, hidden, mlp, heads, keyValueHeads: heads, positions: window });
  // only its length matters: about three letters a token
  const text = readFileSync("data/c4-slice.txt", "utf8");
  const calibration = join(scratch, "text.txt");
  writeFileSync(calibration, text.repeat(Math.ceil((8 * samples * window) / text.length)));
  for (const method of args.method.split(",")) {
    const options = (args.options ?? OPTIONS[method]).split(" ");
    const source = ["--calibration", calibration, "--samples", args.samples, "--window", args.window];
    const on = ["--engine", args.engine, ...choice("device"), ...choice("devices")];
    const command = ["quantize", model, "-o", join(scratch, method), "--method", method, ...options, ...source, ...on];
    const { begins, ends, writing: written, end } = await run(command);
    // a linear is told when it is on the disk, a block at once
    const block = cards > 1 ? (begins[first - 1] - begins[1]) / (first - 2) : (written - begins[1]) / (layers - 1);
    const other = cards > 1 ? (ends[layers - 1] - ends[first]) / (layers - 1 - first) : block;
    const before = begins[1] - block;
    const passing = cards > 1 ? (ends[first] - other - before) / first : 0;
    /** Seconds of the card that is longer at work, where there are so many blocks. */
    const longest = (blocks) => {
      const ofFirst = firstCards(blocks);
      return Math.max(ofFirst * block, ofFirst * passing + (blocks - ofFirst) * other);
    };
    const writing = end - written;
    const minutes = (before + longest(BLOCKS) + (writing * BLOCKS) / layers) / 60;
    console.log(
      `${method} ${options.join(" ")}: ${before.toFixed(1)} s before the blocks, a block ${block.toFixed(1)} s, ` +
        `${cards > 1 ? `on the second card ${other.toFixed(1)} s, passing through one ${passing.toFixed(1)} s, ` : ""}writing ${layers} blocks ${writing.toFixed(1)} s, ` +
        `the process ${end.toFixed(1)} s; with ${BLOCKS} blocks: ${minutes.toFixed(1)} min`,
    );
    rmSync(join(scratch, method), { recursive: true, force: true });
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

/** Blocks of so many that the first card quantizes. */
function firstCards(blocks) {
  const share = shareOf(0, cards);
  return Array.from({ length: blocks }, (_, block) => block).filter((block) => share.isMine(block, blocks)).length;
}

/** An option of ours that the command takes as it is. */
function choice(name) {
  return args[name] ? [`--${name}`, args[name]] : [];
}

/** Seconds from the start on: of the beginning of each block, of the last linear of each, of the writing and of the end. */
function run(command) {
  return new Promise((resolve, reject) => {
    const start = performance.now();
    const now = () => (performance.now() - start) / 1000;
    const child = spawn(process.execPath, ["dist/node/cli/main.js", ...command], { stdio: ["ignore", "pipe", "pipe"] });
    const begins = [];
    const ends = [];
    let writing = 0;
    let told = "";
    const reader = () => {
      let rest = "";
      return (chunk) => {
        const lines = (rest + chunk).split("\n");
        rest = lines.pop();
        told = rest || lines.at(-1) || told;
        read(lines);
      };
    };
    const read = (lines) => {
      for (const line of lines) {
        const block = /, block (\d+) of/.exec(line);
        if (block) begins[Number(block[1]) - 1] ??= now();
        const done = /^\s*(\d+)\.mlp\.down_proj/.exec(line);
        if (done) ends[Number(done[1])] = now();
        if (/, writing /.test(line)) writing ||= now();
        if (!/^\s/.test(line)) console.log(`${now().toFixed(1).padStart(6)} s  ${line}`);
      }
    };
    child.stdout.on("data", reader());
    child.stderr.on("data", reader());
    child.on("error", reject);
    child.on("close", (code) => {
      if (code === 0) resolve({ begins, ends, writing, end: now() });
      else reject(new Error(`exit code ${code}: ${told}`));
    });
  });
}
