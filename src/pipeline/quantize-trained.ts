import { type BlockWeights, blockVectors } from "../model/block.js";
import { dequantize } from "../quant/dequantize.js";
import { quantizeOmniquant } from "../quant/omniquant/omniquant.js";
import type { GridScheme } from "../quant/omniquant/scheme.js";
import { TRAINING_STAGES, type TrainingProgress, type TrainingState } from "../quant/omniquant/train.js";
import { retried } from "./device-plan.js";
import type { PlannedLinear } from "./plan.js";
import type { JobRun } from "./quantize.js";
import { activationsOf, trainingOf } from "./recipe.js";
import { trainBlocks } from "./training.js";
import { arrayParts, decodeArrays, encodeArrays, readUnit, type Unit, writeUnit } from "./units.js";

// OmniQuant in the pipeline: what the journal keeps of a block, and what its training tells.

/** What a finished block changed besides its linears. */
interface BlockUnit {
  /** By slot. */
  vectors: Record<string, Float32Array>;
}

/** Trains and rounds every block. Returns the vectors that the transformation changed, by full tensor name. */
export async function quantizeByTraining(run: JobRun): Promise<ReadonlyMap<string, Float32Array>> {
  const { engine, recipe, windows, journal, source, model, signal, emit, bySlot } = run;
  const scheme = trainingOf(recipe);
  const changed = new Map<string, Float32Array>();
  const finished = await finishedBlocks(run);

  const progressOf = (block: number): TrainingProgress => {
    const name = (stage: string) => stateName(block, stage);
    return {
      onEpoch: (epoch) => emit({ type: "epoch", block, ...epoch }),
      onTrained: (stage, { endLoss, ...result }) => emit({ type: "trained", block, stage, loss: endLoss, ...result }),
      onWarning: (message) => emit({ type: "warning", message }),
      onStep: (stage, step, steps) => {
        emit({ type: "step", block, stage, step, steps });
        run.advance(run.cost.step * recipe.batch);
      },
      load: async (stage) => {
        const bytes = await journal.read(name(stage));
        const state = bytes && (decodeArrays(bytes) as TrainingState | undefined);
        return state?.stage === stage ? state : undefined;
      },
      save: (state) => journal.write(name(state.stage), arrayParts(state)),
    };
  };

  /** Puts a finished block's linears and vectors in place of the full-precision ones. */
  const stored = (block: number, weights: BlockWeights, records: Map<string, Unit>, unit: BlockUnit): BlockWeights => {
    const linears = { ...weights.linears };
    for (const [slot, { record }] of records) {
      const { weight, bias } = linears[slot];
      linears[slot] = {
        weight: engine.upload(dequantize(record), weight.shape, "f32"),
        bias: record.bias ? engine.upload(record.bias, [record.rows], "f32") : bias,
      };
    }
    const vectors = { ...weights.vectors };
    const names = new Map(blockVectors(model, block).map((vector) => [vector.slot as string, vector]));
    for (const [slot, values] of Object.entries(unit.vectors)) {
      vectors[slot] = engine.upload(values, [values.length], "f32");
      const name = names.get(slot)?.tensor;
      if (name) changed.set(name, values);
    }
    return { linears, vectors };
  };

  await trainBlocks(
    source,
    {
      isFinished: (block) => finished.has(block),
      onBlock: (block) => emit({ type: "block", block, blocks: source.blocks }),
      onWindow: (block, window) => {
        emit({ type: "pass", block, slots: [], window, windows: windows.length });
        run.advance(run.cost.pass([]));
      },
      async quantizeBlock(block, weights, streams) {
        const linears = Object.keys(weights.linears).map((slot) => bySlot.get(`${block}/${slot}`));
        const planned = linears.filter((linear): linear is PlannedLinear => linear !== undefined);
        for (const { plan, spec } of planned) {
          if (plan.method === "keep") emit({ type: "kept", block, name: spec.name });
        }
        const records = new Map<string, Unit>();
        const earlier = finished.get(block);
        if (earlier) {
          for (const linear of planned) {
            const unit = linear.plan.method === "keep" ? undefined : await readUnit(journal, linear.spec.name);
            if (!unit) continue;
            records.set(linear.spec.slot, unit);
            run.finish(linear, unit, true);
          }
          return retried(run, async () => stored(block, weights, records, earlier));
        }
        const since = performance.now();
        const grids: Record<string, GridScheme> = {};
        for (const { plan, spec } of planned) if (plan.method === "omniquant") grids[spec.slot] = plan.scheme;
        const result = await quantizeOmniquant(
          {
            engine,
            config: model,
            name: `block ${block}`,
            weights,
            grids,
            context: (running, activations) => source.context(block, running, activations),
          },
          streams,
          scheme,
          {
            seed: recipe.seed,
            storage: model.dtype ?? "f16",
            progress: progressOf(block),
            memory: run.trainingMemory,
            signal,
          },
        );
        const seconds = (performance.now() - since) / 1000 / Math.max(1, Object.keys(grids).length);
        const trained = planned.filter(({ plan }) => plan.method !== "keep");
        for (const { spec } of trained)
          records.set(spec.slot, { name: spec.name, seconds, ...result.linears[spec.slot] });
        await Promise.all([...records.values()].map((unit) => writeUnit(journal, unit))); // a disk takes its time for each
        for (const linear of trained) {
          run.finish(linear, records.get(linear.spec.slot) as Unit, false);
          run.advance(linear.operations);
        }
        const unit: BlockUnit = { vectors: result.vectors };
        await journal.write(blockName(block), encodeArrays(unit)); // last: with it the block is finished
        for (const stage of TRAINING_STAGES) await journal.write(stateName(block, stage), new Uint8Array(0));
        return retried(run, async () => stored(block, weights, records, unit)); // alone: the training is done
      },
    },
    {
      engine,
      windows: windows.length,
      augment: recipe.augment,
      activations: activationsOf(recipe),
      budget: run.budget,
      onShortage: run.onShortage,
      signal,
    },
  );
  return changed;
}

const stateName = (block: number, stage: string): string => `block-${block}-${stage}.state`;
const blockName = (block: number): string => `block-${block}.unit`;

/** Blocks whose linears and vectors are all in the journal. */
async function finishedBlocks(run: JobRun): Promise<Map<number, BlockUnit>> {
  const result = new Map<number, BlockUnit>();
  for (let block = 0; block < run.source.blocks; block++) {
    const bytes = await run.journal.read(blockName(block));
    const unit = bytes && (decodeArrays(bytes) as BlockUnit | undefined);
    const own = run.planned.filter((linear) => linear.block === block && linear.plan.method !== "keep");
    if (unit && own.every(({ spec }) => run.finished.has(spec.name))) result.set(block, unit);
  }
  return result;
}
