import { recordLayout } from "../checkpoint/formats.js";
import type { Engine } from "../engine/engine.js";
import { WriteBehind } from "../files/write-behind.js";
import { sha256 } from "../hash.js";
import type { ModelConfig } from "../model/config.js";
import { bitsPerWeight, type CheckpointFormat, recordShape } from "../quant/bits.js";
import { dequantize } from "../quant/dequantize.js";
import type { QuantizedRecord } from "../quant/record.js";
import { breathe } from "../turns.js";
import { ActivationBudget, type SpillFile } from "./activations.js";
import { type BlockSource, runBlocks } from "./blocks.js";
import { activationRoom, type BlockNeed, blockNeeds, LEAVES, withRoom } from "./device-plan.js";
import { correctionShare, type JobCost, jobCost } from "./estimate.js";
import type { LinearDone, OnEvent } from "./events.js";
import { type JobIdentity, type Journal, openJob } from "./journal.js";
import { isTrained, needsStatistics, quantizeLinear } from "./methods.js";
import { type PlannedLinear, plannedFormat, planTotals } from "./plan.js";
import { Progress } from "./progress.js";
import { quantizeByTraining } from "./quantize-trained.js";
import { activationsOf, type Recipe } from "./recipe.js";
import { besideOthers, isMine, type JobShare } from "./share.js";
import type { TrainingSource } from "./training.js";
import { readUnit, type Unit, writeUnit } from "./units.js";

const JOURNAL_VERSION = 1;

export interface QuantizeJob {
  engine: Engine;
  /** For events and messages. */
  modelName: string;
  /** Hash of what the model is: configuration, tensor table, sizes. */
  modelIdentity: string;
  source: BlockSource & TrainingSource;
  /** Of the model: full names of a block's vectors, the checkpoint's number type. */
  model: ModelConfig;
  planned: PlannedLinear[];
  recipe: Recipe;
  /** Calibration windows; none where no method needs statistics. */
  windows: Int32Array[];
  journal: Journal;
  resume: boolean;
  /** Where the records will be stored; default `plannedFormat`. */
  format?: CheckpointFormat;
  /** Bytes of activations held in memory before they spill. */
  activationMemory?: number;
  /** Bytes that the activations of a training step may take; beyond it they are computed again. Default: no bound. */
  trainingMemory?: number;
  createSpill?: () => Promise<SpillFile>;
  /** Default: this run does all of it. */
  share?: JobShare;
  onEvent?: OnEvent;
  signal?: AbortSignal;
}

export interface QuantizeOutcome {
  /** In the model's order. */
  linears: LinearDone[];
  /** Vectors that a method changed, by full tensor name. */
  vectors: ReadonlyMap<string, Float32Array>;
  /** Reads a finished record back from the journal. */
  record(name: string): Promise<QuantizedRecord>;
  bitsPerWeight: number;
  meanProxyError: number;
  peakActivationBytes: number;
  spilledBytes: number;
}

/** A job under way: what its loops tell and keep. */
export interface JobRun extends QuantizeJob {
  emit: OnEvent;
  budget: ActivationBudget;
  cost: JobCost;
  /** What each block takes of the engine's memory, where that is not the host's. */
  needs?: readonly BlockNeed[];
  /** Whether this run has a linear still to quantize. */
  isOpen(linear: PlannedLinear): boolean;
  /** Names of the linears that an earlier run finished. */
  finished: ReadonlySet<string>;
  bySlot: ReadonlyMap<string, PlannedLinear>;
  /** So many operations of the whole job are done. */
  advance(operations: number): void;
  /** Tells, in words, what is done where the engine has too little memory. */
  onShortage(measure: string): void;
  /** A linear is done: its record is in the journal. */
  finish(linear: PlannedLinear, unit: Omit<Unit, "name">, resumed: boolean): void;
  /** What is told of such a linear, of this run's share or another's. */
  tell(done: LinearDone): void;
}

/** Quantizes every planned linear, one block at a time; finished linears are in the journal. */
export async function quantizeBlocks(job: QuantizeJob): Promise<QuantizeOutcome> {
  const { planned, recipe, windows, journal } = job;
  const emit: OnEvent = job.onEvent ?? (() => {});
  await openJob(journal, await identityOf(job), job.resume);
  const finished = await findFinished(journal, planned);
  const activations = activationsOf(recipe);
  const format = job.format ?? plannedFormat(planned, recipe);
  emit({
    type: "start",
    model: job.modelName,
    blocks: job.source.blocks,
    linears: planTotals(planned).linears,
    windows: windows.length,
    tokens: windows.reduce((sum, window) => sum + window.length, 0),
    engine: job.engine.description,
    resumedLinears: finished.size,
  });
  const cost = jobCost(planned, job.source.stageSlots, recipe, windows.length, windows[0]?.length ?? 0, (name) =>
    finished.has(name),
  );
  const progress = new Progress(cost.total);
  let lastReport = Number.NEGATIVE_INFINITY;
  const shortages = new Set<string>();
  const done = new Map<string, LinearDone>();
  const room = job.engine.roomBytes();
  const isOpen = ({ spec, block, plan }: PlannedLinear) =>
    plan.method !== "keep" && !finished.has(spec.name) && isMine(job, block);
  const needs = room > 0 && !isTrained(planned) ? blockNeeds(job, isOpen) : undefined;
  const budget = new ActivationBudget(
    job.activationMemory ?? Number.POSITIVE_INFINITY,
    job.createSpill,
    (bytes) => emit({ type: "spill", bytes }),
    activationRoom(room, needs ?? []),
  );
  const doneOf = (
    { spec, block, plan }: PlannedLinear,
    { record, metrics, seconds }: Omit<Unit, "name">,
    resumed: boolean,
  ) => {
    const { rows, columns, name } = spec;
    const bits = bitsPerWeight(record, recordLayout(format, recordShape(record), activations));
    const { method } = plan;
    return {
      type: "linear",
      block,
      name,
      method,
      rows,
      columns,
      bitsPerWeight: bits,
      seconds,
      resumed,
      ...metrics,
    } as const;
  };
  const run: JobRun = {
    ...job,
    emit,
    budget,
    cost,
    needs,
    isOpen,
    finished,
    bySlot: new Map(planned.map((linear) => [`${linear.block}/${linear.spec.slot}`, linear])),
    advance(operations) {
      progress.add(operations);
      if (progress.elapsedSeconds - lastReport < 0.2) return;
      lastReport = progress.elapsedSeconds;
      const { fraction, elapsedSeconds, remainingSeconds } = progress;
      emit({ type: "progress", fraction, elapsedSeconds, remainingSeconds });
    },
    onShortage(measure) {
      if (!shortages.has(measure)) emit({ type: "warning", message: `the card has little memory left: ${measure}` });
      shortages.add(measure); // told once, not for each block
    },
    finish(linear, unit, resumed) {
      run.tell(doneOf(linear, unit, resumed));
    },
    tell(event) {
      done.set(event.name, event);
      emit(event);
    },
  };
  const vectors = await besideOthers(run, () => (isTrained(planned) ? quantizeByTraining(run) : quantizeByLinear(run)));
  if (job.share?.others) {
    for (const linear of planned) {
      const unit = done.has(linear.spec.name) ? undefined : await readUnit(journal, linear.spec.name);
      if (unit) done.set(unit.name, doneOf(linear, unit, finished.has(unit.name))); // the others tell of what is new
    }
  }

  const linears = planned.flatMap(({ spec }) => done.get(spec.name) ?? []);
  const weighed = linears.reduce((sum, linear) => sum + linear.rows * linear.columns, 0);
  const bits = linears.reduce((sum, linear) => sum + linear.bitsPerWeight * linear.rows * linear.columns, 0);
  return {
    linears,
    vectors,
    record: async (name) => {
      const unit = await readUnit(journal, name);
      if (!unit) throw new Error(`no finished record of ${name}`);
      return unit.record;
    },
    bitsPerWeight: weighed > 0 ? bits / weighed : 0,
    meanProxyError: linears.reduce((sum, linear) => sum + linear.proxyError, 0) / Math.max(1, linears.length),
    peakActivationBytes: budget.peakBytes,
    spilledBytes: budget.spilledBytes,
  };
}

/** Methods that take one linear at a time. They change nothing but linears. */
async function quantizeByLinear(run: JobRun): Promise<ReadonlyMap<string, Float32Array>> {
  const { engine, planned, recipe, windows, journal, signal, emit, finished, bySlot, budget } = run;
  const writing = new WriteBehind();
  const write = async (linear: PlannedLinear, unit: Unit) => {
    await writeUnit(journal, unit);
    run.finish(linear, unit, false);
  };
  await runBlocks(
    run.source,
    {
      hasWork: (block) => isMine(run, block),
      needsStatistics: (block, slot) => {
        const linear = bySlot.get(`${block}/${slot}`);
        return linear !== undefined && needsStatistics(linear.plan) && run.isOpen(linear);
      },
      quantizeStage: async (block, slots, weights, statistics) => {
        const decoded: Record<string, Float32Array> = {};
        const decode = (slot: string, record: QuantizedRecord) => {
          // nothing sees the quantized weights of a stream in full precision
          if (recipe.propagate === "quantized") decoded[slot] = dequantize(record);
        };
        for (const slot of slots) {
          await breathe(signal);
          const linear = bySlot.get(`${block}/${slot}`);
          if (!linear || !isMine(run, block)) continue;
          const { name } = linear.spec;
          const { plan } = linear;
          if (plan.method === "keep") {
            emit({ type: "kept", block, name });
            continue;
          }
          if (plan.method === "omniquant") throw new Error(`${name}: omniquant works on whole blocks`);
          const earlier = finished.has(name) ? await readUnit(journal, name) : undefined;
          if (earlier) {
            run.finish(linear, earlier, true);
            decode(slot, earlier.record);
            continue;
          }
          const since = performance.now();
          const quantized = () =>
            engine.scope(() =>
              quantizeLinear(plan, weights.linears[slot].weight, statistics, {
                engine,
                seed: recipe.seed,
                name,
                signal,
              }),
            );
          const { record, metrics } = await withRoom(budget, quantized, ({ message }) =>
            emit({ type: "warning", message: `${name}: ${message}; ${LEAVES}` }),
          );
          const unit = { name, record, metrics, seconds: (performance.now() - since) / 1000 };
          await writing.add(() => write(linear, unit));
          decode(slot, record);
          run.advance(linear.operations);
        }
        return decoded;
      },
      onBlock: (block) => emit({ type: "block", block, blocks: run.source.blocks }),
      onWindow: (block, slots, window, parts) => {
        emit({ type: "pass", block, slots, window, windows: windows.length });
        run.advance(run.cost.pass(slots, parts));
      },
    },
    {
      engine,
      windows: windows.length,
      propagate: recipe.propagate,
      correctionWindows: Math.ceil(correctionShare(planned, recipe) * windows.length),
      budget,
      needs: run.needs,
      onShortage: run.onShortage,
      signal,
    },
  ).finally(() => Promise.allSettled([writing.end()])); // what is finished is kept, whatever stopped the rest
  await writing.end();
  return new Map();
}

/** Names of the linears whose unit is in the journal and readable. */
async function findFinished(journal: Journal, planned: PlannedLinear[]): Promise<Set<string>> {
  const finished = new Set<string>();
  for (const { spec, plan } of planned) {
    if (plan.method !== "keep" && (await readUnit(journal, spec.name))) finished.add(spec.name);
  }
  return finished;
}

async function identityOf(job: QuantizeJob): Promise<JobIdentity> {
  const windowBytes = job.windows.map((window) => new Uint8Array(window.buffer, window.byteOffset, window.byteLength));
  return {
    version: JOURNAL_VERSION,
    model: job.modelIdentity,
    recipe: await sha256(JSON.stringify(job.recipe)),
    calibration: await sha256(...windowBytes),
    arithmetic: job.engine.arithmetic,
  };
}
