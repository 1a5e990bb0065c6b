import type { ClippingLogits } from "../../engine/engine.js";
import type { ActivationScheme } from "../../model/activation-scheme.js";
import type { LinearSlot } from "../../model/family.js";
import { blockLoss, type InputRanges, type TrainingBlock, type TrainingStreams } from "./block.js";
import { clippedBlock, groupsOf } from "./quantizer.js";
import type { SitePlan, Transform, TransformParameters } from "./transform.js";

// Where training starts: scales of each site by a search over how they come from activation and weight ranges (as AWQ,
// arXiv 2306.00978, section 3.2, and SmoothQuant, arXiv 2211.10438, eq. 4), and next to no clipping.

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
      const quantized = clippedBlock(engine, transform.factored(engine, weights, parameters), grids, {});
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

/**
 * Logit of the clipping at the start: sigmoid(4) = 0.982 of the range, as the released code of arXiv 2308.13137; next to none
 * at more than 4 bits, where so much clipping alone would cost more than the rounding.
 */
const firstLogit = (bits: number): number => (bits > 4 ? 7 : 4);

/**
 * Logits of each linear's clipping, [O, G]. Starting at the shares with the least weighted error instead was worse: at 2 bits
 * training does not get back what is then cut off.
 */
export function initialClipping({ engine, grids, weights }: TrainingBlock): Record<string, ClippingLogits> {
  const result: Record<string, ClippingLogits> = {};
  for (const [slot, scheme] of Object.entries(grids)) {
    const [rows, columns] = weights.linears[slot].weight.shape;
    const shape = [rows, groupsOf(scheme, columns)];
    const logits = () =>
      engine.upload(new Float32Array(shape[0] * shape[1]).fill(firstLogit(scheme.bits)), shape, "f32");
    result[slot] = { upper: logits(), lower: logits() };
  }
  return result;
}
