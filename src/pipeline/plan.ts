import { usageError } from "../errors.js";
import type { LinearSpec } from "../model/block.js";
import { type RecordLayout, type RecordShape, shapeBits } from "../quant/bits.js";
import type { VptqScheme } from "../quant/vptq/scheme.js";
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

/** The published VPTQ layout where it holds every record (see `accepts` in checkpoint/vptq.ts), else our own. */
export function plannedLayout(planned: { spec: LinearSpec; plan: LinearPlan }[], recipe: Recipe): RecordLayout {
  if (activationsOf(recipe)) return "bitwright";
  const fits = planned.every(
    ({ spec, plan }) => plan.method === "keep" || (plan.method === "vptq" && isPublished(spec, plan.scheme)),
  );
  return fits ? "vptq" : "bitwright";
}

function isPublished({ columns }: LinearSpec, scheme: VptqScheme): boolean {
  const { norm, residuals, codebook, groups, outliers } = scheme;
  if (norm === "row" || norm === "both" || residuals.length > 1 || residuals.some((size) => size > codebook))
    return false;
  return outliers ? outliers.vectorLength > 1 : columns % groups === 0;
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
 * Plans every linear of the model, its bits counted in the layout wanted or else in `plannedLayout`. Throws "usage" for overrides
 * that match nothing and codebooks that cannot be filled.
 */
export function planModel(blocks: LinearSpec[][], recipe: Recipe, wanted?: RecordLayout): PlannedLinear[] {
  const planned: PlannedLinear[] = [];
  const layout =
    wanted ??
    plannedLayout(
      blocks.flat().map((spec) => ({ spec, plan: planFor(recipe, spec.name) })),
      recipe,
    );
  const unmatched = new Set(recipe.overrides.map((override) => override.match));
  for (const [block, specs] of blocks.entries()) {
    for (const spec of specs) {
      const plan = planFor(recipe, spec.name);
      const { rows, columns } = spec;
      planned.push({
        spec,
        block,
        plan,
        bits: plan.method === "keep" ? rows * columns * 16 : shapeBits(plannedShape(spec, plan), layout).total,
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
