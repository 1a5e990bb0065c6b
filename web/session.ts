import { usageError } from "../src/errors.js";
import { sha256 } from "../src/hash.js";
import {
  blobFolder,
  type CheckpointModel,
  drawWindows,
  type Engine,
  estimateJob,
  type Folder,
  fitRecipe,
  modelIdentity,
  needsCalibration,
  openAddress,
  openCheckpointModel,
  openTokenizer,
  type PlannedLinear,
  parseCorpus,
  planOf,
  planTotals,
  type Recipe,
  type RecipeInput,
  resolveRecipe,
  type Tokenizer,
} from "../src/index.js";
import { parameterCount } from "../src/model/tensors.js";
import { chooseEngine } from "./engines.js";
import { planLines } from "./plan-lines.js";
import type { EngineInfo, EngineInput, JobInput, ModelInfo, ModelSource, PlanInfo, TextSource } from "./protocol.js";
import { type JournalStore, openStore } from "./storage.js";

/** Where nothing is said: a job on a small model is then over in a minute or two. */
const CALIBRATION = { samples: 32, window: 512 } as const;
/** As on the command line. */
const TEXT_BYTES = 400_000_000;

/** A job that can begin: everything is read and fits. */
export interface PreparedJob {
  model: CheckpointModel;
  engine: Engine;
  recipe: Recipe;
  planned: PlannedLinear[];
  calibration?: { name: string; tokens: Int32Array };
  /** Names the job's journal: equal for equal jobs only. */
  key: string;
}

interface OpenModel {
  model: CheckpointModel;
  identity: string;
  tokenizer?: Tokenizer;
}

/** What the worker holds between requests: an engine, a model, a tokenized text. */
export class Session {
  private engine?: Engine;
  private open?: OpenModel;
  private tokens?: { id: string; tokens: Int32Array };
  private store?: Promise<JournalStore>;

  async useEngine(input: EngineInput): Promise<EngineInfo> {
    const before = this.engine;
    this.engine = undefined;
    await before?.close();
    const { engine, info } = await chooseEngine(input);
    this.engine = engine;
    return info;
  }

  async openModel(source: ModelSource): Promise<ModelInfo> {
    const before = this.open;
    this.open = undefined;
    this.tokens = undefined;
    await before?.model.close();
    const model = await openCheckpointModel(await folderOf(source));
    if (model.format !== "plain") {
      await model.close();
      throw usageError(
        `${model.folder.name} is quantized already (${model.format})`,
        "start from the full-precision checkpoint",
      );
    }
    this.open = { model, identity: await modelIdentity(model) };
    const { config, folder, format } = model;
    return {
      name: shortName(folder.name),
      family: String(config.model_type),
      blocks: model.model.layers,
      contextLength: model.model.contextLength,
      parameters: parameterCount(model.model),
      tensorBytes: tensorBytes(model),
      format,
    };
  }

  /** Plans a job and reads what it needs. Throws "usage" for what does not fit. */
  async prepare({ recipe: input, format, calibration }: JobInput): Promise<PreparedJob> {
    const { engine, open } = this;
    if (!engine) throw usageError("there is no engine", "choose another one");
    if (!open) throw usageError("no model is open", "choose a checkpoint first");
    const { model, identity } = open;
    const needed = planOf(model.model, resolveRecipe(input)).some(({ plan }) => needsCalibration(plan));
    const tokens = needed ? await this.tokensOf(calibration) : undefined;
    const words = tokens ? withSmallCalibration(input, model, tokens.length) : input;
    const recipe = fitRecipe(words, model.model, tokens?.length);
    if (tokens)
      drawWindows(tokens, { count: recipe.samples, length: recipe.window, seed: recipe.seed, name: calibration.name }); // throws when there are too few
    const planned = planOf(model.model, recipe, format);
    const key = await sha256(
      identity,
      JSON.stringify([recipe, format ?? null, engine.arithmetic]),
      tokens ? new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength) : "",
    );
    return { model, engine, recipe, planned, key, calibration: tokens && { name: calibration.name, tokens } };
  }

  async plan(input: JobInput): Promise<PlanInfo> {
    const job = await this.prepare(input);
    const { engine, model, recipe, planned, calibration } = job;
    const totals = planTotals(planned);
    const { seconds, memoryBytes } = await estimateJob(engine, model.model, planned, recipe);
    const before = tensorBytes(model);
    const bytesPerWeight = before / parameterCount(model.model);
    return {
      lines: planLines(planned),
      linears: totals.linears,
      bitsPerWeight: totals.bitsPerWeight,
      beforeBytes: before,
      afterBytes: Math.max(0, before - totals.weights * bytesPerWeight) + totals.bits / 8,
      seconds,
      memoryBytes,
      calibration: calibration && {
        name: calibration.name,
        tokens: calibration.tokens.length,
        samples: recipe.samples,
        window: recipe.window,
      },
      finished: await (await this.journals()).count(job.key),
    };
  }

  /** Token ids of a text by the open model's tokenizer; the last text's are kept. */
  async tokensOf({ id, name, text }: TextSource): Promise<Int32Array> {
    const { open } = this;
    if (!open) throw usageError("no model is open", "choose a checkpoint first");
    if (this.tokens?.id === id) return this.tokens.tokens;
    if (text.size > TEXT_BYTES)
      throw usageError(`${name} has ${text.size} bytes, at most ${TEXT_BYTES} can be read`, "give a part of it");
    open.tokenizer ??= await openTokenizer(open.model.folder);
    const tokens = open.tokenizer.encode(parseCorpus(name, new Uint8Array(await text.arrayBuffer())));
    this.tokens = { id, tokens };
    return tokens;
  }

  journals(): Promise<JournalStore> {
    this.store ??= openStore();
    return this.store;
  }
}

async function folderOf(source: ModelSource): Promise<Folder> {
  return source.kind === "address" ? openAddress(source.address) : blobFolder(source.name, source.files);
}

/** The page's small calibration where the form says nothing. */
function withSmallCalibration(input: RecipeInput, { model }: CheckpointModel, tokens: number): RecipeInput {
  const window = input.window ?? Math.min(CALIBRATION.window, model.contextLength);
  const fits = Math.max(1, Math.floor(tokens / window));
  return { ...input, window, samples: input.samples ?? Math.min(CALIBRATION.samples, fits) };
}

/** Last part of a folder's name or an address, fit for a file name; of ".../ORG/MODEL/resolve/main" the model. */
export function shortName(name: string): string {
  const parts = name.replace(/\/resolve\/[^/]+\/?$/, "").split("/");
  return (parts.filter((part) => part !== "").at(-1) ?? "model").replace(/[^\w.-]+/g, "_");
}

export const tensorBytes = ({ tensors }: CheckpointModel): number =>
  tensors.names.reduce((sum, name) => sum + (tensors.info(name)?.bytes ?? 0), 0);
