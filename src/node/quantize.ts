import { dirname, resolve } from "node:path";
import { type CheckpointModel, openCheckpointModel } from "../checkpoint/open.js";
import type { Engine } from "../engine/engine.js";
import { BitwrightError, usageError } from "../errors.js";
import { estimateJob, type JobEstimate } from "../pipeline/estimate.js";
import type { OnEvent } from "../pipeline/events.js";
import { fitRecipe, planOf, type QuantizeResult, quantize } from "../pipeline/job.js";
import { needsCalibration } from "../pipeline/methods.js";
import { type PlannedLinear, type PlanTotals, planTotals } from "../pipeline/plan.js";
import { type Recipe, type RecipeInput, resolveRecipe } from "../pipeline/recipe.js";
import type { JobShare } from "../pipeline/share.js";
import type { CheckpointFormat } from "../quant/bits.js";
import { openTokenizer } from "../text/load.js";
import { openFolder } from "./folder.js";
import { diskJournal } from "./journal.js";
import { availableMemory } from "./memory.js";
import { createOutput } from "./output.js";
import { createSpillFile } from "./spill.js";
import { readText } from "./texts.js";

/** What is known of a job before it begins. */
export interface PreparedJob {
  model: CheckpointModel;
  recipe: Recipe;
  planned: PlannedLinear[];
  totals: PlanTotals;
  /** Token ids and name of the calibration text; absent when no linear needs it. */
  calibration?: { tokens: Int32Array; name: string };
}

/**
 * Opens a model, its tokenizer and the calibration text (a file or a bundled name), and plans every linear. The caller closes
 * the model. Throws "usage" for a recipe that does not fit.
 */
export async function prepareJob(
  path: string,
  input: RecipeInput,
  calibration: string,
  format?: CheckpointFormat,
): Promise<PreparedJob> {
  const words = resolveRecipe(input);
  const folder = await openFolder(path);
  const model = await openCheckpointModel(folder);
  try {
    const needed = planOf(model.model, words).some(({ plan }) => needsCalibration(plan));
    let read: PreparedJob["calibration"];
    if (needed) {
      const { name, text } = await readText(calibration);
      read = { name, tokens: (await openTokenizer(folder)).encode(text) };
    }
    const recipe = fitRecipe(input, model.model, read?.tokens.length);
    const planned = planOf(model.model, recipe, format);
    return { model, recipe, planned, totals: planTotals(planned), calibration: read };
  } catch (error) {
    await model.close();
    throw error;
  }
}

export interface QuantizeModelOptions {
  engine: Engine;
  /** Continue unfinished work of the same job. */
  resume?: boolean;
  /** Replace the output if it exists, and drop unfinished work. */
  overwrite?: boolean;
  format?: CheckpointFormat;
  maxShardBytes?: number;
  /** Other processes that do the job with this one: `sharedOut` in devices.ts. */
  share?: JobShare;
  /** Bytes of activations held in memory, the rest goes to a scratch file beside the output. Default: half of what is free. */
  activationMemory?: number;
  onEvent?: OnEvent;
  signal?: AbortSignal;
}

export const defaultActivationMemory = (): number => Math.floor(availableMemory() / 2);

/** Where a job that writes to `output` keeps what is finished. */
export const journalFolder = (output: string): string => `${resolve(output)}.journal`;

/**
 * Runs a prepared job and writes the checkpoint. What is finished is kept beside the output (`OUT.journal`) until the output
 * stands, so that a stopped or killed run can go on by `resume`. Throws "usage" when the output exists, or when there is
 * unfinished work and neither `resume` nor `overwrite` says what to do with it.
 */
export async function runJob(job: PreparedJob, output: string, options: QuantizeModelOptions): Promise<QuantizeResult> {
  const { engine, resume = false, overwrite = false } = options;
  const { model, recipe, calibration, totals } = job;
  const journal = diskJournal(journalFolder(output));
  if (!resume && !overwrite && (await journal.read("job.json")) !== undefined) {
    throw usageError(
      `there is unfinished work for ${output} in ${journalFolder(output)}`,
      "go on with --resume, or start again with --overwrite",
    );
  }
  const expectedBytes = expectedOutputBytes(model, totals);
  const target = await createOutput(output, { overwrite, expectedBytes });
  try {
    const result = await quantize(model, recipe, {
      engine,
      output: target,
      calibration: calibration?.tokens,
      calibrationName: calibration?.name,
      journal,
      resume,
      format: options.format,
      maxShardBytes: options.maxShardBytes,
      activationMemory: options.activationMemory ?? defaultActivationMemory(),
      trainingMemory: Math.floor((engine.roomBytes() || availableMemory()) / 4),
      share: options.share,
      createSpill: () => createSpillFile(dirname(resolve(output))),
      onEvent: options.onEvent,
      signal: options.signal,
    });
    await journal.remove();
    return result;
  } catch (error) {
    if (error instanceof BitwrightError && error.kind === "aborted") {
      throw new BitwrightError(
        "aborted",
        error.message,
        "what is finished is kept; the same command with --resume goes on",
      );
    }
    throw error;
  }
}

/** The tensors of the source, with the quantized linears at their new size; headers and small files on top. */
function expectedOutputBytes({ tensors }: CheckpointModel, { weights, bits }: PlanTotals): number {
  const all = tensors.names.reduce((sum, name) => sum + (tensors.info(name)?.bytes ?? 0), 0);
  return Math.max(0, all - 2 * weights) + bits / 8 + 1e6;
}

/** Time and memory of a prepared job on an engine. */
export const estimate = (job: PreparedJob, engine: Engine, activationMemory?: number): Promise<JobEstimate> =>
  estimateJob(engine, job.model.model, job.planned, job.recipe, activationMemory ?? defaultActivationMemory());
