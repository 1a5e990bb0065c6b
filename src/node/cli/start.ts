import { join } from "node:path";
import type { Engine } from "../../engine/engine.js";
import { evaluateAll } from "../../eval/index.js";
import type { QuantizeResult } from "../../pipeline/job.js";
import type { RecipeInput } from "../../pipeline/recipe.js";
import { type ComparisonRow, comparisonTable } from "../../report/comparison.js";
import { formatBytes, formatPerplexity, formatSeconds } from "../../report/format.js";
import { weightFileBytes } from "../../report/inspection.js";
import { encodePrompt, generate, type RunnableModel } from "../../runtime/index.js";
import { consecutiveWindows } from "../../text/windows.js";
import { createEngine } from "../engines.js";
import { openModelAt } from "../models.js";
import { packageFolder } from "../package.js";
import { prepareJob, runJob } from "../quantize.js";
import { readText } from "../texts.js";
import { EXIT, runProcess } from "./process.js";
import { createProgress } from "./progress.js";
import { createQuantizeView } from "./quantize-view.js";
import { createTerminal, type Terminal } from "./terminal.js";

// The quickstart: the bundled model made smaller in four ways, measured, written, loaded again and run.

const MODEL = join(packageFolder, "models", "wiki-7m");
const OUTPUT = join(packageFolder, "out");
const PROMPT = "The castle was built in";
/** A sentence ends at its first full stop, but not before some words. */
const SENTENCE_TOKENS = { least: 10, most: 48 } as const;

/** Calibration: windows of the C4 slice. Fewer than a job for keeps would take, so that it is over in a minute. */
const CALIBRATION = { samples: 32, window: 512, seed: 0 } as const;

const CANDIDATES: { name: string; folder: string; recipe: RecipeInput }[] = [
  { name: "RTN, 2 bits, groups of 64", folder: "wiki-7m-rtn", recipe: { method: "rtn", bits: 2, group: 64 } },
  { name: "GPTQ, 2 bits, groups of 64", folder: "wiki-7m-gptq", recipe: { method: "gptq", bits: 2, group: 64 } },
  {
    name: "OmniQuant, 3 bits, groups of 64",
    folder: "wiki-7m-omniquant",
    recipe: { method: "omniquant", bits: 3, group: 64, epochs: 1, tuneEpochs: 2 }, // short: three passes instead of ten
  },
  { name: "VPTQ, vectors of 4, 256 codewords", folder: "wiki-7m-vptq", recipe: { method: "vptq" } },
];

interface Candidate {
  name: string;
  folder: string;
  result: QuantizeResult;
}

async function start(terminal: Terminal, signal: AbortSignal): Promise<void> {
  const startedAt = performance.now();
  const { engine } = await createEngine("auto");
  try {
    terminal.print("Bitwright makes the bundled model (models/wiki-7m, 6.8 million parameters, 16 bits) smaller.");
    terminal.print(`Engine: ${engine.description}\n`);
    const candidates: Candidate[] = [];
    for (const candidate of CANDIDATES) candidates.push(await quantizeCandidate(candidate, engine, terminal, signal));
    const models: RunnableModel[] = [];
    try {
      // from the disk again, as anybody would load them
      for (const folder of [MODEL, ...candidates.map(({ folder }) => folder)]) {
        models.push(await openModelAt(folder, engine, candidates.length + 1));
      }
      const [full, ...quantized] = models;
      terminal.table(comparisonTable(await measure(full, quantized, candidates, terminal, signal)));
      terminal.print(
        "bits/weight counts all that is stored for the linears of the blocks; the embedding stays as it is.\n",
      );
      for (const [name, model] of [["16 bits", full] as const, ["VPTQ   ", models[models.length - 1]] as const]) {
        await stream(name, model, terminal, signal);
      }
    } finally {
      for (const model of models) await model.close();
    }
    terminal.print(
      `\nAll of it took ${formatSeconds((performance.now() - startedAt) / 1000)}. The checkpoints are in out/:`,
    );
    terminal.print("  npx bitwright inspect out/wiki-7m-vptq");
    terminal.print("  npx bitwright quantize --help");
  } finally {
    await engine.close();
  }
}

async function quantizeCandidate(
  { name, folder, recipe }: (typeof CANDIDATES)[number],
  engine: Engine,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<Candidate> {
  const output = join(OUTPUT, folder);
  terminal.print(name);
  const job = await prepareJob(MODEL, { ...recipe, ...CALIBRATION }, "c4");
  // a line for each linear where it is worth reading
  const view = createQuantizeView(terminal, { title: recipe.method, lines: recipe.method === "vptq" });
  try {
    const { onEvent } = view;
    const result = await runJob(job, output, { engine, overwrite: true, onEvent, signal });
    view.stop();
    terminal.print(`  -> out/${folder}: ${formatBytes(result.tensorBytes)} in ${formatSeconds(result.seconds)}\n`);
    return { name, folder: output, result };
  } finally {
    view.stop();
    await job.model.close();
  }
}

/** The table's rows: the full-precision model and the others, on the slice of WikiText-2. */
async function measure(
  full: RunnableModel,
  quantized: RunnableModel[],
  candidates: Candidate[],
  terminal: Terminal,
  signal: AbortSignal,
): Promise<ComparisonRow[]> {
  const { text } = await readText("wikitext2");
  const windows = consecutiveWindows((await full.tokenizer()).encode(text), full.checkpoint.model.contextLength);
  const progress = createProgress(terminal, "measuring");
  const evaluations = await evaluateAll(
    quantized.map(({ decoder }) => decoder),
    windows,
    {
      against: full.decoder,
      signal,
      onEvent: ({ model, done, windows: total, perplexity, remainingSeconds }) =>
        progress.update(
          done / total,
          model === "against" ? "full precision" : `${candidates[model].name}, ${formatPerplexity(perplexity)} so far`,
          remainingSeconds,
        ),
    },
  ).finally(() => progress.stop());
  const rows: ComparisonRow[] = [
    {
      name: "full precision",
      bitsPerWeight: 16,
      bytesOnDisk: await weightFileBytes(full.checkpoint),
      perplexity: evaluations[0].againstPerplexity ?? Number.NaN,
    },
  ];
  for (const [index, { name, result }] of candidates.entries()) {
    const { perplexity, klDivergence, topAgreement } = evaluations[index];
    const bytesOnDisk = await weightFileBytes(quantized[index].checkpoint);
    const { bitsPerWeight, seconds } = result;
    rows.push({ name, bitsPerWeight, bytesOnDisk, perplexity, klDivergence, topAgreement, seconds });
  }
  return rows;
}

/** One sentence, as it is written. */
async function stream(name: string, model: RunnableModel, terminal: Terminal, signal: AbortSignal): Promise<void> {
  const tokenizer = await model.tokenizer();
  terminal.stream(`${name} | ${PROMPT}`);
  const options = { maxTokens: SENTENCE_TOKENS.most, temperature: 0.6, topP: 0.9, seed: 1, signal };
  let tokens = 0;
  for await (const { text } of generate(model.decoder, tokenizer, encodePrompt(tokenizer, PROMPT), options)) {
    const end = ++tokens >= SENTENCE_TOKENS.least ? /[.\n]/.exec(text) : null;
    terminal.stream(end ? text.slice(0, end.index + 1).trimEnd() : text);
    if (end) break;
  }
  terminal.print();
}

await runProcess(async (signal) => {
  const terminal = createTerminal({ json: false, quiet: false, stdout: process.stdout, stderr: process.stderr });
  await start(terminal, signal);
  return EXIT.done;
});
