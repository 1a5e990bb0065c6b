// Named tolerances of all tests, in one place.

/** Logits of a model against Hugging Face transformers in f32: max |difference| as a share of the largest |logit|. */
export const FAMILY_LOGITS = 2e-4;
/** Logits of the official VPTQ checkpoints against transformers with the vptq package: max |difference|. */
export const VPTQ_LOGITS = 1e-4;

// ---- engines against the reference

/** |a - b| <= absolute + relative * |b| + ofLargest * max |b|, b the reference. */
export interface Tolerance {
  absolute?: number;
  relative?: number;
  ofLargest?: number;
}

/** a + f b with or without a fused multiply-add: one rounding of a product of up to 5, whatever is left of the sum. */
export const ADD_INTO: Tolerance = { absolute: 2 ** -21 };
/** exp in f32 (some units in the last place); the absolute part is for results that underflow. */
export const SILU: Tolerance = { relative: 2e-6, absolute: 1e-30 };
/** f32 sums of up to 300 products in any order, where the reference has f64; the absolute part for sums that cancel. */
export const MATMUL: Tolerance = { ofLargest: 3e-6, absolute: 1e-6 };
/** The same over up to 1200. */
export const DEEP_MATMUL: Tolerance = { ofLargest: 6e-6 };
/** Factors rounded to f16 (2^-12 of each at most, in the mean less) and f32 sums of some hundred products. */
export const HALF_MATMUL: Tolerance = { ofLargest: 5e-4 };
/** The same of scores, which exp makes relative errors of the weights, and of weights and values: up to 5e-4 was seen. */
export const HALF_ATTENTION: Tolerance = { ofLargest: 2e-3 };
/** The same once more, of the gradients of weights and scores: up to 1e-3 was seen. */
export const HALF_ATTENTION_GRAD: Tolerance = { ofLargest: 5e-3 };
/** A sum and a rounding for each bit of an index, up to 19 of them. */
export const HADAMARD: Tolerance = { ofLargest: 4e-7 };
/** f32 sums over up to 300 tokens. */
export const GRAM: Tolerance = { ofLargest: 3e-6 };
/** f64 sums in another order. */
export const DOT: Tolerance = { relative: 1e-12, absolute: 1e-9 };
/** f64 inside: what differs is the final rounding to f32 and, in the inverse, how errors of f64 grow. */
export const FACTOR: Tolerance = { ofLargest: 2e-7 };
/** An f32 sum of squares and a square root. */
export const RMS_NORM: Tolerance = { ofLargest: 1e-6 };
/** Two products of up to 5 and their sum in f32. */
export const ROPE: Tolerance = { absolute: 2 ** -20 };
/** Scores, exp and weighted sums in f32 over up to 300 positions; the absolute part for sums that cancel. */
export const ATTENTION: Tolerance = { ofLargest: 5e-6, absolute: 1e-6 };
/** exp and log in f32; logits of 1e4 must not cost digits. */
export const CROSS_ENTROPY: Tolerance = { relative: 2e-6, absolute: 2e-6 };
/** A difference of sums near 1: the absolute part is what f32 leaves of a divergence near 0. */
export const KL_DIVERGENCE: Tolerance = { relative: 1e-5, absolute: 2e-6 };
/** f64 sums, rounded to f32 once. */
export const SEGMENT_SUM: Tolerance = { relative: 2 ** -23, ofLargest: 1e-12 };
/** Feedback of up to 130 columns in f32, against the same in f64, as a share of the largest weight. */
export const SWEEP_FEEDBACK: Tolerance = { ofLargest: 5e-6 };
/** Two choices of a sweep are a tie when their squared distances differ by less than this share of |x|^2. */
export const SWEEP_TIE = 2e-5;
/** A code of a sweep is a tie when w / scale is within this share of it (and of 1) from half-way. */
export const CODE_TIE = 2e-5;
/** The reference, f64 inside, against the same in f64 elsewhere: the rounding of inputs and results to f32. */
export const GOLDEN: Tolerance = { ofLargest: 3e-7 };
/** Gradients of grids and of fake quantization: f32 sums of some hundred products, where the reference has f64. */
export const GRID_GRADIENT: Tolerance = { ofLargest: 2e-6, absolute: 1e-6 };
/** exp in f32; the absolute part is for results below the normal numbers, which may be 0. */
export const EXP: Tolerance = { relative: 3e-7, absolute: 2e-38 };
/** The normal distribution and the sigmoid in f32, times a few numbers; the absolute part is for slopes that cancel. */
export const ACTIVATION: Tolerance = { relative: 2e-6, absolute: 5e-7 };
/** f32 sums over a row and a square root; rows far from 0 lose what their mean takes. */
export const LAYER_NORM: Tolerance = { ofLargest: 2e-6 };
/** f32 sums over rows and, of a weight, over up to a thousand of them; the absolute part for sums that cancel. */
export const NORM_GRAD: Tolerance = { ofLargest: 5e-6, absolute: 1e-6 };
/** The same of rows so large or small that an absolute part would hide all. */
export const NORM_MAGNITUDE: Tolerance = { ofLargest: 5e-6 };
/** As ATTENTION, with a difference of products of f32 sums in between, and the result rounded to f32. */
export const ATTENTION_GRAD: Tolerance = { ofLargest: 1e-5, absolute: 2e-6 };
/** One step in f32: some roundings of the parameter, and of moments near its size. */
export const ADAMW: Tolerance = { relative: 5e-7, absolute: 5e-7 };
/** The reference's gradients, f64 inside, against differences of fourth order in f64: rounding to f32, of the output too. */
export const FINITE_DIFFERENCES: Tolerance = { ofLargest: 4e-7 };
/** The same against torch in f64. */
export const GRADIENT_GOLDEN: Tolerance = { ofLargest: 4e-7 };
/** A product of two rounded factors against what it should restore. */
export const IDENTITY: Tolerance = { ofLargest: 2e-6 };

// ---- quantization methods against numpy, scikit-learn and algebra

/** U with H^-1 = U^T U from f32 factors against numpy's f64, as a share of its largest entry. */
export const INVERSE_FACTOR: Tolerance = { ofLargest: 5e-6 };
/** Entries of U^T U H against the identity: f32 rounding times the condition of a well-behaved H. */
export const INVERSE_RESIDUAL = 5e-4;
/** E[x x^T] and E[(x_full - x) x^T] over some hundred tokens in f32. */
export const STATISTICS: Tolerance = { ofLargest: 2e-6 };
/** W (I + a D H^-1) by f32 products through U, against f64. */
export const CORRECTED: Tolerance = { ofLargest: 2e-5 };
/** Centroids of converged k-means: f32 distances and vectors against f64. */
export const CENTROIDS: Tolerance = { ofLargest: 1e-5 };
/** Objective of converged k-means against scikit-learn's from the same start, as a share. */
export const KMEANS_OBJECTIVE = 1e-5;
/** Least-squares centroids by conjugate gradients against a direct solution, as a share of the largest. */
export const LEAST_SQUARES: Tolerance = { ofLargest: 1e-4 };
/** A loss or an objective that must not rise may do so by the rounding of its sum. */
export const NOT_RAISED = 1e-6;

/** Evaluation on the engines that compute in f32. */
export const EVALUATION = {
  /** Perplexity against transformers in f32, absolute, near 20. */
  perplexity: 0.01,
  /** Perplexity of a checkpoint whose decoded weights were rounded to f16 once more, relative. */
  rounded: 2e-3,
} as const;

/** The SIMD exp of the wasm kernels, with one division and one product behind it. */
export const EXP_RELATIVE = 3e-7;

/** A gradient rule in f32 against central differences of the operation in f64; times the largest expected value. */
export const AUTOGRAD_RULES = 2e-5;

/** A block before and after an equivalent transformation was folded into it, f32; times the largest output. */
export const FOLDING = 1e-5;

/** A block's training step against torch, f32 both: losses of themselves, tensors of their largest value. */
export const TRAINING_GOLDEN = 3e-5;

/** Logits of tiny random models with 8-bit weights in groups of 8 against full precision: root mean square, of the largest. */
export const EIGHT_BITS = 1e-2;
/** Statistics of a stream that waited as f16 between stages, of the largest entry. */
export const F16_STREAM = 2e-3;

/** Share of a linear's weights that another f32 engine may round to the other neighbour of a near tie. */
export const MOVED_CODES = 1e-3;
