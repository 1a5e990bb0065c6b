import { type Command, InvalidArgumentError, Option } from "commander";
import { SCHEDULES } from "../../autograd/index.js";
import { usageError } from "../../errors.js";
import {
  CLIP_RECIPE,
  DEFAULT_RECIPE,
  METHODS,
  type MethodName,
  type RecipeInput,
  recipeSchema,
} from "../../pipeline/recipe.js";
import { CHECKPOINT_FORMATS, type CheckpointFormat } from "../../quant/bits.js";
import { BUNDLED_TEXTS } from "../texts.js";
import {
  addCommonOptions,
  addEngineOptions,
  byteSize,
  type CommonOptions,
  type EngineOptions,
  numberBetween,
  readJsonOption,
  wholeNumber,
} from "./options.js";
import type { Terminal } from "./terminal.js";

// The options of `bitwright quantize`, and the recipe that they and a recipe file make together.

interface JobOptions extends CommonOptions, EngineOptions {
  output?: string;
  calibration: string;
  recipe?: string;
  resume: boolean;
  overwrite: boolean;
  dryRun: boolean;
  format?: CheckpointFormat;
  maxShardSize?: number;
  activationMemory?: number;
  devices?: number[];
  recipeSchema?: boolean;
}
/** The words of a recipe that have an option of the same name. */
type RecipeOptions = Omit<RecipeInput, "overrides">;
export type QuantizeOptions = JobOptions & RecipeOptions;

const D = DEFAULT_RECIPE;
/** Words that only some methods know. */
const VPTQ_WORDS =
  "vectorLength codebook residual outliers outlierVectorLength outlierCodebook groups norm refine beam iterations".split(
    " ",
  );
const AFFINE_WORDS = "bits group symmetric actOrder".split(" ");
const OMNIQUANT_WORDS =
  "epochs batch schedule warmUp clipNorm clipSpikes lwc lwcLr let letLr augment train tuneEpochs scaleLr zeroLr weightLr".split(
    " ",
  );
/** Words that the command line can only switch off. */
const NEGATED_WORDS = new Set(["lwc", "augment"]);
/** Words without a meaning for a method. */
const IDLE_WORDS: Readonly<Record<MethodName, readonly string[]>> = {
  vptq: [...AFFINE_WORDS, ...OMNIQUANT_WORDS],
  omniquant: [...VPTQ_WORDS, "actOrder", "propagate", "asymmetric", "correctionShare", "damping"],
  gptq: [...VPTQ_WORDS, ...OMNIQUANT_WORDS],
  rtn: [...VPTQ_WORDS, ...OMNIQUANT_WORDS, "actOrder"],
};

/** Adds every option of the command, in groups. */
export function addQuantizeOptions(command: Command): void {
  command
    .option("-o, --output <folder>", "folder to write; it appears when it is complete")
    .addOption(new Option("--method <name>", `how codes are chosen (default: ${D.method})`).choices(METHODS))
    .option("--recipe <file>", "JSON file with these words in camel case, and overrides by name");
  addVptqOptions(command);
  addAffineOptions(command);
  addOmniquantOptions(command);
  addJobOptions(command);
  addCommonOptions(addEngineOptions(command));
}

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
    .addOption(
      new Option("--norm <axis>", `normalise first (default: ${D.norm})`).choices(["none", "column", "row", "both"]),
    )
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
    if (!["2", "3", "4", "6", "8"].includes(text)) throw new InvalidArgumentError("Expected 2, 3, 4, 6 or 8.");
    return Number(text);
  };
  command
    .optionsGroup("OmniQuant, GPTQ and RTN:")
    .option("--bits <bits>", `2, 3, 4, 6 or 8 (default: ${D.bits})`, bits)
    .option("--group <columns>", `columns that share a scale, or "channel" (default: ${D.group})`, group)
    .option("--symmetric", "no zero-points")
    .option("--act-order", "GPTQ: the most active columns first");
}

function addOmniquantOptions(command: Command): void {
  const oneOf =
    (...allowed: number[]) =>
    (text: string) => {
      if (allowed.includes(Number(text))) return Number(text);
      throw new InvalidArgumentError(`Expected ${allowed.join(", ")}.`);
    };
  const rate = numberBetween(0, 10);
  command
    .optionsGroup("OmniQuant:")
    .option(
      "--epochs <count>",
      `passes over the calibration windows (default: ${D.epochs}, with --train clip ${CLIP_RECIPE.epochs})`,
      wholeNumber(0, 10_000),
    )
    .option("--batch <windows>", `windows a training step (default: ${D.batch})`, wholeNumber(1, 1024))
    .addOption(
      new Option("--schedule <shape>", `how learning rates fall in each training (default: ${D.schedule})`).choices(
        SCHEDULES,
      ),
    )
    .option(
      "--warm-up <steps>",
      `first steps, at most a tenth, in which learning rates rise (default: ${D.warmUp}, with --train clip ${CLIP_RECIPE.warmUp})`,
      wholeNumber(0, 1_000_000),
    )
    .option(
      "--clip-norm <norm>",
      `most norm of a step's gradients, 0 for no bound (default: ${D.clipNorm})`,
      numberBetween(0, 1e6),
    )
    .option(
      "--clip-spikes <times>",
      `the same in units of the norms' running mean, more than 1 (default: ${D.clipSpikes}, with --train clip ${CLIP_RECIPE.clipSpikes})`,
      numberBetween(0, 1e6),
    )
    .option("--lwc-lr <rate>", `learning rate of the clipping (default: ${D.lwcLr})`, rate)
    .option("--let-lr <rate>", `learning rate of the transformation (default: ${D.letLr})`, rate)
    .option("--no-lwc", "without learned weight clipping")
    .option(
      "--let",
      "with the learned equivalent transformation (default; with --train clip only for activations, and for models with layer norms)",
    )
    .option("--no-let", "without it")
    .option("--no-augment", "without the full-precision block's answer to the quantized stream in the target")
    .addOption(
      new Option(
        "--train <what>",
        `clip; then also scales and zeros; then also the weights (default: ${D.train})`,
      ).choices(["clip", "scale", "weight"]),
    )
    .option(
      "--tune-epochs <count>",
      `passes of that second training (default: ${D.tuneEpochs})`,
      wholeNumber(0, 10_000),
    )
    .option("--scale-lr <rate>", `of log scales (default: ${D.scaleLr})`, rate)
    .option("--zero-lr <rate>", `of zeros (default: ${D.zeroLr})`, rate)
    .option("--weight-lr <rate>", `of weights, in units of their mean size (default: ${D.weightLr})`, rate)
    .optionsGroup("Activations, quantized while the model runs (any method):")
    .option("--activations <bits>", "4, 6, 8, or 16 for none: inputs of linears, query, key, value", oneOf(4, 6, 8, 16))
    .option("--kv <bits>", "4, 8, or 16 for none: keys and values (default: as --activations)", oneOf(4, 8, 16));
}

/** "0,1": numbers of different cards. */
function deviceList(text: string): number[] {
  const devices = text.split(",").map(wholeNumber(0, 1024));
  if (new Set(devices).size === devices.length) return devices;
  throw new InvalidArgumentError("Expected different cards.");
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
    .option(
      "--correction-share <share>",
      `share of the windows that measure it (default: ${D.correctionShare}, more of few)`,
      numberBetween(0, 1),
    )
    .option("--damping <share>", `of the Hessian's mean diagonal (default: ${D.damping})`, numberBetween(1e-6, 1))
    .optionsGroup("Job:")
    .option("--devices <list>", "cards that do the job together, such as 0,1 (with --propagate full)", deviceList)
    .option("--resume", "go on with unfinished work of the same job", false)
    .option("--overwrite", "replace the output folder, drop unfinished work", false)
    .option("--dry-run", "print the bits, bytes, memory and time; touch nothing", false)
    .addOption(
      new Option("--format <name>", "format of the checkpoint (default: vptq where it fits, else bitwright)").choices(
        CHECKPOINT_FORMATS,
      ),
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

/** The recipe file with the words of the command line over it. */
export async function readRecipe(options: QuantizeOptions, terminal: Terminal): Promise<RecipeInput> {
  const file = options.recipe === undefined ? {} : await readJsonOption(options.recipe);
  if (typeof file !== "object" || file === null || Array.isArray(file))
    throw usageError(`${options.recipe}: expected a JSON object`, "see the examples in bitwright quantize --help");
  const words: Record<string, unknown> = { ...file };
  for (const word of Object.keys(recipeSchema.shape)) {
    // a `--no-x` option is true when it was not given
    const isSilent = NEGATED_WORDS.has(word) && options[word as keyof QuantizeOptions] === true;
    if (word in options && !isSilent) words[word] = options[word as keyof QuantizeOptions];
  }
  if (options.recipe === undefined) {
    const method = METHODS.find((name) => name === words.method) ?? D.method;
    const given = IDLE_WORDS[method].filter((word) => words[word] !== undefined);
    if (given.length > 0) {
      const names = given.map((word) => `--${word.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`);
      terminal.warn(`${names.join(", ")}: no meaning for the method ${method}`);
    }
  }
  return words as RecipeInput;
}
