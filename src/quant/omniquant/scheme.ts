import type { Schedule } from "../../autograd/index.js";
import type { ActivationScheme } from "../../model/activation-scheme.js";

/** The grid of one linear. */
export interface GridScheme {
  bits: number;
  /** Columns that share a scale and zero; "channel" is one group a row. The last group may be shorter. */
  group: number | "channel";
  symmetric: boolean;
}

/** What is trained: the clipping and the transformation alone; then also scales and zeros; then also the weights. */
export type TrainTarget = "clip" | "scale" | "weight";

/** How a block is trained (OmniQuant, arXiv 2308.13137; `train` beyond "clip": EfficientQAT, arXiv 2407.11062). */
export interface OmniquantScheme {
  /** Passes over the calibration windows. */
  epochs: number;
  /** Windows a step. */
  batch: number;
  /** How learning rates fall from the first step of a stage to its last. */
  schedule: Schedule;
  /** Steps of a stage, at most a tenth, in which the learning rates rise to the whole; 0 or 1: they begin there. */
  warmUp: number;
  /** Most norm of a step's gradients over all parameters together; 0 is no bound. */
  clipNorm: number;
  /** The same in units of the norms' running mean; 0 is no bound. */
  clipSpikes: number;
  /** Learned weight clipping, and its learning rate. */
  clipping: boolean;
  clippingRate: number;
  /** Learned equivalent transformation, and its learning rate (of log scales and shifts). */
  transform: boolean;
  transformRate: number;
  /** The target also asks for the full-precision block's answer to the quantized stream. */
  augment: boolean;
  train: TrainTarget;
  /** Passes of the second stage (`train` "scale" and "weight"), and its learning rates. */
  tuneEpochs: number;
  /** Of log scales; zeros move at `zeroRate`. */
  scaleRate: number;
  zeroRate: number;
  /** Of weights, in units of their root mean square in each linear. */
  weightRate: number;
  /** Quantization of activations in training as in use. */
  activations?: ActivationScheme;
}
