/** The allowed grid of an affine method (RTN, GPTQ). */
export interface AffineScheme {
  bits: 2 | 3 | 4 | 6 | 8;
  /** Columns that share a scale and zero; "channel" is one group a row. The last group may be shorter. */
  group: number | "channel";
  symmetric: boolean;
  /** GPTQ: visit columns by descending Hessian diagonal, with the groups of the original order (static groups). */
  actOrder: boolean;
  /** GPTQ: strength of the correction when the statistics hold one, 0-1. */
  asymmetric: number;
  /** GPTQ: added to the Hessian's diagonal, as a share of its mean. */
  damping: number;
}
