import type { CheckpointModel } from "../checkpoint/open.js";
import { type WrittenCheckpoint, writeQuantizedCheckpoint } from "../checkpoint/write.js";
import type { Engine } from "../engine/engine.js";
import { usageError } from "../errors.js";
import type { OutputFolder } from "../files/folder.js";
import { sha256 } from "../hash.js";
import { blockLinears } from "../model/block.js";
import type { ModelConfig } from "../model/config.js";
import type { CheckpointFormat } from "../quant/bits.js";
import { drawWindows } from "../text/windows.js";
import type { SpillFile } from "./activations.js";
import { modelBlocks } from "./block-source.js";
import type { LinearDone, OnEvent } from "./events.js";
import { type Journal, memoryJournal } from "./journal.js";
import { needsCalibration } from "./methods.js";
import { type PlannedLinear, planModel } from "./plan.js";
import { quantizeBlocks } from "./quantize.js";
import { activationsOf, DEFAULT_RECIPE, type Recipe, type RecipeInput, resolveRecipe } from "./recipe.js";
import type { JobShare } from "./share.js";

export interface QuantizeOptions {
  engine: Engine;
  /** Where the checkpoint goes; it appears whole at the end. */
  output: OutputFolder;
  /** Token ids of the calibration text, without special tokens. Methods that need no statistics need none. */
  calibration?: Int32Array;
  /** Name of the calibration text, for messages and the report. */
  calibrationName?: string;
  /** Keeps finished linears; with `resume` a journal of the same job is continued. Default: memory. */
  journal?: Journal;
  resume?: boolean;
  /** Default: the published VPTQ layout where it holds every record, else our own. */
  format?: CheckpointFormat;
  maxShardBytes?: number;
  /** Bytes of activations held in memory; beyond it they go to `createSpill`'s file, if given. Default: no bound. */
  activationMemory?: number;
  /** Bytes that the activations of a training step may take; beyond it they are computed again. Default: no bound. */
  trainingMemory?: number;
  createSpill?: () => Promise<SpillFile>;
  /** Other runs of the same job over the same journal, on other devices. Default: this run does all of it. */
  share?: JobShare;
  onEvent?: OnEvent;
  signal?: AbortSignal;
}

export interface QuantizeResult {
  format: CheckpointFormat;
  /** Why it is not the published layout, when that was not asked for. */
  formatReason?: string;
  /** All stored bits of the quantized linears over their weights. */
  bitsPerWeight: number;
  /** Mean of the relative proxy errors. */
  meanProxyError: number;
  /** Bytes of all tensors written. */
  tensorBytes: number;
  seconds: number;
  linears: LinearDone[];
  /** The recipe as it was resolved. */
  recipe: Recipe;
  peakActivationBytes: number;
  spilledBytes: number;
}

/** Tokens from which on more of them hardly sharpen the correction: above, a share of the windows measures it. */
const CORRECTION_TOKENS = 32_768;

/**
 * Defaults that depend on the model and the text: the window is its context at most, the samples what the text gives, and
 * the correction is measured on a quarter of the windows where that is tokens enough. With `train: "clip"` weights alone are
 * quantized without the transformation, as OmniQuant's released code does it with LLaMA; with OPT it transforms (here: models with
 * layer norms).
 */
export function fitRecipe(input: RecipeInput, config: ModelConfig, tokens: number | undefined): Recipe {
  const recipe = resolveRecipe(input);
  if (input.window === undefined) recipe.window = Math.min(DEFAULT_RECIPE.window, config.contextLength);
  if (input.samples === undefined && tokens !== undefined) {
    recipe.samples = Math.max(1, Math.min(DEFAULT_RECIPE.samples, Math.floor(tokens / recipe.window)));
  }
  if (input.correctionShare === undefined) {
    const enough = CORRECTION_TOKENS / (recipe.samples * recipe.window);
    recipe.correctionShare = Math.min(1, Math.max(DEFAULT_RECIPE.correctionShare, enough));
  }
  if (input.let === undefined && recipe.train === "clip") {
    recipe.let = config.norm === "layer" || activationsOf(recipe) !== undefined;
  }
  return recipe;
}

/** Every linear of a model's blocks, planned. */
export function planOf(config: ModelConfig, recipe: Recipe, format?: CheckpointFormat): PlannedLinear[] {
  return planModel(
    Array.from({ length: config.layers }, (_, block) => blockLinears(config, block)),
    recipe,
    format,
  );
}

/**
 * Quantizes a full-precision checkpoint by a recipe and writes the result. On failure or abort nothing is written, and the
 * journal holds what was finished. Throws "usage" for a recipe or text that does not fit, "numeric" for NaN or infinity.
 */
export async function quantize(
  model: CheckpointModel,
  input: RecipeInput,
  options: QuantizeOptions,
): Promise<QuantizeResult> {
  const startedAt = performance.now();
  const { output, onEvent } = options;
  try {
    const { recipe, planned, outcome } = await quantizeLinears(model, input, options);
    const written = await write(model, recipe, planned, outcome, options);
    const seconds = (performance.now() - startedAt) / 1000;
    const { bitsPerWeight, meanProxyError, linears, peakActivationBytes, spilledBytes } = outcome;
    onEvent?.({ type: "done", linears: linears.length, bitsPerWeight, seconds, meanProxyError });
    return {
      format: written.format,
      formatReason: written.reason,
      bitsPerWeight,
      meanProxyError,
      tensorBytes: written.tensorBytes,
      seconds,
      linears,
      recipe,
      peakActivationBytes,
      spilledBytes,
    };
  } catch (error) {
    await output.discard();
    throw error;
  }
}

/** The work of `quantize` before the writing: every linear, or those of a share, is in the journal afterwards. */
export async function quantizeLinears(
  model: CheckpointModel,
  input: RecipeInput,
  options: Omit<QuantizeOptions, "output" | "maxShardBytes">,
): Promise<{ recipe: Recipe; planned: PlannedLinear[]; outcome: Outcome }> {
  const { engine, journal = memoryJournal(), resume = false } = options;
  if (model.format !== "plain") {
    throw usageError(
      `${model.folder.name} is quantized already (${model.format})`,
      "start from the full-precision checkpoint",
    );
  }
  const recipe = fitRecipe(input, model.model, options.calibration?.length);
  const planned = planOf(model.model, recipe, options.format);
  if (planned.every(({ plan }) => plan.method === "keep")) {
    throw usageError("the recipe keeps every linear as it is", "remove a `keep` from its overrides");
  }
  const windows = planned.some(({ plan }) => needsCalibration(plan)) ? calibrationWindows(recipe, options) : [];
  const source = modelBlocks(engine, model.model, model.weights, windows);
  try {
    const { format, activationMemory, trainingMemory, createSpill, share, onEvent, signal } = options;
    const outcome = await quantizeBlocks({
      ...{ engine, planned, recipe, windows, journal, resume, source },
      ...{ format, activationMemory, trainingMemory, createSpill, share, onEvent, signal },
      modelName: model.folder.name,
      modelIdentity: await modelIdentity(model),
      model: model.model,
    });
    return { recipe, planned, outcome };
  } finally {
    source.close();
  }
}

function calibrationWindows(
  recipe: Recipe,
  options: Pick<QuantizeOptions, "calibration" | "calibrationName">,
): Int32Array[] {
  if (!options.calibration)
    throw usageError(`${recipe.method} needs a calibration text`, "give one with --calibration");
  return drawWindows(options.calibration, {
    count: recipe.samples,
    length: recipe.window,
    seed: recipe.seed,
    name: options.calibrationName,
  });
}

type Outcome = Awaited<ReturnType<typeof quantizeBlocks>>;

async function write(
  model: CheckpointModel,
  recipe: Recipe,
  planned: PlannedLinear[],
  outcome: Outcome,
  options: QuantizeOptions,
): Promise<WrittenCheckpoint> {
  const round = (value: number) => Number(value.toPrecision(6));
  let announced = false;
  return writeQuantizedCheckpoint({
    source: model,
    output: options.output,
    names: planned.filter(({ plan }) => plan.method !== "keep").map(({ spec }) => spec.name),
    record: outcome.record,
    vectors: outcome.vectors,
    activations: activationsOf(recipe),
    format: options.format,
    maxShardBytes: options.maxShardBytes,
    signal: options.signal,
    onTensor: (_written, total) => {
      if (!announced) options.onEvent?.({ type: "writing", bytes: total });
      announced = true;
    },
    // no times and no machine: the same job gives the same bytes
    report: {
      version: 1,
      recipe,
      calibration: options.calibrationName ?? null,
      bitsPerWeight: round(outcome.bitsPerWeight),
      meanProxyError: round(outcome.meanProxyError),
      layers: Object.fromEntries(
        outcome.linears.map(({ name, method, bitsPerWeight, proxyError, damping, deadColumns, notes }) => [
          name,
          {
            method,
            bitsPerWeight: round(bitsPerWeight),
            proxyError: round(proxyError),
            damping: round(damping),
            deadColumns,
            notes,
          },
        ]),
      ),
    },
  });
}

const SAMPLE_BYTES = 4096;

/** Hash of what a model is, as a job's journal knows it: its configuration, its tensor table and the beginning of every tensor. */
export async function modelIdentity(model: CheckpointModel): Promise<string> {
  const parts: (string | Uint8Array)[] = [JSON.stringify(model.config)];
  for (const name of model.tensors.names) {
    const info = model.tensors.info(name);
    if (!info) continue;
    parts.push(JSON.stringify([name, info.dtype, info.shape]));
    parts.push(await model.tensors.readRange(name, 0, Math.min(SAMPLE_BYTES, info.bytes)));
  }
  return sha256(...parts);
}
