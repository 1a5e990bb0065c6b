import type { Parameter } from "../../autograd/index.js";
import type { ClippingLogits, Engine } from "../../engine/engine.js";
import { numericError } from "../../errors.js";
import type { BlockWeights } from "../../model/block.js";
import { type F32, roundToEven } from "../../tensor/index.js";
import type { QuantizedLinear } from "../method.js";
import type { AffineRecord } from "../record.js";
import { blockLoss, inputRanges, type TrainingBlock, type TrainingStreams } from "./block.js";
import { initialClipping, initialiseTransform } from "./initialise.js";
import { clippedBlock, griddedBlock, gridOptions, trainedGrid } from "./quantizer.js";
import type { OmniquantScheme } from "./scheme.js";
import { type TrainingProgress, trainBlock } from "./train.js";
import { planTransform, Transform, type TransformParameters } from "./transform.js";

export interface BlockOptions {
  seed: number;
  /** Type in which norms and biases are stored. */
  storage: "f32" | "f16" | "bf16";
  progress: TrainingProgress;
  /** Bytes that a training step's activations may take. Default: no bound. */
  memory?: number;
  signal?: AbortSignal;
}

export interface QuantizedBlock {
  /** By slot. A record has the linear's bias where the transformation changed it. */
  linears: Record<string, QuantizedLinear>;
  /** Vectors that the transformation changed, by slot, as they are stored. */
  vectors: Record<string, Float32Array>;
}

/** Windows on which the ranges of inputs are taken. */
const RANGE_WINDOWS = 32;

/**
 * OmniQuant (Shao et al., arXiv 2308.13137) on one block: clipping and an equivalent transformation are learned together by
 * gradient descent on the block's output, then folded into its weights, which are rounded. With `train` "scale" or "weight"
 * the scales and zeros, or also the weights, are trained afterwards (EfficientQAT, Chen et al., arXiv 2407.11062, Block-AP).
 */
export async function quantizeOmniquant(
  block: TrainingBlock,
  streams: TrainingStreams,
  scheme: OmniquantScheme,
  options: BlockOptions,
): Promise<QuantizedBlock> {
  const { engine } = block;
  return engine.scope(async () => {
    // names what is not finite before anything is made of it
    await blockLoss(block, block.weights, streams, 1, undefined, options.signal);
    const ranges = await inputRanges(block, streams, RANGE_WINDOWS, options.signal);
    const transform = new Transform(engine, planFor(block, scheme));
    try {
      const parameters = transform.identity();
      if (scheme.transform) {
        await initialiseTransform(block, streams, transform, parameters, ranges, scheme.activations, options.signal);
      }
      const squares = () => transformedSquares(block, transform, parameters, ranges.squares);
      const clipping = scheme.clipping ? initialClipping(block) : {};
      const weights = (running: Engine): BlockWeights =>
        clippedBlock(running, transform.factored(running, block.weights, parameters), block.grids, clipping);
      const trained = trainedParameters(scheme, parameters, clipping);
      if (scheme.epochs > 0 && trained.length > 0) {
        await trainBlock({
          ...scheme,
          ...options,
          block,
          streams,
          parameters: trained,
          weights,
          stage: "clip",
        });
      }
      const folded = storedVectors(engine, transform.apply(engine, block.weights, parameters), block, options);
      return await roundBlock(block, folded, clipping, await squares(), streams, scheme, options);
    } finally {
      transform.dispose();
    }
  });
}

/** Without the transformation there are no sites. */
function planFor(block: TrainingBlock, scheme: OmniquantScheme) {
  if (!scheme.transform) return { sites: [], linears: {}, norms: {} };
  return planTransform(block.config, scheme.activations);
}

/** E[x^2] of the inputs as the transformation has them, by slot: they lost what the columns gained. */
async function transformedSquares(
  { engine, grids }: TrainingBlock,
  transform: Transform,
  parameters: TransformParameters,
  squares: Record<string, Float32Array>,
): Promise<Record<string, Float32Array>> {
  const result: Record<string, Float32Array> = {};
  for (const slot of Object.keys(grids)) {
    result[slot] = await engine.scope(async () => {
      const tensor = transform.columnFactor(engine, slot, parameters);
      const factor = tensor && (await engine.read(tensor));
      return factor ? squares[slot].map((value, i) => value / factor[i] ** 2) : squares[slot];
    });
  }
  return result;
}

function trainedParameters(
  scheme: OmniquantScheme,
  { scale, shift }: TransformParameters,
  clipping: Record<string, ClippingLogits>,
): Parameter[] {
  const named = (prefix: string, tensors: Record<string, F32>, rate: number): Parameter[] =>
    Object.entries(tensors).map(([name, tensor]) => ({ name: `${prefix}.${name}`, tensor, rate }));
  return [
    ...named("scale", scale, scheme.transformRate),
    ...named("shift", shift, scheme.transformRate),
    ...Object.entries(clipping).flatMap(([slot, { upper, lower }]) =>
      named(slot, { upper, lower }, scheme.clippingRate),
    ),
  ];
}

/** The folded block with vectors and biases as they will be stored, so that nothing differs between here and the file. */
function storedVectors(
  engine: Engine,
  folded: BlockWeights,
  block: TrainingBlock,
  options: BlockOptions,
): BlockWeights {
  const round = (tensor: F32, before: F32): F32 => {
    if (tensor === before || options.storage === "f32") return tensor;
    return engine.cast(engine.cast(tensor, options.storage), "f32");
  };
  const vectors = Object.fromEntries(
    Object.entries(folded.vectors).map(([slot, tensor]) => [slot, round(tensor, block.weights.vectors[slot])]),
  );
  const linears = Object.fromEntries(
    Object.entries(folded.linears).map(([slot, { weight, bias }]) => {
      const before = block.weights.linears[slot].bias;
      return [slot, bias && before ? { weight, bias: round(bias, before) } : { weight, bias }];
    }),
  );
  return { linears, vectors };
}

/** Grids, the second training where it is asked for, and the records. */
async function roundBlock(
  block: TrainingBlock,
  folded: BlockWeights,
  clipping: Record<string, ClippingLogits>,
  squares: Record<string, Float32Array>,
  streams: TrainingStreams,
  scheme: OmniquantScheme,
  options: BlockOptions,
): Promise<QuantizedBlock> {
  const { engine, grids } = block;
  const current: BlockWeights = { linears: { ...folded.linears }, vectors: folded.vectors };
  const trained: Record<string, { logScale: F32; zero: F32 }> = {};
  for (const slot of Object.keys(grids)) {
    const { weight } = current.linears[slot];
    const { scale, zero } = engine.clippedGrid(weight, clipping[slot], gridOptions(grids[slot], weight.shape[1]));
    const logs = (await engine.read(scale)).map(Math.log);
    trained[slot] = { logScale: engine.upload(logs, scale.shape, "f32"), zero };
  }
  if (scheme.train !== "clip" && scheme.tuneEpochs > 0) {
    const parameters: Parameter[] = [];
    for (const [slot, { logScale, zero }] of Object.entries(trained)) {
      parameters.push({ name: `${slot}.scale`, tensor: logScale, rate: scheme.scaleRate });
      if (!grids[slot].symmetric) parameters.push({ name: `${slot}.zero`, tensor: zero, rate: scheme.zeroRate });
      if (scheme.train === "weight") {
        const linear = current.linears[slot];
        const isFolded = linear.weight !== block.weights.linears[slot].weight; // a tensor of its own already
        const weight = isFolded ? linear.weight : engine.copy(linear.weight);
        current.linears[slot] = { ...linear, weight };
        const size = Math.sqrt((await engine.dot(weight, weight)) / weight.size);
        parameters.push({ name: `${slot}.weight`, tensor: weight, rate: scheme.weightRate * size });
      }
    }
    await trainBlock({
      ...scheme,
      ...options,
      block,
      streams,
      parameters,
      weights: (running) => griddedBlock(running, current, grids, trained),
      epochs: scheme.tuneEpochs,
      stage: "tune",
    });
  }
  const linears: Record<string, QuantizedLinear> = {};
  for (const slot of Object.keys(grids)) {
    linears[slot] = await roundLinear(block, slot, current, trained[slot], squares[slot]);
  }
  const vectors: Record<string, Float32Array> = {};
  for (const [slot, tensor] of Object.entries(current.vectors)) {
    if (tensor === block.weights.vectors[slot]) continue;
    if (!(await engine.allFinite(tensor))) {
      throw numericError(
        `${block.name}: ${slot} does not fit in ${options.storage} after the transformation`,
        "lower --let-lr, or leave the transformation out with --no-let",
      );
    }
    vectors[slot] = await engine.read(tensor);
  }
  return { linears, vectors };
}

async function roundLinear(
  block: TrainingBlock,
  slot: string,
  weights: BlockWeights,
  trained: { logScale: F32; zero: F32 },
  squares: Float32Array,
): Promise<QuantizedLinear> {
  const { engine, grids } = block;
  return engine.scope(async () => {
    const { weight, bias } = weights.linears[slot];
    const [rows, columns] = weight.shape;
    const { bits, symmetric } = grids[slot];
    const options = gridOptions(grids[slot], columns);
    const grid = trainedGrid(engine, trained);
    const record: AffineRecord = {
      kind: "affine",
      storage: "f16",
      rows,
      columns,
      bits,
      symmetric,
      group: options.group,
      codes: await engine.read(engine.affineCodes(weight, grid, options)),
      scale: await engine.read(grid.scale),
      zero: wholeZeros(await engine.read(grid.zero), bits),
    };
    if (bias && bias !== block.weights.linears[slot].bias) record.bias = await engine.read(bias);
    const seen = engine.upload(squares, [columns], "f32");
    const energy = (tensor: F32) => engine.dot(tensor, engine.multiply(tensor, seen));
    const signal = await energy(weight);
    const lost = await energy(engine.subtract(weight, engine.fakeQuantize(weight, grid, options)));
    const metrics = { proxyError: signal > 0 ? lost / signal : 0, damping: 0, deadColumns: 0, notes: [] };
    return { record, metrics };
  });
}

/** Zeros as `fakeQuantize` takes them: to the nearest of 0 .. 2^bits - 1, ties to even. */
const wholeZeros = (zeros: Float32Array, bits: number): Uint8Array =>
  Uint8Array.from(zeros, (zero) => Math.min(2 ** bits - 1, Math.max(0, roundToEven(zero))));
