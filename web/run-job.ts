import {
  BitwrightError,
  blobFolder,
  blobOutput,
  consecutiveWindows,
  type Evaluation,
  evaluate,
  openModel,
  type QuantizeResult,
  quantize,
} from "../src/index.js";
import { parameterCount } from "../src/model/tensors.js";
import { failureOf } from "./failure.js";
import type { RunEvent, RunInput, RunResult } from "./protocol.js";
import { type PreparedJob, type Session, shortName, tensorBytes } from "./session.js";
import { createSpill } from "./storage.js";

/** Activations held in memory; the rest goes to a scratch file where the browser has room for one. */
const ACTIVATION_BYTES = 2 ** 30;
const TRAINING_BYTES = 2 ** 30;
/** Weights of both models that may stay in memory while they are measured. */
const WEIGHT_BYTES = 2 ** 30;
/** A Blob, a download and a zip have no trouble with files of this size. */
const SHARD_BYTES = 2e9;

/** Quantizes the session's model into Blobs and, where asked for, measures it. What is finished is kept until all is. */
export async function runJob(
  session: Session,
  input: RunInput,
  emit: (event: RunEvent) => void,
  signal: AbortSignal,
): Promise<RunResult> {
  const job = await session.prepare(input);
  const store = await session.journals();
  const { model, engine, recipe, calibration, key } = job;
  const output = blobOutput();
  const result = await quantize(model, recipe, {
    engine,
    output,
    calibration: calibration?.tokens,
    calibrationName: calibration?.name,
    journal: await store.open(key),
    resume: input.resume,
    format: input.format,
    maxShardBytes: SHARD_BYTES,
    activationMemory: ACTIVATION_BYTES,
    trainingMemory: TRAINING_BYTES,
    createSpill: store.lasting ? createSpill : undefined,
    onEvent: emit,
    signal,
  });
  await store.remove(key);
  const measured = input.evaluation && (await measure(session, job, output.files, input, emit, signal));
  return { ...summaryOf(job, result), files: output.files, ...measured };
}

function summaryOf({ model }: PreparedJob, result: QuantizeResult): Omit<RunResult, "files"> {
  const { format, bitsPerWeight, tensorBytes: afterBytes, seconds, meanProxyError, linears } = result;
  const beforeBytes = tensorBytes(model);
  return {
    name: shortName(model.folder.name),
    format,
    bitsPerWeight,
    beforeBits: (8 * beforeBytes) / parameterCount(model.model),
    beforeBytes,
    afterBytes,
    seconds,
    meanProxyError,
    linears,
  };
}

/** The result stands whatever becomes of its measurement. */
async function measure(
  session: Session,
  { model, engine }: PreparedJob,
  files: ReadonlyMap<string, Blob>,
  { evaluation }: RunInput,
  emit: (event: RunEvent) => void,
  signal: AbortSignal,
): Promise<Pick<RunResult, "evaluation" | "evaluationFailure">> {
  if (!evaluation) return {};
  emit({ type: "evaluating" });
  try {
    const tokens = await session.tokensOf(evaluation.text);
    const length = Math.min(EVALUATION_WINDOW, model.model.contextLength);
    const windows = consecutiveWindows(tokens, length, evaluation.windows, evaluation.text.name);
    const options = { weightBudget: WEIGHT_BYTES / 2 };
    const before = await openModel(engine, model.folder, options);
    try {
      const after = await openModel(engine, blobFolder("the result", files), options);
      try {
        const against = before.decoder;
        const found: Evaluation = await evaluate(after.decoder, windows, { against, onEvent: emit, signal });
        return { evaluation: found };
      } finally {
        await after.close();
      }
    } finally {
      await before.close();
    }
  } catch (error) {
    const stopped = error instanceof BitwrightError && error.kind === "aborted";
    return {
      evaluationFailure: stopped ? { kind: "aborted", message: "stopped before it was measured" } : failureOf(error),
    };
  }
}

/** Tokens of a window: enough for a fair perplexity, few enough for a page. */
const EVALUATION_WINDOW = 512;
