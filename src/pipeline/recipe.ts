import { z } from "zod";
import { SCHEDULES, type Schedule } from "../autograd/index.js";
import { usageError } from "../errors.js";
import type { ActivationScheme } from "../model/activation-scheme.js";
import type { AffineScheme } from "../quant/affine-scheme.js";
import type { GridScheme, OmniquantScheme, TrainTarget } from "../quant/omniquant/scheme.js";
import type { VptqScheme } from "../quant/vptq/scheme.js";

// A recipe says how a model is quantized: the same words as the command line's options, and overrides by name.

export const METHODS = ["vptq", "omniquant", "gptq", "rtn"] as const;
export type MethodName = (typeof METHODS)[number];

const powerOfTwo = z
  .number()
  .int()
  .min(2)
  .max(65536)
  .refine((value) => (value & (value - 1)) === 0, { error: "expected a power of two from 2 to 65536" });
const vectorLength = z.number().int().min(1).max(64);

/** What may differ from linear to linear. */
const schemeShape = {
  method: z.enum(METHODS),
  vectorLength,
  codebook: powerOfTwo,
  /** One codebook size a residual stage. */
  residual: z.array(powerOfTwo).max(8),
  /** Share of the columns, in percent, that get the outlier codebook. */
  outliers: z.number().min(0).max(50),
  outlierVectorLength: vectorLength,
  outlierCodebook: powerOfTwo,
  /** Column groups with a codebook each. */
  groups: z.number().int().min(1).max(1024),
  norm: z.enum(["none", "column", "row", "both"]),
  /** Rounds of least-squares centroids and re-chosen indices; 0 is VPTQ as published. */
  refine: z.number().int().min(0).max(50),
  /** First-stage candidates tried with the residual stages. */
  beam: z.number().int().min(1).max(64),
  /** Strength of the correction towards the full-precision stream's outputs, 0-1 (only with `propagate: "quantized"`). */
  asymmetric: z.number().min(0).max(1),
  /** Most Lloyd iterations. */
  iterations: z.number().int().min(1).max(10000),
  bits: z.union([z.literal(2), z.literal(3), z.literal(4), z.literal(6), z.literal(8)]),
  group: z.union([
    z
      .number()
      .int()
      .min(1)
      .max(1 << 20),
    z.literal("channel"),
  ]),
  symmetric: z.boolean(),
  actOrder: z.boolean(),
};

/** What holds for all linears of a job. */
const jobShape = {
  /** Bits of every linear's input and of query, key and value while the model runs; 16 leaves them alone. */
  activations: z.union([z.literal(4), z.literal(6), z.literal(8), z.literal(16)]),
  /** Bits of the keys and values in the cache; 16 leaves them alone. Default: as the activations. */
  kv: z.union([z.literal(4), z.literal(8), z.literal(16)]),
  /** OmniQuant: passes over the calibration windows. */
  epochs: z.number().int().min(0).max(10_000),
  /** Windows a training step. */
  batch: z.number().int().min(1).max(1024),
  /** How learning rates fall from the first step of a stage to its last. */
  schedule: z.enum(SCHEDULES),
  /** Steps, at most a tenth, in which each training's learning rates rise to the whole. */
  warmUp: z.number().int().min(0).max(1_000_000),
  /** Gradients of a step are scaled down to this norm, all parameters together; 0 leaves them alone. */
  clipNorm: z.number().min(0).max(1e6),
  /** The same in units of the norms' running mean, more than 1; 0 leaves them alone. */
  clipSpikes: z
    .number()
    .min(0)
    .max(1e6)
    .refine((value) => value === 0 || value > 1, { error: "expected 0, or more than 1" }),
  /** Learned weight clipping, and its learning rate. */
  lwc: z.boolean(),
  lwcLr: z.number().min(0).max(10),
  /** Learned equivalent transformation, and its learning rate. */
  let: z.boolean(),
  letLr: z.number().min(0).max(10),
  /** Aim also at the full-precision block's answer to the quantized stream. */
  augment: z.boolean(),
  /** What is trained: clipping and transformation; then scales and zeros too; then the weights too. */
  train: z.enum(["clip", "scale", "weight"]),
  tuneEpochs: z.number().int().min(0).max(10_000),
  scaleLr: z.number().min(0).max(10),
  zeroLr: z.number().min(0).max(10),
  /** In units of each linear's root mean square weight. */
  weightLr: z.number().min(0).max(10),
};

export const DEFAULT_RECIPE = {
  method: "vptq" as MethodName,
  vectorLength: 4,
  codebook: 256,
  residual: [] as number[],
  outliers: 0,
  outlierVectorLength: 4,
  outlierCodebook: 4096,
  groups: 1,
  norm: "none" as "none" | "column" | "row" | "both",
  refine: 2,
  beam: 8,
  asymmetric: 0.5,
  iterations: 100,
  bits: 4 as 2 | 3 | 4 | 6 | 8,
  group: 64 as number | "channel",
  symmetric: false,
  actOrder: false,
  activations: 16 as 4 | 6 | 8 | 16,
  kv: undefined as 4 | 8 | 16 | undefined,
  epochs: 3,
  batch: 1,
  schedule: "cosine" as Schedule,
  warmUp: 32,
  clipNorm: 0,
  clipSpikes: 2,
  lwc: true,
  lwcLr: 1e-2,
  let: true,
  letLr: 5e-3,
  augment: true,
  train: "weight" as TrainTarget,
  tuneEpochs: 7,
  scaleLr: 1e-3,
  zeroLr: 1e-2,
  weightLr: 2e-3,
  samples: 128,
  window: 2048,
  seed: 0,
  propagate: "quantized" as "full" | "quantized",
  correctionShare: 0.25,
  damping: 0.01,
  overrides: [] as RecipeOverride[],
};

/** Defaults of `train: "clip"`, which has no second training: as published (OmniQuant, section 4.1). */
export const CLIP_RECIPE = { epochs: 20, warmUp: 0, clipSpikes: 0 };

const overrideSchema = z.strictObject({
  /** Pattern of full linear names: `*` stands for anything, "model.layers.0.*". */
  match: z.string().min(1).max(500),
  /** Leave these linears as they are. */
  keep: z.boolean().optional(),
  ...z.object(schemeShape).partial().shape,
});
export type RecipeOverride = z.infer<typeof overrideSchema>;

/** The schema of a recipe file; every word is optional and defaults to `DEFAULT_RECIPE`. */
export const recipeSchema = z.strictObject({
  ...z.object(schemeShape).partial().shape,
  ...z.object(jobShape).partial().shape,
  samples: z.number().int().min(1).max(1_000_000).optional(),
  window: z
    .number()
    .int()
    .min(2)
    .max(1 << 20)
    .optional(),
  seed: z.number().int().min(0).max(0xffffffff).optional(),
  /** Which inputs a layer is measured on: the full-precision model's, or those that the quantized layers before it produce. */
  propagate: z.enum(["full", "quantized"]).optional(),
  /** Share of the calibration windows on which the full-precision stream runs too, to measure the correction. */
  correctionShare: z.number().min(0).max(1).optional(),
  /** Added to the diagonal of a Hessian, as a share of its mean. */
  damping: z.number().min(1e-6).max(1).optional(),
  overrides: z.array(overrideSchema).max(10_000).optional(),
});
export type RecipeInput = z.infer<typeof recipeSchema>;
export type Recipe = typeof DEFAULT_RECIPE;

/** The JSON Schema of a recipe file. */
export const recipeJsonSchema = (): unknown => z.toJSONSchema(recipeSchema);

/** Fills in the defaults and checks what the schema alone cannot. Throws "usage". */
export function resolveRecipe(input: unknown): Recipe {
  const parsed = recipeSchema.safeParse(input);
  if (!parsed.success) {
    const issues = parsed.error.issues.map((issue) => {
      const path = issue.path.join(".");
      return path ? `${path}: ${issue.message}` : issue.message;
    });
    throw usageError(
      `the recipe is not valid: ${issues.slice(0, 5).join("; ")}`,
      "see `bitwright quantize --help` for the words",
    );
  }
  const given = withoutUndefined(parsed.data);
  return { ...DEFAULT_RECIPE, ...(given.train === "clip" ? CLIP_RECIPE : {}), ...given };
}

function withoutUndefined<T extends object>(object: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>;
  };
}

export type LinearPlan =
  | { method: "vptq"; scheme: VptqScheme }
  | { method: "gptq" | "rtn"; scheme: AffineScheme }
  | { method: "omniquant"; scheme: GridScheme }
  | { method: "keep" };

/** The method and scheme of one linear: the recipe with every matching override applied, the last one strongest. */
export function planFor(recipe: Recipe, name: string): LinearPlan {
  let words = recipe;
  let keep = false;
  for (const override of recipe.overrides) {
    if (!matches(override.match, name)) continue;
    const { match: _, keep: left, ...changed } = override;
    if (left !== undefined) keep = left;
    words = { ...words, ...withoutUndefined(changed) };
  }
  if (keep) return { method: "keep" };
  if (words.method === "vptq") {
    return {
      method: "vptq",
      scheme: {
        vectorLength: words.vectorLength,
        codebook: words.codebook,
        residuals: words.residual,
        outliers:
          words.outliers > 0
            ? { percent: words.outliers, vectorLength: words.outlierVectorLength, codebook: words.outlierCodebook }
            : undefined,
        groups: words.groups,
        norm: words.norm,
        refine: words.refine,
        beam: words.beam,
        asymmetric: words.asymmetric,
        iterations: words.iterations,
        damping: recipe.damping,
      },
    };
  }
  if (words.method === "omniquant") {
    return { method: "omniquant", scheme: { bits: words.bits, group: words.group, symmetric: words.symmetric } };
  }
  return {
    method: words.method,
    scheme: {
      bits: words.bits,
      group: words.group,
      symmetric: words.symmetric,
      actOrder: words.actOrder,
      asymmetric: words.asymmetric,
      damping: recipe.damping,
    },
  };
}

/** How activations are quantized while the model runs; undefined where they are left alone. */
export function activationsOf({ activations, kv }: Recipe): ActivationScheme | undefined {
  const own = activations === 16 ? undefined : activations;
  const cached = kv === undefined ? own : kv === 16 ? undefined : kv;
  if (own === undefined && cached === undefined) return undefined;
  return { input: own, query: own, key: cached, value: cached };
}

/** The training that a recipe asks for. */
export const trainingOf = (recipe: Recipe): OmniquantScheme => ({
  epochs: recipe.epochs,
  batch: recipe.batch,
  schedule: recipe.schedule,
  warmUp: recipe.warmUp,
  clipNorm: recipe.clipNorm,
  clipSpikes: recipe.clipSpikes,
  clipping: recipe.lwc,
  clippingRate: recipe.lwcLr,
  transform: recipe.let,
  transformRate: recipe.letLr,
  augment: recipe.augment,
  train: recipe.train,
  tuneEpochs: recipe.tuneEpochs,
  scaleRate: recipe.scaleLr,
  zeroRate: recipe.zeroLr,
  weightRate: recipe.weightLr,
  activations: activationsOf(recipe),
});

/** Glob match over a whole name; only `*` is special. Linear in the lengths (no backtracking beyond the last star). */
export function matches(pattern: string, name: string): boolean {
  let p = 0;
  let n = 0;
  let star = -1;
  let resume = 0;
  while (n < name.length) {
    if (p < pattern.length && pattern[p] === "*") {
      star = p++;
      resume = n;
    } else if (p < pattern.length && pattern[p] === name[n]) {
      p++;
      n++;
    } else if (star >= 0) {
      p = star + 1;
      n = ++resume;
    } else return false;
  }
  while (pattern[p] === "*") p++;
  return p === pattern.length;
}
