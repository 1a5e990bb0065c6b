import { resourceUsage } from "node:process";
import type { Engine } from "../../../engine/engine.js";
import { usageError } from "../../../errors.js";
import { blockParameters } from "../../../model/tensors.js";
import type { PlannedLinear } from "../../../pipeline/plan.js";
import { DEFAULT_RECIPE, recipeJsonSchema } from "../../../pipeline/recipe.js";
import { type JobShare, requireIndependent } from "../../../pipeline/share.js";
import { formatBits, formatBytes, formatCount, formatSeconds, formatSmall } from "../../../report/format.js";
import { tableOf } from "../../../report/table.js";
import { requireCards, sharedOut } from "../../devices.js";
import { estimate, journalFolder, type PreparedJob, prepareJob, runJob } from "../../quantize.js";
import { type AddCommand, type CommandContext, type Handler, withEngine } from "../command.js";
import { addQuantizeOptions, type QuantizeOptions, readRecipe } from "../quantize-options.js";
import { createQuantizeView, shortName } from "../quantize-view.js";

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
  3 bits on a plain grid, trained block by block (OmniQuant), for other engines:
    $ bitwright quantize original/ -o quantized/ --method omniquant --bits 3 --group 128 --format gptq_v2
  Weights and activations in 4 bits:
    $ bitwright quantize original/ -o quantized/ --method omniquant --bits 4 --group channel --activations 4
  On two NVIDIA cards (each linear is measured on the full-precision model, so they need not wait for each other):
    $ bitwright quantize original/ -o quantized/ --engine cuda --devices 0,1 --propagate full --asymmetric 0
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

The checkpoint has the published VPTQ format where that can hold it, else Bitwright's own (docs/FORMAT.md).
Then: bitwright eval quantized/ --against original/`;

export const addQuantize: AddCommand = (program, attach) => {
  const command = program
    .command("quantize")
    .summary("make a model smaller")
    .description("Quantizes the linears of a Hugging Face checkpoint and writes a new one.")
    .argument("[model]", "folder of a full-precision checkpoint");
  addQuantizeOptions(command);
  command.addHelpText("after", EXAMPLES);
  attach(command, quantizeModel);
};

const quantizeModel: Handler<QuantizeOptions> = async ([path], options, context) => {
  if (options.recipeSchema) {
    const schema = recipeJsonSchema();
    context.terminal.document(schema as Record<string, unknown>);
    context.terminal.print(JSON.stringify(schema, null, 2));
    return;
  }
  if (path === undefined) throw usageError("missing required argument 'model'", "bitwright quantize --help");
  if (options.output === undefined && !options.dryRun)
    throw usageError("missing required option '-o, --output <folder>'", "bitwright quantize --help, or --dry-run");
  const input = await readRecipe(options, context.terminal);
  const job = await prepareJob(path, input, options.calibration, options.format);
  const { devices = [], engine: choice } = options;
  const several = devices.length > 1;
  let share: JobShare | undefined;
  try {
    if (several) requireIndependent(job.planned, job.recipe);
    if (several && choice !== "auto") await requireCards(devices, choice);
    if (several && !options.dryRun) share = shareOf(path, job, options, devices, context.signal);
    await withEngine({ ...options, device: devices[0] ?? options.device }, context, async (engine) => {
      if (several && choice === "auto") await requireCards(devices, engine.name);
      await (options.dryRun
        ? dryRun(path, job, options, engine, context)
        : run(path, job, options, engine, share, context));
    });
  } finally {
    share?.cancel?.();
    await job.model.close();
  }
};

async function run(
  path: string,
  job: PreparedJob,
  options: QuantizeOptions,
  engine: Engine,
  share: JobShare | undefined,
  context: CommandContext,
) {
  const { terminal, signal } = context;
  const output = options.output as string;
  noteCalibration(job, terminal);
  const view = createQuantizeView(terminal);
  const result = await runJob(job, output, {
    engine,
    resume: options.resume,
    overwrite: options.overwrite,
    format: options.format,
    maxShardBytes: options.maxShardSize,
    activationMemory: options.activationMemory,
    share,
    onEvent: view.onEvent,
    signal,
  }).finally(() => view.stop());
  const { format, formatReason, bitsPerWeight, meanProxyError, tensorBytes, seconds } = result;
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
  // affine codes never go into the published VPTQ layout: nobody asks why
  const expectsPublished = job.planned.every(({ plan }) => plan.method === "vptq" || plan.method === "keep");
  terminal.print(
    `${output}: ${formatBits(bitsPerWeight)} bits per weight, ${formatBytes(tensorBytes)}, in ${formatSeconds(seconds)}`,
  );
  terminal.print(
    `  ${format} format${expectsPublished && formatReason !== undefined ? ` (${formatReason})` : ""}, mean proxy error ${formatSmall(meanProxyError)}`,
  );
  terminal.note(`what it cost: bitwright eval ${output} --against ${path}`);
}

/** With several --devices: the other processes, which get ready beside this one. Only the cuda engine has cards to choose from. */
function shareOf(
  path: string,
  job: PreparedJob,
  { output = "", format, precision, deviceMemory }: QuantizeOptions,
  devices: readonly number[],
  signal: AbortSignal,
): JobShare {
  const order = {
    model: path,
    recipe: job.recipe,
    calibration: job.calibration,
    format,
    journal: journalFolder(output),
    engine: "cuda",
  } as const;
  return sharedOut(
    order,
    devices.map((device) => ({ device, precision, deviceMemory })),
    signal,
  );
}

function noteCalibration({ calibration, recipe }: PreparedJob, terminal: CommandContext["terminal"]): void {
  if (!calibration || recipe.samples >= DEFAULT_RECIPE.samples) return;
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
