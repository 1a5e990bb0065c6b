/** The codebooks of VPTQ (arXiv 2409.17066, section 3) and how they are chosen. */
export interface VptqScheme {
  /** v: consecutive output rows in a vector. */
  vectorLength: number;
  /** Codewords of the main codebook, a power of two. */
  codebook: number;
  /** Codewords of each residual codebook. */
  residuals: number[];
  /** The columns with the largest Hessian diagonal get a codebook of their own (section 3.3). */
  outliers?: { percent: number; vectorLength: number; codebook: number };
  /** Column groups, each with its own codebooks. */
  groups: number;
  /** Scales divided out before: none, one a column, one a row, or both. */
  norm: "none" | "column" | "row" | "both";
  /** Rounds of least-squares centroids and re-chosen indices after the sweep; 0 is the algorithm as published. */
  refine: number;
  /** First-stage candidates tried with the residual stages; 1 is greedy. */
  beam: number;
  /** Strength of the correction when the statistics hold one, 0-1: W (I + a D H^-1). */
  asymmetric: number;
  /** Most Lloyd iterations of k-means. */
  iterations: number;
  /** Added to the Hessian's diagonal, as a share of its mean. */
  damping: number;
}
