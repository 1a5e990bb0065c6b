import { resourceUsage } from "node:process";
import { type Command, InvalidArgumentError, Option } from "commander";
import { usageError } from "../../../errors.js";
import { blockParameters } from "../../../model/tensors.js";
import type { PlannedLinear } from "../../../pipeline/plan.js";
import { DEFAULT_RECIPE, METHODS, type RecipeInput, recipeJsonSchema, recipeSchema } from "../../../pipeline/recipe.js";
import type { RecordLayout } from "../../../quant/bits.js";
import { formatBits, formatBytes, formatCount, formatSeconds, formatSmall } from "../../../report/format.js";
import { tableOf } from "../../../report/table.js";
import { readJsonFile } from "../../folder.js";
import { estimate, type PreparedJob, prepareJob, runJob } from "../../quantize.js";
import { BUNDLED_TEXTS } from "../../texts.js";
import { type AddCommand, type CommandContext, type Handler, withEngine } from "../command.js";
import {
  addCommonOptions,
  addEngineOptions,
  byteSize,
  type CommonOptions,
  type EngineOptions,
  numberBetween,
  wholeNumber,
} from "../options.js";
import { createQuantizeView, shortName } from "../quantize-view.js";

interface JobOptions extends CommonOptions, EngineOptions {
  output?: string;
  calibration: string;
  recipe?: string;
  resume: boolean;
  overwrite: boolean;
  dryRun: boolean;
  layout?: RecordLayout;
  maxShardSize?: number;
  activationMemory?: number;
}
/** The words of a recipe that have an option of the same name. */
type RecipeOptions = Omit<RecipeInput, "overrides">;
type QuantizeOptions = JobOptions & RecipeOptions;

const EXAMPLES = `
Examples:
  2 bits with VPTQ, calibrated on the bundled slice of C4:
    $ bitwright quantize original/ -o quantized/
  What that would store, take and need, without doing it:
    $ bitwright quantize original/ --dry-run
  4 bits with a residual codebook, calibrated on a text of your own:
    $ bitwright quantize original/ -o quantized/ --residual 256 --calibration corpus.jsonl --samples 128 --window 2048
  The most sensitive 2 % of the columns with a codebook of their own:
    $ bitwright quantize original/ -o quantized/ --outliers 2 --outlier-vector-length 2 --outlier-codebook 256
  The neighbours, for comparison:
    $ bitwright quantize original/ -o gptq/ --method gptq --bits 3 --group 128 --act-order
    $ bitwright quantize original/ -o rtn/ --method rtn --bits 4 --group channel
  Go on after Ctrl-C, a crash or a power cut; the result has the same bytes:
    $ bitwright quantize original/ -o quantized/ --resume
  A recipe file says the same words in camel case, and gives some linears another scheme (options win over the file):
    $ echo '{"method": "vptq", "overrides": [{"match": "*.mlp.down_proj", "residual": [256]},
             {"match": "model.layers.0.*", "keep": true}]}' > recipe.json
    $ bitwright quantize original/ -o quantized/ --recipe recipe.json
  The JSON Schema of a recipe:
    $ bitwright quantize --recipe-schema

The checkpoint has the published VPTQ layout where that can hold it, else Bitwright's own (docs/FORMAT.md).
Then: bitwright eval quantized/ --against original/`;

const D = DEFAULT_RECIPE;
const onlyVptq = [
  "vectorLength",
  "codebook",
  "residual",
  "outliers",
  "outlierVectorLength",
  "outlierCodebook",
  "groups",
];
const onlyVptqToo = ["norm", "refine", "beam", "iterations"];
const onlyAffine = ["bits", "group", "symmetric", "actOrder"];

export const addQuantize: AddCommand = (program, attach) => {
  const command = program
    .command("quantize")
    .summary("make a model smaller")
    .description("Quantizes the linears of a Hugging Face checkpoint and writes a new one.")
    .argument("[model]", "folder of a full-precision checkpoint")
    .option("-o, --output <folder>", "folder to write; it appears when it is complete")
    .addOption(new Option("--method <name>", `how codes are chosen (default: ${D.method})`).choices(METHODS))
    .option("--recipe <file>", "JSON file with these words in camel case, and overrides by name");
  addVptqOptions(command);
  addAffineOptions(command);
  addJobOptions(command);
  addCommonOptions(addEngineOptions(command)).addHelpText("after", EXAMPLES);
  attach(command, quantizeModel);
};

function addVptqOptions(command: Command): void {
  const collect = (text: string, earlier: number[] = []): number[] => [...earlier, wholeNumber(2, 65536)(text)];
  command
    .optionsGroup("VPTQ:")
    .option("--vector-length <v>", `weights in a vector (default: ${D.vectorLength})`, wholeNumber(1, 64))
    .option("--codebook <size>", `codewords, a power of two (default: ${D.codebook})`, wholeNumber(2, 65536))
    .option("--residual <size>", "codewords of a residual stage; repeat it for more stages", collect)
    .option(
      "--outliers <percent>",
      "share of the columns with a codebook of their own (default: 0)",
      numberBetween(0, 50),
    )
    .option("--outlier-vector-length <v>", `(default: ${D.outlierVectorLength})`, wholeNumber(1, 64))
    .option("--outlier-codebook <size>", `(default: ${D.outlierCodebook})`, wholeNumber(2, 65536))
    .option(
      "--groups <count>",
      `column groups with codebooks of their own (default: ${D.groups})`,
      wholeNumber(1, 1024),
    )
    .addOption(new Option("--norm <axis>", `normalise first (default: ${D.norm})`).choices(["none", "column", "row"]))
    .option(
      "--refine <rounds>",
      `rounds of refitted centroids and indices; 0 as published (default: ${D.refine})`,
      wholeNumber(0, 50),
    )
    .option(
      "--beam <count>",
      `first-stage candidates tried with the residual stages (default: ${D.beam})`,
      wholeNumber(1, 64),
    )
    .option("--iterations <count>", `most iterations of k-means (default: ${D.iterations})`, wholeNumber(1, 10000));
}

function addAffineOptions(command: Command): void {
  const group = (text: string): number | "channel" => {
    if (text === "channel") return "channel";
    try {
      return wholeNumber(1, 1 << 20)(text);
    } catch {
      throw new InvalidArgumentError('Expected a number of columns, or "channel" for one group a row.');
    }
  };
  const bits = (text: string): number => {
    if (!["2", "3", "4", "8"].includes(text)) throw new InvalidArgumentError("Expected 2, 3, 4 or 8.");
    return Number(text);
  };
  command
    .optionsGroup("GPTQ and RTN:")
    .option("--bits <bits>", `2, 3, 4 or 8 (default: ${D.bits})`, bits)
    .option("--group <columns>", `columns that share a scale, or "channel" (default: ${D.group})`, group)
    .option("--symmetric", "no zero-points")
    .option("--act-order", "GPTQ: the most active columns first");
}

function addJobOptions(command: Command): void {
  command
    .optionsGroup("Calibration:")
    .option(
      "--calibration <file>",
      `plain text, .jsonl with a "text" field, or one of ${Object.keys(BUNDLED_TEXTS).join(", ")}`,
      "c4",
    )
    .option(
      "--samples <count>",
      `windows of the text (default: ${D.samples}, or what it gives)`,
      wholeNumber(1, 1_000_000),
    )
    .option(
      "--window <tokens>",
      `tokens in a window (default: ${D.window}, or the model's context)`,
      wholeNumber(2, 1 << 20),
    )
    .option("--seed <number>", `of everything random (default: ${D.seed})`, wholeNumber(0, 0xffffffff))
    .addOption(
      new Option("--propagate <stream>", `inputs a layer is measured on (default: ${D.propagate})`).choices([
        "full",
        "quantized",
      ]),
    )
    .option(
      "--asymmetric <share>",
      `correction towards the full-precision stream, 0-1 (default: ${D.asymmetric})`,
      numberBetween(0, 1),
    )
    .option("--damping <share>", `of the Hessian's mean diagonal (default: ${D.damping})`, numberBetween(1e-6, 1))
    .optionsGroup("Job:")
    .option("--resume", "go on with unfinished work of the same job", false)
    .option("--overwrite", "replace the output folder, drop unfinished work", false)
    .option("--dry-run", "print the bits, bytes, memory and time; touch nothing", false)
    .addOption(
      new Option("--layout <name>", "layout of the checkpoint (default: vptq where it fits)").choices([
        "vptq",
        "bitwright",
      ]),
    )
    .option("--max-shard-size <size>", "largest weight file, such as 5GB", byteSize(1e6))
    .option(
      "--activation-memory <size>",
      "activations in memory, the rest on disk (default: half of the free)",
      byteSize(0),
    )
    .option("--recipe-schema", "print the JSON Schema of a recipe and end")
    .optionsGroup("Options:");
}

const quantizeModel: Handler<QuantizeOptions & { recipeSchema?: boolean }> = async ([path], options, context) => {
  if (options.recipeSchema) {
    const schema = recipeJsonSchema();
    context.terminal.document(schema as Record<string, unknown>);
    context.terminal.print(JSON.stringify(schema, null, 2));
    return;
  }
  if (path === undefined) throw usageError("missing required argument 'model'", "bitwright quantize --help");
  if (options.output === undefined && !options.dryRun)
    throw usageError("missing required option '-o, --output <folder>'", "bitwright quantize --help, or --dry-run");
  const input = await readRecipe(options, context);
  const job = await prepareJob(path, input, options.calibration, options.layout);
  try {
    await withEngine(options, context, (engine) =>
      options.dryRun ? dryRun(path, job, options, engine, context) : run(path, job, options, engine, context),
    );
  } finally {
    await job.model.close();
  }
};

/** The recipe file with the words of the command line over it. */
async function readRecipe(options: QuantizeOptions, { terminal }: CommandContext): Promise<RecipeInput> {
  const file = options.recipe === undefined ? {} : await readJsonFile(options.recipe);
  if (typeof file !== "object" || file === null || Array.isArray(file))
    throw usageError(`${options.recipe}: expected a JSON object`, "see the examples in bitwright quantize --help");
  const words: Record<string, unknown> = { ...file };
  for (const word of Object.keys(recipeSchema.shape)) {
    if (word in options) words[word] = options[word as keyof QuantizeOptions];
  }
  if (options.recipe === undefined) {
    const idle = words.method === undefined || words.method === "vptq" ? onlyAffine : [...onlyVptq, ...onlyVptqToo];
    const given = idle.filter((word) => words[word] !== undefined);
    if (given.length > 0) {
      const names = given.map((word) => `--${word.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`);
      terminal.warn(`${names.join(", ")}: no meaning for the method ${words.method ?? D.method}`);
    }
  }
  return words as RecipeInput;
}

type Engine = Parameters<Parameters<typeof withEngine>[2]>[0];

async function run(path: string, job: PreparedJob, options: QuantizeOptions, engine: Engine, context: CommandContext) {
  const { terminal, signal } = context;
  const output = options.output as string;
  noteCalibration(job, terminal);
  const view = createQuantizeView(terminal);
  const result = await runJob(job, output, {
    engine,
    resume: options.resume,
    overwrite: options.overwrite,
    layout: options.layout,
    maxShardBytes: options.maxShardSize,
    activationMemory: options.activationMemory,
    onEvent: view.onEvent,
    signal,
  }).finally(() => view.stop());
  const { layout, layoutReason, bitsPerWeight, meanProxyError, tensorBytes, seconds } = result;
  terminal.document({
    model: path,
    output,
    ...result,
    linears: result.linears.map(({ type: _, ...linear }) => linear),
    calibration: job.calibration?.name,
    engine: engine.name,
    threads: engine.threads,
    peakMemoryBytes: resourceUsage().maxRSS * 1024,
    blockBytes: 4 * blockParameters(job.model.model),
  });
  terminal.print(
    `${output}: ${formatBits(bitsPerWeight)} bits per weight, ${formatBytes(tensorBytes)}, in ${formatSeconds(seconds)}`,
  );
  terminal.print(
    `  ${layout} layout${layoutReason === undefined ? "" : ` (${layoutReason})`}, mean proxy error ${formatSmall(meanProxyError)}`,
  );
  terminal.note(`what it cost: bitwright eval ${output} --against ${path}`);
}

function noteCalibration({ calibration, recipe }: PreparedJob, terminal: CommandContext["terminal"]): void {
  if (!calibration || recipe.samples >= D.samples) return;
  const { name, tokens } = calibration;
  terminal.note(
    `calibration: ${name} has ${formatCount(tokens.length)} tokens, ${recipe.samples} windows of ${recipe.window} are used; a longer text is better`,
  );
}

async function dryRun(
  path: string,
  job: PreparedJob,
  options: QuantizeOptions,
  engine: Engine,
  context: CommandContext,
) {
  const { terminal } = context;
  const { planned, totals, recipe } = job;
  const costs = await estimate(job, engine, options.activationMemory);
  const describe = ({ plan }: PlannedLinear): string => {
    if (plan.method === "keep") return "kept";
    if (plan.method !== "vptq") return `${plan.method}, ${plan.scheme.bits} bits, group ${plan.scheme.group}`;
    const { vectorLength, codebook, residuals } = plan.scheme;
    return `vptq, v${vectorLength} k${[codebook, ...residuals].join(" + ")}`;
  };
  const bitsOf = ({ bits, spec }: PlannedLinear): number => bits / (spec.rows * spec.columns);
  terminal.document({
    dryRun: true,
    model: path,
    recipe,
    calibration: job.calibration?.name,
    linears: planned.map((linear) => ({
      name: linear.spec.name,
      rows: linear.spec.rows,
      columns: linear.spec.columns,
      method: linear.plan.method,
      bitsPerWeight: bitsOf(linear),
      bytes: linear.bits / 8,
    })),
    bitsPerWeight: totals.bitsPerWeight,
    bytes: totals.bits / 8,
    estimate: costs,
    engine: engine.name,
  });
  terminal.table(
    tableOf(planned, [
      { title: "linear", align: "left", value: ({ spec }) => shortName(spec.name) },
      { title: "rows x columns", value: ({ spec }) => `${spec.rows} x ${spec.columns}` },
      { title: "as", align: "left", value: describe },
      { title: "bits/weight", value: (linear) => formatBits(bitsOf(linear)) },
      { title: "bytes", value: ({ bits }) => formatBytes(Math.ceil(bits / 8)) },
    ]),
  );
  terminal.print(
    `${totals.linears} linears${totals.kept > 0 ? ` (${totals.kept} kept)` : ""}: ${formatBits(totals.bitsPerWeight)} bits per weight, ${formatBytes(Math.ceil(totals.bits / 8))}`,
  );
  terminal.print(
    `memory  about ${formatBytes(costs.memoryBytes)} and the program's own (${formatBytes(costs.activationBytes)} of activations)`,
  );
  terminal.print(`time    about ${formatSeconds(costs.seconds)} on the ${engine.name} engine`);
  terminal.print("nothing was written");
}
