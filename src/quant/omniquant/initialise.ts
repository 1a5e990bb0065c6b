import type { ClippingLogits, Engine } from "../../engine/engine.js";
import type { ActivationScheme } from "../../model/activation-scheme.js";
import type { LinearSlot } from "../../model/family.js";
import type { F32 } from "../../tensor/index.js";
import { breathe } from "../../turns.js";
import { blockLoss, type InputRanges, type TrainingBlock, type TrainingStreams } from "./block.js";
import { clippedBlock, gridOptions, groupsOf } from "./quantizer.js";
import type { GridScheme } from "./scheme.js";
import type { SitePlan, Transform, TransformParameters } from "./transform.js";

// Where training starts: scales of each site by a search over how they come from activation and weight ranges (as AWQ,
// arXiv 2306.00978, section 3.2, and SmoothQuant, arXiv 2211.10438, eq. 4), and clipping by the least weighted error.

/** Log scales tried for a site: alpha log(activation) - beta log(weight). */
const EXPONENTS: readonly (readonly [alpha: number, beta: number])[] = [
  [0.25, 0],
  [0.5, 0],
  [0.75, 0],
  [0.35, 0.65],
  [0.5, 0.5],
  [0.65, 0.35],
  [0.8, 0.2],
];
/** Windows on which candidates are compared. */
const COMPARED = 4;

/** Sets each site's log scales, one site after the other, to what lets the quantized block answer best; in place. */
export async function initialiseTransform(
  block: TrainingBlock,
  streams: TrainingStreams,
  transform: Transform,
  parameters: TransformParameters,
  ranges: InputRanges,
  activations: ActivationScheme | undefined,
  signal?: AbortSignal,
): Promise<void> {
  const { engine, weights, grids } = block;
  const loss = () =>
    engine.scope(() => {
      const quantized = clippedBlock(engine, transform.apply(engine, weights, parameters), grids, {});
      return blockLoss(block, quantized, streams, COMPARED, activations, signal);
    });
  let best = await loss();
  for (const site of transform.plan.sites) {
    const tensor = parameters.scale[site.name];
    const sides = await siteRanges(block, site, ranges);
    if (!sides) continue;
    let chosen = await engine.read(tensor);
    for (const [alpha, beta] of EXPONENTS) {
      const candidate = logScales(sides.activation, sides.weight, alpha, beta);
      engine.write(tensor, candidate);
      const value = await loss();
      if (value < best) {
        best = value;
        chosen = candidate;
      }
    }
    engine.write(tensor, chosen);
  }
}

/** Centred, so that a site's scales move difficulty without moving magnitudes. */
function logScales(activation: Float32Array, weight: Float32Array, alpha: number, beta: number): Float32Array {
  const floor = (value: number) => Math.log(Math.max(value, 1e-5));
  const logs = Float32Array.from(activation, (value, i) => alpha * floor(value) - beta * floor(weight[i]));
  const mean = logs.reduce((sum, value) => sum + value, 0) / Math.max(1, logs.length);
  return logs.map((value) => value - mean);
}

/** max |activation| and max |weight| of each entry of a site; undefined where the search has nothing to go by. */
async function siteRanges(
  block: TrainingBlock,
  { spec, size }: SitePlan,
  ranges: InputRanges,
): Promise<{ activation: Float32Array; weight: Float32Array } | undefined> {
  const { engine, weights, config } = block;
  const columnMax = async (slots: readonly LinearSlot[]) => {
    let largest: Float32Array | undefined;
    for (const slot of slots) {
      const own = await engine.scope(() => engine.read(engine.columnAbsMax(weights.linears[slot].weight)));
      largest = largest?.map((value, i) => Math.max(value, own[i])) ?? own;
    }
    return largest ?? new Float32Array(size);
  };
  switch (spec.kind) {
    case "norm":
      return { activation: ranges.largest[spec.consumers[0]], weight: await columnMax(spec.consumers) };
    case "mlp":
      return { activation: ranges.largest[spec.to], weight: await columnMax([spec.to]) };
    case "value": {
      // a value channel is read by every head that shares it
      const { heads, keyValueHeads, headSize } = config;
      const shared = (values: Float32Array) => {
        const result = new Float32Array(size);
        for (const [at, value] of values.entries()) {
          const head = Math.floor((Math.floor(at / headSize) * keyValueHeads) / heads);
          const entry = head * headSize + (at % headSize);
          result[entry] = Math.max(result[entry], value);
        }
        return result;
      };
      return { activation: shared(ranges.largest.output), weight: shared(await columnMax(["output"])) };
    }
    case "queryKey":
      return undefined; // a grid a token and head takes up a common factor; training finds the rest
    default:
      return spec satisfies never;
  }
}

/** Shares of a group's range tried as clipping, as logits of `ClippingLogits`; the first is next to none. */
const CLIPPING_LOGITS = [5, 4, 3, 2.5, 2, 1.6, 1.25, 1, 0.75, 0.5, 0.25];

/**
 * Logits of each linear, [O, G]: per group the share of the range with the least error weighted by E[x^2]. `linears` are the
 * transformed ones, `squares` E[x^2] of their inputs.
 */
export async function initialiseClipping(
  block: TrainingBlock,
  linears: Record<string, { weight: F32 }>,
  squares: Record<string, Float32Array>,
  signal?: AbortSignal,
): Promise<Record<string, ClippingLogits>> {
  const { engine, grids } = block;
  const result: Record<string, ClippingLogits> = {};
  for (const [slot, scheme] of Object.entries(grids)) {
    await breathe(signal);
    const { weight } = linears[slot];
    const logits = await bestLogits(engine, weight, scheme, squares[slot]);
    const shape = [weight.shape[0], groupsOf(scheme, weight.shape[1])];
    result[slot] = { upper: engine.upload(logits, shape, "f32"), lower: engine.upload(logits, shape, "f32") };
  }
  return result;
}

async function bestLogits(
  engine: Engine,
  weight: F32,
  scheme: GridScheme,
  squares: Float32Array,
): Promise<Float32Array> {
  const [rows, columns] = weight.shape;
  const options = gridOptions(scheme, columns);
  const groups = groupsOf(scheme, columns);
  const shape = [rows, groups];
  const best = new Float32Array(rows * groups).fill(CLIPPING_LOGITS[0]);
  const least = new Float32Array(rows * groups).fill(Number.POSITIVE_INFINITY);
  const padded = groups * options.group;
  for (const logit of CLIPPING_LOGITS) {
    const errors = await engine.scope(async () => {
      const logits = engine.upload(new Float32Array(rows * groups).fill(logit), shape, "f32");
      const grid = engine.clippedGrid(weight, { upper: logits, lower: logits }, options);
      const error = engine.subtract(weight, engine.fakeQuantize(weight, grid, options));
      const weighted = engine.multiply(error, engine.upload(squares, [columns], "f32"));
      if (padded === columns) {
        const each = [rows * groups, options.group];
        return engine.read(engine.rowDots(engine.view(error, each), engine.view(weighted, each)));
      }
      return groupSums(await engine.read(engine.multiply(error, weighted)), rows, columns, options.group);
    });
    for (const [at, value] of errors.entries()) {
      if (value < least[at]) {
        least[at] = value;
        best[at] = logit;
      }
    }
  }
  return best;
}

/** Sums of each group of columns where the last is short, [O, G]. */
function groupSums(values: Float32Array, rows: number, columns: number, group: number): Float32Array {
  const groups = Math.ceil(columns / group);
  const sums = new Float32Array(rows * groups);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < columns; i++) sums[row * groups + Math.floor(i / group)] += values[row * columns + i];
  }
  return sums;
}
