import type { Engine } from "../engine/engine.js";
import { sha256 } from "../hash.js";
import { bitsPerWeight, type RecordLayout } from "../quant/bits.js";
import { dequantize } from "../quant/dequantize.js";
import type { LinearMetrics } from "../quant/method.js";
import type { QuantizedRecord } from "../quant/record.js";
import { breathe } from "../turns.js";
import { ActivationBudget, type SpillFile } from "./activations.js";
import { type BlockSource, runBlocks } from "./blocks.js";
import { correctionShare, jobCost } from "./estimate.js";
import type { LinearDone, OnEvent } from "./events.js";
import { type JobIdentity, type Journal, openJob } from "./journal.js";
import { needsStatistics, quantizeLinear } from "./methods.js";
import { type PlannedLinear, plannedLayout, planTotals } from "./plan.js";
import { Progress } from "./progress.js";
import type { Recipe } from "./recipe.js";
import { decodeUnit, encodeUnit } from "./units.js";

const JOURNAL_VERSION = 1;

export interface QuantizeJob {
  engine: Engine;
  /** For events and messages. */
  modelName: string;
  /** Hash of what the model is: configuration, tensor table, sizes. */
  modelIdentity: string;
  source: BlockSource;
  planned: PlannedLinear[];
  recipe: Recipe;
  /** Calibration windows; none where no method needs statistics. */
  windows: Int32Array[];
  journal: Journal;
  resume: boolean;
  /** Where the records will be stored; default `plannedLayout`. */
  layout?: RecordLayout;
  /** Bytes of activations held in memory before they spill. */
  activationMemory?: number;
  createSpill?: () => Promise<SpillFile>;
  onEvent?: OnEvent;
  signal?: AbortSignal;
}

export interface QuantizeOutcome {
  /** In the model's order. */
  linears: LinearDone[];
  /** Reads a finished record back from the journal. */
  record(name: string): Promise<QuantizedRecord>;
  bitsPerWeight: number;
  meanProxyError: number;
  peakActivationBytes: number;
  spilledBytes: number;
}

/** Quantizes every planned linear, one block at a time; finished linears are in the journal. */
export async function quantizeBlocks(job: QuantizeJob): Promise<QuantizeOutcome> {
  const { engine, planned, recipe, windows, journal, signal } = job;
  const emit: OnEvent = job.onEvent ?? (() => {});
  await openJob(journal, await identityOf(job), job.resume);
  const bySlot = new Map(planned.map((linear) => [`${linear.block}/${linear.spec.slot}`, linear]));
  const finished = await findFinished(journal, planned);
  const totals = planTotals(planned);
  const layout = job.layout ?? plannedLayout(planned);
  emit({
    type: "start",
    model: job.modelName,
    blocks: job.source.blocks,
    linears: totals.linears,
    windows: windows.length,
    tokens: windows.reduce((sum, window) => sum + window.length, 0),
    engine: engine.description,
    resumedLinears: finished.size,
  });

  const cost = jobCost(planned, job.source.stageSlots, recipe, windows.length, windows[0]?.length ?? 0, (name) =>
    finished.has(name),
  );
  const progress = new Progress(cost.total);
  let lastReport = Number.NEGATIVE_INFINITY;
  const advance = (operations: number) => {
    progress.add(operations);
    if (progress.elapsedSeconds - lastReport < 0.2) return;
    lastReport = progress.elapsedSeconds;
    emit({
      type: "progress",
      fraction: progress.fraction,
      elapsedSeconds: progress.elapsedSeconds,
      remainingSeconds: progress.remainingSeconds,
    });
  };
  const done = new Map<string, LinearDone>();
  const budget = new ActivationBudget(job.activationMemory ?? Number.POSITIVE_INFINITY, job.createSpill, (bytes) =>
    emit({ type: "spill", bytes }),
  );

  const finish = (
    linear: PlannedLinear,
    record: QuantizedRecord,
    metrics: LinearMetrics,
    seconds: number,
    resumed: boolean,
  ) => {
    const { rows, columns, name } = linear.spec;
    const event: LinearDone = {
      type: "linear",
      block: linear.block,
      name,
      method: linear.plan.method,
      rows,
      columns,
      bitsPerWeight: bitsPerWeight(record, layout),
      seconds,
      resumed,
      ...metrics,
    };
    done.set(name, event);
    emit(event);
  };

  await runBlocks(
    job.source,
    {
      needsStatistics: (block, slot) => {
        const linear = bySlot.get(`${block}/${slot}`);
        return linear !== undefined && needsStatistics(linear.plan) && !finished.has(linear.spec.name);
      },
      quantizeStage: async (block, slots, weights, statistics) => {
        const decoded: Record<string, Float32Array> = {};
        for (const slot of slots) {
          await breathe(signal);
          const linear = bySlot.get(`${block}/${slot}`);
          if (!linear) continue;
          const { name } = linear.spec;
          const { plan } = linear;
          if (plan.method === "keep") {
            emit({ type: "kept", block, name });
            continue;
          }
          const earlier = finished.has(name) ? await readUnit(journal, name) : undefined;
          if (earlier) {
            finish(linear, earlier.record, earlier.metrics, earlier.seconds, true);
            decoded[slot] = dequantize(earlier.record);
            continue;
          }
          const since = performance.now();
          const { record, metrics } = await engine.scope(() =>
            quantizeLinear(plan, weights.linears[slot].weight, statistics, { engine, seed: recipe.seed, name, signal }),
          );
          const seconds = (performance.now() - since) / 1000;
          await journal.write(unitName(name), encodeUnit({ name, record, metrics, seconds }));
          finish(linear, record, metrics, seconds, false);
          decoded[slot] = dequantize(record);
          advance(linear.operations);
        }
        return decoded;
      },
      onBlock: (block) => emit({ type: "block", block, blocks: job.source.blocks }),
      onWindow: (block, slots, window) => {
        emit({ type: "pass", block, slots, window, windows: windows.length });
        advance(cost.pass(slots));
      },
    },
    {
      engine,
      windows: windows.length,
      propagate: recipe.propagate,
      correctionWindows: Math.ceil(correctionShare(planned, recipe) * windows.length),
      budget,
      signal,
    },
  );

  const linears = planned.flatMap(({ spec }) => done.get(spec.name) ?? []);
  const weighed = linears.reduce((sum, linear) => sum + linear.rows * linear.columns, 0);
  const bits = linears.reduce((sum, linear) => sum + linear.bitsPerWeight * linear.rows * linear.columns, 0);
  return {
    linears,
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

const unitName = (linear: string): string => `${linear}.unit`;

async function readUnit(journal: Journal, name: string) {
  const bytes = await journal.read(unitName(name));
  return bytes && decodeUnit(bytes, name);
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
