import { usageError } from "../../errors.js";
import type { VptqScheme } from "./scheme.js";

/** A run of columns, in sweep order, that will share its codebooks. */
export interface SegmentPlan {
  begin: number;
  end: number;
  /** v. */
  vectorLength: number;
  /** Codewords of each stage: main, then residual. */
  codebooks: number[];
  /** For messages. */
  label: string;
}

/**
 * Outlier columns first, then the column groups (arXiv 2409.17066, section 3.3 and appendix C): ceil(I percent / 100)
 * outliers and the remainder of the division into groups, so that groups are equally wide. Without outliers the groups'
 * widths differ by one at most.
 */
export function planSegments(columns: number, scheme: VptqScheme): SegmentPlan[] {
  const { groups, outliers } = scheme;
  checkScheme(scheme);
  const segments: SegmentPlan[] = [];
  let first = 0;
  if (outliers && outliers.percent > 0) {
    first = Math.ceil((columns * outliers.percent) / 100);
    first += (columns - first) % groups;
    const { vectorLength, codebook } = outliers;
    segments.push({ begin: 0, end: first, vectorLength, codebooks: [codebook], label: "outlier" });
  }
  const rest = columns - first;
  if (groups > rest)
    throw usageError(
      `${groups} column groups do not fit into ${rest} columns`,
      `use ${Math.max(1, rest)} groups or fewer`,
    );
  for (let group = 0; group < groups; group++)
    segments.push({
      begin: first + Math.floor((rest * group) / groups),
      end: first + Math.floor((rest * (group + 1)) / groups),
      vectorLength: scheme.vectorLength,
      codebooks: [scheme.codebook, ...scheme.residuals],
      label: groups > 1 ? `group ${group}` : "main",
    });
  return segments;
}

function checkScheme(scheme: VptqScheme): void {
  const lengths = [scheme.vectorLength, ...(scheme.outliers ? [scheme.outliers.vectorLength] : [])];
  for (const length of lengths)
    if (!Number.isInteger(length) || length < 1 || length > 64)
      throw usageError(`expected a vector length from 1 to 64, got ${length}`);
  const sizes = [scheme.codebook, ...scheme.residuals, ...(scheme.outliers ? [scheme.outliers.codebook] : [])];
  for (const size of sizes)
    if (!Number.isInteger(size) || size < 2 || size > 65536 || (size & (size - 1)) !== 0)
      throw usageError(`expected a codebook of a power of two from 2 to 65536 codewords, got ${size}`);
  if (!Number.isInteger(scheme.groups) || scheme.groups < 1)
    throw usageError(`expected one or more column groups, got ${scheme.groups}`);
}

/** Throws "usage" when a codebook has more codewords than its segment has vectors, and says what fits. */
export function checkCodebooksFit(segments: SegmentPlan[], rows: number, name: string): void {
  for (const { begin, end, vectorLength, codebooks, label } of segments) {
    const vectors = (end - begin) * Math.ceil(rows / vectorLength);
    for (const size of codebooks) {
      if (size <= vectors) continue;
      const largest = 2 ** Math.floor(Math.log2(vectors));
      throw usageError(
        `${name}: the ${label} codebook has ${size} codewords, but its ${end - begin} columns of ${rows} rows hold only ${vectors} vectors of ${vectorLength}`,
        largest < 2
          ? "leave this linear as it is (an override with keep)"
          : `use ${largest} codewords or fewer here, or an override for this linear`,
      );
    }
  }
}

/** P: the least multiple of every vector length that holds all rows. */
export function paddedRows(rows: number, segments: SegmentPlan[]): number {
  const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));
  const unit = segments.reduce((lcm, { vectorLength: v }) => (lcm / gcd(lcm, v)) * v, 1);
  return Math.ceil(rows / unit) * unit;
}
