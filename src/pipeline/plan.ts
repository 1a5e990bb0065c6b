import { usageError } from "../errors.js";
import type { LinearSpec } from "../model/block.js";
import { type RecordLayout, type RecordShape, shapeBits } from "../quant/bits.js";
import type { VptqScheme } from "../quant/vptq/scheme.js";
import { type LinearPlan, matches, planFor, type Recipe } from "./recipe.js";

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

/** Column split of VPTQ: outlier columns first, then equal groups; what does not divide joins the outliers. */
export function splitColumns(columns: number, percent: number, groups: number): { outliers: number; perGroup: number } {
  let outliers = Math.ceil((columns * percent) / 100);
  outliers += (columns - outliers) % groups;
  return { outliers, perGroup: (columns - outliers) / groups };
}

/** The shape of the record that a plan gives. */
function plannedShape({ rows, columns, bias }: LinearSpec, plan: Exclude<LinearPlan, { method: "keep" }>): RecordShape {
  if (plan.method !== "vptq") {
    const { bits, group, symmetric } = plan.scheme;
    const width = group === "channel" ? columns : Math.min(group, columns);
    return { kind: "affine", rows, columns, bits, group: width, symmetric, bias };
  }
  const { scheme } = plan;
  const { outliers, perGroup } = splitColumns(columns, scheme.outliers?.percent ?? 0, scheme.groups);
  const hasOutliers = scheme.outliers !== undefined && outliers > 0;
  const segments = Array.from({ length: scheme.groups }, () => ({
    columns: perGroup,
    vectorLength: scheme.vectorLength,
    codewords: [scheme.codebook, ...scheme.residuals],
  }));
  if (scheme.outliers && hasOutliers) {
    const { vectorLength, codebook } = scheme.outliers;
    segments.unshift({ columns: outliers, vectorLength, codewords: [codebook] });
  }
  return {
    kind: "codebook",
    rows,
    columns,
    hasOutliers,
    segments,
    columnOrder: segments.length > 1,
    columnScale: scheme.norm === "column" || scheme.norm === "both",
    columnBias: false,
    rowScale: scheme.norm === "row" || scheme.norm === "both",
    bias,
  };
}

/** The published VPTQ layout where it holds every record (see `accepts` in checkpoint/vptq.ts), else our own. */
export function plannedLayout(planned: { plan: LinearPlan }[]): RecordLayout {
  return planned.every(({ plan }) => plan.method === "keep" || (plan.method === "vptq" && isPublished(plan.scheme)))
    ? "vptq"
    : "bitwright";
}

const isPublished = ({ norm, residuals, codebook, outliers }: VptqScheme): boolean =>
  norm !== "row" &&
  norm !== "both" &&
  residuals.length <= 1 &&
  residuals.every((size) => size <= codebook) &&
  (outliers === undefined || outliers.vectorLength > 1);

/** Rough operation counts, for estimates of time only. */
function plannedOperations(rows: number, columns: number, plan: LinearPlan): number {
  const sweep = 2 * rows * columns * columns;
  const factor = columns ** 3;
  if (plan.method === "keep") return 0;
  if (plan.method !== "vptq") return plan.method === "rtn" ? 20 * rows * columns : sweep + factor;
  const { scheme } = plan;
  const pairs = rows * columns * scheme.codebook * 3;
  return factor + sweep * (2 + scheme.residuals.length + 14 * scheme.refine) + pairs * (15 + 2 * scheme.refine);
}

/** Plans every linear of the model, its bits counted in the layout wanted or else in `plannedLayout`. Refuses overrides that match nothing and codebooks that cannot be filled. */
export function planModel(blocks: LinearSpec[][], recipe: Recipe, wanted?: RecordLayout): PlannedLinear[] {
  const planned: PlannedLinear[] = [];
  const layout = wanted ?? plannedLayout(blocks.flat().map((spec) => ({ plan: planFor(recipe, spec.name) })));
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
      if (plan.method === "vptq") checkCodebooks(spec, plan.scheme);
    }
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

function checkCodebooks(spec: LinearSpec, scheme: Extract<LinearPlan, { method: "vptq" }>["scheme"]): void {
  const { outliers, perGroup } = splitColumns(spec.columns, scheme.outliers?.percent ?? 0, scheme.groups);
  const check = (what: string, size: number, vectorLength: number, columns: number) => {
    const vectors = Math.ceil(spec.rows / vectorLength) * columns;
    if (size <= vectors) return;
    const fits = 2 ** Math.floor(Math.log2(Math.max(1, vectors)));
    throw usageError(
      `${what} of ${size} codewords for ${spec.name}: its ${spec.rows} x ${columns} weights make only ${vectors} vectors of length ${vectorLength}`,
      `at most ${fits} fits; an override can give this linear its own size`,
    );
  };
  check("codebook", scheme.codebook, scheme.vectorLength, perGroup);
  for (const size of scheme.residuals) check("residual codebook", size, scheme.vectorLength, perGroup);
  if (scheme.outliers && outliers > 0) {
    check("outlier codebook", scheme.outliers.codebook, scheme.outliers.vectorLength, outliers);
  }
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
