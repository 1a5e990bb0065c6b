import { activationsRefusal, blockFacts, formatRefused, linearRefusal, recordLayout } from "../checkpoint/formats.js";
import { usageError } from "../errors.js";
import type { ActivationScheme } from "../model/activation-scheme.js";
import type { LinearSpec } from "../model/block.js";
import { type CheckpointFormat, type RecordShape, shapeBits } from "../quant/bits.js";
import { checkCodebooksFit, planSegments } from "../quant/vptq/segments.js";
import { isTrained } from "./methods.js";
import { activationsOf, type LinearPlan, matches, planFor, type Recipe } from "./recipe.js";

// What a job will do before it does it: per linear the bits and the work, in total the memory. Nothing here touches weights.

export interface PlannedLinear {
  spec: LinearSpec;
  block: number;
  plan: LinearPlan;
  /** Everything that will be stored for it, in bits; rows x columns x 16 when it is kept. */
  bits: number;
  /** Floating-point operations of choosing its codes, roughly. */
  operations: number;
}

/** The shape of the record that a plan gives. */
function plannedShape({ rows, columns, bias }: LinearSpec, plan: Exclude<LinearPlan, { method: "keep" }>): RecordShape {
  if (plan.method !== "vptq") {
    const { bits, group, symmetric } = plan.scheme;
    const width = group === "channel" ? columns : Math.min(group, columns);
    return { kind: "affine", rows, columns, bits, group: width, symmetric, bias };
  }
  const { scheme } = plan;
  const segments = planSegments(columns, scheme).map(({ begin, end, vectorLength, codebooks }) => ({
    columns: end - begin,
    vectorLength,
    codewords: codebooks,
  }));
  return {
    kind: "codebook",
    rows,
    columns,
    hasOutliers: segments.length > scheme.groups,
    segments,
    columnOrder: segments.length > 1,
    columnScale: scheme.norm === "column" || scheme.norm === "both",
    columnBias: false,
    rowScale: scheme.norm === "row" || scheme.norm === "both",
    bias,
  };
}

/** The published VPTQ layout where it holds every record, else our own. */
export function plannedFormat(planned: { spec: LinearSpec; plan: LinearPlan }[], recipe: Recipe): CheckpointFormat {
  if (activationsOf(recipe)) return "bitwright";
  const fits = planned.every(
    ({ spec, plan }) =>
      plan.method === "keep" || linearRefusal("vptq", spec.name, plannedShape(spec, plan), undefined) === undefined,
  );
  return fits ? "vptq" : "bitwright";
}

/** Throws "usage", before any work, for a format that cannot hold what is planned. */
function checkFormat(
  format: CheckpointFormat,
  planned: { spec: LinearSpec; plan: LinearPlan }[],
  activations: ActivationScheme | undefined,
): void {
  const kept = new Set(planned.flatMap(({ spec, plan }) => (plan.method === "keep" ? [spec.name] : [])));
  const specs = planned.map(({ spec }) => spec);
  const refusal = activationsRefusal(
    format,
    activations,
    blockFacts(specs, (name) => !kept.has(name)),
  );
  if (refusal !== undefined) throw formatRefused(format, refusal);
  for (const { spec, plan } of planned) {
    if (plan.method === "keep") continue;
    const refused = linearRefusal(format, spec.name, plannedShape(spec, plan), activations);
    if (refused !== undefined) throw formatRefused(format, refused);
  }
}

/** Rough operation counts, for estimates of time only. */
function plannedOperations(rows: number, columns: number, plan: LinearPlan): number {
  const sweep = 2 * rows * columns * columns;
  const factor = columns ** 3;
  if (plan.method === "keep") return 0;
  if (plan.method === "omniquant") return 40 * rows * columns; // its training is counted by the block
  if (plan.method !== "vptq") return plan.method === "rtn" ? 20 * rows * columns : sweep + factor;
  const { scheme } = plan;
  const pairs = rows * columns * scheme.codebook * 3;
  return factor + sweep * (2 + scheme.residuals.length + 14 * scheme.refine) + pairs * (15 + 2 * scheme.refine);
}

/**
 * Plans every linear of the model, its bits counted in the format wanted or else in `plannedFormat`. Throws "usage" for overrides
 * that match nothing, codebooks that cannot be filled and a format that cannot hold them.
 */
export function planModel(blocks: LinearSpec[][], recipe: Recipe, wanted?: CheckpointFormat): PlannedLinear[] {
  const planned: PlannedLinear[] = [];
  const all = blocks.flat().map((spec) => ({ spec, plan: planFor(recipe, spec.name) }));
  const activations = activationsOf(recipe);
  if (wanted !== undefined) checkFormat(wanted, all, activations);
  const format = wanted ?? plannedFormat(all, recipe);
  const bitsOf = (shape: RecordShape) => shapeBits(shape, recordLayout(format, shape, activations)).total;
  const unmatched = new Set(recipe.overrides.map((override) => override.match));
  for (const [block, specs] of blocks.entries()) {
    for (const spec of specs) {
      const plan = planFor(recipe, spec.name);
      const { rows, columns } = spec;
      planned.push({
        spec,
        block,
        plan,
        bits: plan.method === "keep" ? rows * columns * 16 : bitsOf(plannedShape(spec, plan)),
        operations: plannedOperations(rows, columns, plan),
      });
      if (plan.method === "vptq") checkCodebooksFit(planSegments(columns, plan.scheme), rows, spec.name);
    }
  }
  const mixed = isTrained(planned) && planned.find(({ plan }) => plan.method !== "omniquant" && plan.method !== "keep");
  if (mixed) {
    throw usageError(
      `omniquant trains whole blocks, but ${mixed.spec.name} is to be quantized by ${mixed.plan.method}`,
      "give all linears the method omniquant, other bits or groups where wanted, or keep some as they are",
    );
  }
  for (const override of recipe.overrides) {
    if (planned.some(({ spec }) => matches(override.match, spec.name))) unmatched.delete(override.match);
  }
  if (unmatched.size > 0) {
    const names = planned.slice(0, 3).map(({ spec }) => spec.name);
    throw usageError(
      `an override matches no linear: ${[...unmatched].join(", ")}`,
      `names look like ${names.join(", ")}; * stands for anything`,
    );
  }
  return planned;
}

export interface PlanTotals {
  linears: number;
  kept: number;
  weights: number;
  bits: number;
  /** Bits of quantized linears over their weights. */
  bitsPerWeight: number;
}

export function planTotals(planned: PlannedLinear[]): PlanTotals {
  const quantized = planned.filter(({ plan }) => plan.method !== "keep");
  const weights = quantized.reduce((sum, { spec }) => sum + spec.rows * spec.columns, 0);
  const bits = quantized.reduce((sum, linear) => sum + linear.bits, 0);
  return {
    linears: quantized.length,
    kept: planned.length - quantized.length,
    weights,
    bits,
    bitsPerWeight: weights > 0 ? bits / weights : 0,
  };
}
