import { formatBits, formatBytes, formatPerplexity, formatSeconds, formatShare, formatSmall } from "./format.js";
import { type Table, tableOf } from "./table.js";

/** One model of a comparison: what it costs and what it lost. */
export interface ComparisonRow {
  name: string;
  /** Of the block linears, everything counted. */
  bitsPerWeight: number;
  bytesOnDisk: number;
  perplexity: number;
  /** Mean KL divergence to the full-precision model, nats per token; absent for that model itself. */
  klDivergence?: number;
  /** Share of tokens with the same likeliest successor as in the full-precision model. */
  topAgreement?: number;
  /** Of quantizing. */
  seconds?: number;
}

/** The row that every claim must have, next to its neighbours. */
export function comparisonTable(rows: readonly ComparisonRow[]): Table {
  return tableOf(rows, [
    { title: "model", align: "left", value: (row) => row.name },
    { title: "bits/weight", value: (row) => formatBits(row.bitsPerWeight) },
    { title: "on disk", value: (row) => formatBytes(row.bytesOnDisk) },
    { title: "perplexity", value: (row) => formatPerplexity(row.perplexity) },
    { title: "KL (nats)", value: (row) => formatSmall(row.klDivergence) },
    { title: "top-1 same", value: (row) => formatShare(row.topAgreement) },
    { title: "time", value: (row) => formatSeconds(row.seconds) },
  ]);
}
