import type { DType, F32, HostArray, I32, Tensor } from "../tensor/index.js";

// The contract between mathematics and machines. Shapes and numbers only: no layer, model or method words.
//
// - Calls enqueue; only the operations that return a promise wait.
// - Operations return new dense tensors in the current scope unless they say "in place". Inputs are never changed otherwise.
// - Shapes that do not fit throw a BitwrightError of kind "usage" that names the operation, what was expected and what came.
// - Every operation is specified by the plain loop of the same name in `reference/` and by a case in `test/conformance`.
// - Elements that an operation refuses (an index outside) are an error at the call or at the next promise: a device finds them later.
// - Empty extents (0) are legal everywhere and give empty results.
// - A result does not depend on the number of threads.
//
// Shape letters: B batch, T tokens, S key positions, D width, H heads, K key-value heads, d head size, V vocabulary,
// O output rows, I input columns, P padded output rows, G groups, v vector length, C codewords, N any square side.

export type EngineName = "reference" | "wasm" | "blas" | "cuda" | "webgpu";

/** Arithmetic of matrix products: f32, or f32 operands rounded to tf32 (11 bits) or f16, with sums in f32. */
export type Precision = "f32" | "tf32" | "f16";

export interface MatmulOptions {
  /** Use a transposed: a is [k, m] instead of [m, k]. */
  transposeA?: boolean;
  /** Use b transposed: b is [n, k] instead of [k, n]. A linear layer y = x W^T is `matmul(x, W, { transposeB: true })`. */
  transposeB?: boolean;
  /** Factor of the product, default 1. */
  alpha?: number;
  /** Adds the product to this [m, n] tensor in place and returns it. */
  accumulate?: F32;
  /** Takes f32 whatever the engine's precision: what decides codes needs it. Default false. */
  exact?: boolean;
}

export interface AttentionOptions {
  /** Factor of the scores, usually 1 / sqrt(d). */
  scale: number;
  /** Sliding window: a query sees the last `window` positions, itself included. Default: all. */
  window?: number;
  /** Number of valid positions in k and v (S of the tensors may be a larger capacity). Default S. */
  keyLength?: number;
  /** ALiBi (arXiv 2108.12409), [H]: a query at position p adds slopes[h] * (s - p) to its score of the key at position s. */
  slopes?: F32;
}

/** A run of columns [begin, end) that shares its codebooks, in sweep order. */
export interface CodebookSegment {
  begin: number;
  end: number;
  /** One codebook [C_s, v] a stage: a vector is the sum of one codeword of each. All of a segment have the same v. */
  stages: F32[];
}

export interface VectorSweepOptions {
  /**
   * The so many nearest codewords of the first stage (nearest first, the lowest index of equals) are each continued greedily
   * through the later stages; the least distance after the last stage wins, the first of equals. 1 is greedy. Default 1.
   */
  beam?: number;
}

export interface VectorSweepResult {
  /** Per segment and stage: chosen codewords, i32 [end - begin, P / v]. */
  indices: I32[][];
  /** Decoded weights, [I, P]. */
  quantized: F32;
  /** Each column as it was at its own turn, after the feedback of the columns before it, [I, P]. */
  compensated: F32;
}

export interface AffineGridOptions {
  /** 2..8; codes are 0 .. 2^bits - 1. */
  bits: number;
  /** Symmetric: zero is 2^(bits-1) and scale is 2 max|w| / (2^bits - 1). Otherwise min-max, 0 always on the grid. */
  symmetric: boolean;
  /** Group of each column, i32 [I], values 0 .. groups - 1. */
  groupOfColumn: Int32Array;
  groups: number;
}

export interface AffineGrid {
  /** [G, O], each exactly a f16 value, > 0. */
  scale: F32;
  /** [G, O], whole numbers 0 .. 2^bits - 1. */
  zero: F32;
}

export interface AffineSweepOptions extends AffineGridOptions {
  /** The grid, or undefined: each group's grid is taken from its columns as they are when the first of them has its turn. */
  grid?: AffineGrid;
}

export interface AffineSweepResult extends AffineGrid {
  /** u8 [I, O]. */
  codes: Tensor<"u8">;
  /** (code - zero) * scale, [I, O]. */
  quantized: F32;
}

/** The affine grid of groups of consecutive columns: column i belongs to group floor(i / group), the last may be shorter. */
export interface GroupGridOptions {
  /** 2..8; codes are 0 .. K = 2^bits - 1. */
  bits: number;
  /** Columns of a group, >= 1. */
  group: number;
  /** Symmetric grids have zero 2^(bits-1). */
  symmetric: boolean;
}

/** Logits of learned weight clipping, both [O, G]: sigmoid(upper) shrinks the maximum of a group, sigmoid(lower) the minimum. */
export interface ClippingLogits {
  upper: F32;
  lower: F32;
}

/** What rows [O] and columns [I] of weights are multiplied by: the columns first, each product rounded to f32. */
export interface WeightFactors {
  rows?: F32;
  columns?: F32;
}

export interface AdamwOptions {
  /** Learning rate. */
  rate: number;
  beta1: number;
  beta2: number;
  epsilon: number;
  /** Decoupled weight decay: the parameter shrinks by rate * decay of itself first. */
  decay: number;
  /** Number of this step, from 1 on: the moments are corrected by 1 - beta^step. */
  step: number;
}

export interface Engine {
  readonly name: EngineName;
  /** One line for people: threads, instruction set, library. */
  readonly description: string;
  readonly threads: number;
  /** Of `matmul`, and where it is f16 on CUDA of `attention`; everything else is f32. */
  readonly precision: Precision;
  /** Names what decides the last bits of results ("reference", "wasm", "wasm-relaxed", "blas OpenBLAS 0.3.21"): resumed work must match it. */
  readonly arithmetic: string;
  /**
   * Calls return before their work is done, so work that may turn out to be of no use is worth enqueueing before a wait: the
   * machine would stand idle.
   */
  readonly runsAhead: boolean;
  /** Uploads go beside the work under way, and fail at the call: tensors may come before they are wanted. */
  readonly uploadsBeside: boolean;

  // ---- memory
  /** Zeros. */
  create<D extends DType = "f32">(shape: readonly number[], dtype?: D): Tensor<D>;
  /** A copy of host data. f16 and bf16 come as bit patterns. */
  upload<D extends DType>(data: HostArray<D>, shape: readonly number[], dtype: D): Tensor<D>;
  /** A copy on the host. */
  read<D extends DType>(tensor: Tensor<D>): Promise<HostArray<D>>;
  /** Overwrites elements [offset, offset + data.length) in place. */
  write<D extends DType>(tensor: Tensor<D>, data: HostArray<D>, offset?: number): void;
  /** Shares memory: `shape` elements from element `offset` on. */
  view<D extends DType>(tensor: Tensor<D>, shape: readonly number[], offset?: number): Tensor<D>;
  copy<D extends DType>(tensor: Tensor<D>): Tensor<D>;
  /** Copies all of `source` over elements [offset, offset + source.size) of `target`, in place. */
  copyInto<D extends DType>(target: Tensor<D>, source: Tensor<D>, offset?: number): void;
  /**
   * f32 <-> f16, f32 <-> bf16 by round-to-nearest-even; f32 -> i32, u16, u8 by truncation, saturated, NaN to 0;
   * i32, u16, u8 -> f32.
   */
  cast<D extends DType>(tensor: Tensor, dtype: D): Tensor<D>;
  scope<T>(body: () => T): T;
  keep<T extends Tensor>(tensor: T): T;
  /** Bytes of the engine's own memory beyond those in use, where that is not the host's; 0 where it is. */
  roomBytes(): number;
  /** Bytes of all buffers not yet freed. */
  liveBytes(): number;
  peakBytes(): number;
  resetPeak(): void;
  /** Stops threads and frees everything. */
  close(): Promise<void>;

  // ---- elementwise; b has the shape of a, or is [last axis of a] and repeats over the others
  add(a: F32, b: F32): F32;
  subtract(a: F32, b: F32): F32;
  multiply(a: F32, b: F32): F32;
  scale(a: F32, factor: number): F32;
  /** target += factor * a, in place; same size. */
  addInto(target: F32, a: F32, factor?: number): void;
  /** a [R, ..] with row r times factors[r]. */
  scaleRows(a: F32, factors: F32): F32;
  /** a [R, ..] with row r divided by divisors[r]. */
  divideRows(a: F32, divisors: F32): F32;
  /** silu(gate) * up = gate / (1 + exp(-gate)) * up. */
  siluMultiply(gate: F32, up: F32): F32;
  divide(a: F32, b: F32): F32;
  exp(a: F32): F32;
  /** max(a, 0). */
  relu(a: F32): F32;
  /** a times the normal distribution function of a: a / 2 (1 + erf(a / sqrt 2)). */
  gelu(a: F32): F32;

  // ---- layout
  /** [R, C] -> [C, R]. */
  transpose(a: F32): F32;
  /** Rows table[indices[m]]; table [R, ..], indices any shape -> [..indices, ..row]. An index outside throws. */
  gatherRows(table: F32, indices: I32): F32;

  // ---- reductions
  /** sum a_i b_i in f64, in a fixed order. */
  dot(a: F32, b: F32): Promise<number>;
  /** False when any element is NaN or infinite. */
  allFinite(a: F32): Promise<boolean>;
  /** Index of the largest element of each row (the first of equals); [R, C] -> i32 [R]. */
  argmax(a: F32): I32;
  /** Sums over all axes but the last, [.., C] -> [C]; f64 inside, in a fixed order. */
  sumRows(a: F32): F32;
  /** sum_i a[r, i] b[r, i]: [R, ..] both -> [R]; f64 inside. */
  rowDots(a: F32, b: F32): F32;
  /** max |a[.., c]| over all axes but the last, [.., C] -> [C]. */
  columnAbsMax(a: F32): F32;

  // ---- matrices
  /** op(a) [m, k] times op(b) [k, n] -> [m, n]; f32 accumulation. With rank 3, a product for each leading index. */
  matmul(a: F32, b: F32, options?: MatmulOptions): F32;
  /** True when, since the last call, a finite operand of a product was too large for the engine's precision. */
  overflowed(): Promise<boolean>;
  /**
   * accumulator [N, N] += x^T diag(weights) x for x [T, N], weights [T]; in place, f32, both triangles filled, exactly symmetric.
   */
  gram(accumulator: F32, x: F32, weights?: F32): void;
  /**
   * [.., n], n a power of two: each row times H_n / sqrt(n), H_2n = [[H_n, H_n], [H_n, -H_n]] (Sylvester), which is its own
   * inverse and transpose.
   */
  hadamard(x: F32): F32;
  /** Diagonal of [N, N] -> [N]. */
  diagonal(a: F32): F32;
  /** a [N, N] += value on the diagonal, in place. */
  addDiagonal(a: F32, value: number): void;
  /**
   * Lower L with a = L L^T; reads the lower triangle, zeros above. f64 inside.
   * Rejects with kind "numeric" at a pivot that is not positive (the message names it).
   */
  cholesky(a: F32): Promise<F32>;
  /** Inverse of a lower triangular [N, N]; f64 inside. A 0 on the diagonal throws with kind "numeric". */
  triangularInverse(lower: F32): F32;

  // ---- decoder
  /** x / sqrt(mean(x^2) + epsilon) * weight over the last axis. */
  rmsNorm(x: F32, weight: F32, epsilon: number): F32;
  /** (x - mean) / sqrt(variance + epsilon) * weight + bias over the last axis. */
  layerNorm(x: F32, weight: F32, bias: F32, epsilon: number): F32;
  /**
   * Rotary embedding, half-split pairs (i, i + r): x [B, T, H, d]; cos, sin [positions, r], 2r <= d (a tail d - 2r passes
   * through); token t has position start + t.
   */
  rope(x: F32, cos: F32, sin: F32, start: number): F32;
  /**
   * Causal softmax attention with grouped heads: q [B, T, H, d], k and v [B, S, K, d], H a multiple of K -> [B, T, H, d].
   * Query t stands at position keyLength - T + t and sees positions up to its own.
   */
  attention(q: F32, k: F32, v: F32, options: AttentionOptions): F32;
  /** -log softmax(logits)[target] per row: [T, V], i32 [T] -> [T]. */
  crossEntropy(logits: F32, targets: I32): F32;
  /** sum p (log p - log q) per row, p = softmax(reference), q = softmax(logits): [T, V] both -> [T], never below 0. */
  klDivergence(reference: F32, logits: F32): F32;

  // ---- vector-Jacobian products: `grad` has the shape of the operation's result; the results are gradients of its inputs.
  // `wanted` is false for a gradient that costs a pass over large tensors and that nobody wants: it is left out of the result.
  siluMultiplyGrad(gate: F32, up: F32, grad: F32): { gate: F32; up: F32 };
  /** grad where a > 0, else 0. */
  reluGrad(a: F32, grad: F32): F32;
  geluGrad(a: F32, grad: F32): F32;
  rmsNormGrad(x: F32, weight: F32, epsilon: number, grad: F32, wanted?: { weight?: boolean }): { x: F32; weight?: F32 };
  /** `weight` wanted or not goes for the bias, too. */
  layerNormGrad(
    x: F32,
    weight: F32,
    epsilon: number,
    grad: F32,
    wanted?: { weight?: boolean },
  ): { x: F32; weight?: F32; bias?: F32 };
  /**
   * Of `attention` with q, k and v of the same tokens (S = T, no keyLength); `output` is its result. Never holds all T x T
   * scores of all heads. The slopes are constants.
   */
  attentionGrad(q: F32, k: F32, v: F32, output: F32, grad: F32, options: AttentionOptions): { q: F32; k: F32; v: F32 };

  // ---- training of affine grids; h is the scale of a group, z its zero, K = 2^bits - 1
  /**
   * Min-max grid of weights [O, I] with learned clipping (OmniQuant, arXiv 2308.13137, eq. 2): high = sigmoid(upper) max(0, max w),
   * low = sigmoid(lower) min(0, min w) of each group (factors 1 without logits); h = (high - low) / K or, symmetric,
   * 2 max(high, -low) / K, rounded to f16, 2^-14 where that gives 0 and at most 65504 (1 where high = low = 0);
   * z = clamp(round(-low / h), 0, K), ties to even, or 2^(bits-1). -> [O, G] both. Without logits the same as `affineGrid`.
   */
  clippedGrid(weights: F32, clipping: ClippingLogits | undefined, options: GroupGridOptions): AffineGrid;
  /**
   * Of `clippedGrid`, for the gradient [O, G] of h (z is a constant; the rounding to f16 passes it through, the clamps stop it):
   * of the weights, [O, I], which only the extremes of each group get (the first of equals, a 0 never), and of the logits
   * (without logits as if both factors were 1 and constant: zeros).
   * Symmetric: the larger of high and -low gets it all (high, when they are equal).
   */
  clippedGridGrad(
    weights: F32,
    clipping: ClippingLogits | undefined,
    scaleGrad: F32,
    options: GroupGridOptions,
    wanted?: { weights?: boolean },
  ): { weights?: F32; upper: F32; lower: F32 };
  /**
   * (q - z') h with q = clamp(round(w / h) + z', 0, K), z' = clamp(round(z), 0, K), ties to even; [O, I], scale and zero [O, G].
   */
  fakeQuantize(weights: F32, grid: AffineGrid, options: GroupGridOptions): F32;
  /**
   * Of `fakeQuantize` by straight-through rounding: inside the grid grad to the weight and (round(w / h) - w / h) grad to h;
   * where q was clamped, nothing to the weight, (q - z') grad to h and -h grad to z (nothing to a z outside 0 .. K).
   */
  fakeQuantizeGrad(
    weights: F32,
    grid: AffineGrid,
    grad: F32,
    options: GroupGridOptions,
    wanted?: { weights?: boolean },
  ): { weights?: F32; scale: F32; zero: F32 };
  /**
   * `fakeQuantize` of V = diag(rows) (W diag(columns)) on its own `clippedGrid`, with the roundings of `multiply`, `scaleRows` and
   * these two: training's way from weights to what a linear multiplies by, in as few passes over them as an engine can.
   */
  clippedFakeQuantize(
    weights: F32,
    factors: WeightFactors,
    clipping: ClippingLogits | undefined,
    options: GroupGridOptions,
  ): F32;
  /** Of `clippedFakeQuantize`, for the factors and the logits that are given; the weights are constants. */
  clippedFakeQuantizeGrad(
    weights: F32,
    factors: WeightFactors,
    clipping: ClippingLogits | undefined,
    grad: F32,
    options: GroupGridOptions,
  ): { rows?: F32; columns?: F32; upper?: F32; lower?: F32 };
  /** The codes q of `fakeQuantize`, u8 [O, I]. */
  affineCodes(weights: F32, grid: AffineGrid, options: GroupGridOptions): Tensor<"u8">;
  /**
   * Dynamic quantization of activations, a row of the last axis at a time, [.., C]: low = min(0, x), high = max(0, x),
   * h = (high - low) / K (f32, at least 1e-8), z = clamp(round(-low / h), 0, K); (clamp(round(x / h) + z, 0, K) - z) h, ties to even.
   * Symmetric: h = 2 max|x| / K, codes -2^(bits-1) .. 2^(bits-1) - 1, no zero.
   */
  fakeQuantizeRows(x: F32, bits: number, symmetric?: boolean): F32;
  /** Of `fakeQuantizeRows`, straight-through, with what the extremes of a row get through h (z is a constant). */
  fakeQuantizeRowsGrad(x: F32, bits: number, grad: F32, symmetric?: boolean): F32;
  /** A step of AdamW (arXiv 1711.05101) on `parameter`, `first` and `second`, in place; all of one shape. */
  adamwStep(parameter: F32, gradient: F32, first: F32, second: F32, options: AdamwOptions): void;

  // ---- quantization
  /**
   * Nearest codeword by squared Euclidean distance, the lowest index of equals: [n, v], [C, v] -> i32 [n] and distances [n].
   * A distance is the sum of (x_t - c_t)^2 in order of t, each difference, product and sum rounded to f32 (never fused), so that
   * all engines choose alike. `previous` [n] may speed the search up and never changes the result.
   */
  nearestCodeword(vectors: F32, codebook: F32, previous?: I32): { indices: I32; distances: F32 };
  /**
   * Per segment c: sum of weights[i] * vectors[i] over indices[i] = c, and sum of weights; f64 inside, -> [C, v], [C].
   * An index outside throws.
   */
  segmentSum(vectors: F32, weights: F32, indices: I32, segments: number): { sums: F32; totals: F32 };
  /**
   * The column sweep of VPTQ: weights [I, P] hold one column of W a row, in sweep order; feedback [I, I] is upper triangular
   * with a unit diagonal (the factor U of H^-1 = U^T U with each row divided by its diagonal), undefined for none.
   * For each column i: q_i = nearest sum of codewords for every vector of it; then w_j -= (w_i - q_i) feedback[i, j] for j > i.
   * Segments cover 0..I in order; P is a multiple of every v.
   */
  vectorSweep(
    weights: F32,
    feedback: F32 | undefined,
    segments: CodebookSegment[],
    options?: VectorSweepOptions,
  ): VectorSweepResult;
  /**
   * One pass of coordinate descent on tr(E H E^T), E = W - Q: for each column i in order, the vectors of
   * x = q_i + (H E)_i / H_ii are assigned again (kept unless another codeword is strictly nearer), and E follows.
   * weights, quantized [I, P], hessian [I, I] in sweep order; indices as in VectorSweepResult. Never raises the objective.
   * A column whose H_ii is not positive stays as it is.
   */
  coordinateSweep(
    weights: F32,
    hessian: F32,
    quantized: F32,
    segments: CodebookSegment[],
    indices: I32[][],
    options?: VectorSweepOptions,
  ): { indices: I32[][]; quantized: F32 };
  /**
   * Grid per row and group of weights [I, O] (one column of W a row). With low = min(0, w), high = max(0, w):
   * scale = (high - low) / (2^bits - 1) or, symmetric, 2 max|w| / (2^bits - 1), rounded to f16, at least 2^-14 where that gives
   * 0 and at most 65504; zero = clamp(round(-low / scale)) or 2^(bits-1). All weights 0: scale 1. f32 at each step, ties to even.
   */
  affineGrid(weights: F32, options: AffineGridOptions): AffineGrid;
  /** The column sweep of GPTQ on the affine grid: as `vectorSweep`, with code = clamp(round(w / scale) + zero), ties to even. */
  affineSweep(weights: F32, feedback: F32 | undefined, options: AffineSweepOptions): AffineSweepResult;
}
