// What cards can do at most, from their makers' data sheets, dense (without structured sparsity).

/** What an operation is counted in: f32 on the ordinary units, tf32 and f16 with f32 sums on tensor cores, f64 on the faster unit. */
export type Unit = "f32" | "tf32" | "f16" | "f64";

export interface Card {
  name: string;
  /** Bytes a second. */
  bandwidth: number;
  /** Operations a second; a multiply-add is two. */
  peaks: Partial<Record<Unit, number>>;
  /** Where the figures are from. */
  source: "data sheet" | "measured";
}

/** [pattern of the name, TB/s, TFLOP/s of f32, tf32, f16 and f64] */
const KNOWN: readonly (readonly [RegExp, number, number, number, number, number])[] = [
  [/H200/, 4.8, 67, 494, 989, 67],
  [/H100 NVL/, 3.9, 60, 417, 835, 60],
  [/H100 PCIe/, 2, 51, 378, 756, 51],
  [/H100/, 3.35, 67, 494, 989, 67],
  [/A100.SXM.*80GB/, 2.039, 19.5, 156, 312, 19.5],
  [/A100.*80GB/, 1.935, 19.5, 156, 312, 19.5],
  [/A100/, 1.555, 19.5, 156, 312, 19.5],
  [/L40S/, 0.864, 91.6, 183, 362, 1.43],
  [/RTX 4090(?! D)(?! Laptop)/, 1.008, 82.6, 82.6, 165.2, 1.29],
  [/RTX 3090(?! Ti)/, 0.936, 35.6, 35.6, 71, 0.556],
];

/** A card by what the driver calls it. */
export function knownCard(name: string): Card | undefined {
  const found = KNOWN.find(([pattern]) => pattern.test(name));
  if (!found) return undefined;
  const [, bandwidth, f32, tf32, f16, f64] = found;
  return {
    name,
    bandwidth: bandwidth * 1e12,
    peaks: { f32: f32 * 1e12, tf32: tf32 * 1e12, f16: f16 * 1e12, f64: f64 * 1e12 },
    source: "data sheet",
  };
}

export interface Work {
  /** That must pass between memory and the processors: each input read once, each result written once. */
  bytes: number;
  /** That must be done, by the unit that does them. */
  operations?: Partial<Record<Unit, number>>;
}

export interface Limit {
  milliseconds: number;
  /** "memory", or the unit that has most to do. */
  by: "memory" | Unit;
}

/** The least time: memory and all units work at once, and what takes longest decides. Units of unknown peak do not count. */
export function limitOf(card: Card, { bytes, operations = {} }: Work): Limit {
  let limit: Limit = { milliseconds: (1e3 * bytes) / card.bandwidth, by: "memory" };
  for (const [unit, count] of Object.entries(operations) as [Unit, number][]) {
    const milliseconds = (1e3 * count) / (card.peaks[unit] ?? Number.POSITIVE_INFINITY);
    if (milliseconds > limit.milliseconds) limit = { milliseconds, by: unit };
  }
  return limit;
}
