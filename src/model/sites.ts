import type { ModelConfig } from "./config.js";
import type { LinearSlot, VectorSlot } from "./family.js";

// Where a block admits an equivalent transformation per channel (OmniQuant, arXiv 2308.13137, section 3.3): a scale, and a
// shift where the biases can take it up, that one side gains and the other loses, so that the block computes what it did.

export type SiteSpec =
  /** The output of a norm, which these linears read and nothing else does. */
  | { kind: "norm"; norm: VectorSlot; consumers: readonly LinearSlot[]; shift: boolean }
  /** Value to output: a scale a value row, repeated over the query heads that share it. */
  | { kind: "value"; shift: boolean }
  /**
   * Query and key: what query rows lose, key rows gain; tied over each rotary pair (i, i + rotary / 2), repeated over grouped
   * heads. `rotary` is the number of rotated dimensions of a head, 0 without rotary embedding.
   */
  | { kind: "queryKey"; rotary: number }
  /** The rows of `from` and the columns of `to`: any scale behind a gate, positive scales through ReLU. */
  | { kind: "mlp"; from: "up"; to: "down" };

/** The sites of a block, in the order of computation; the same for every block. */
export function transformSites(config: ModelConfig): SiteSpec[] {
  const { attentionBias } = config;
  const sites: SiteSpec[] = [
    { kind: "norm", norm: "attentionNorm", consumers: ["query", "key", "value"], shift: false },
    { kind: "value", shift: attentionBias.value && attentionBias.output },
  ];
  if (!config.queryKeyNorm) sites.push({ kind: "queryKey", rotary: config.headSize });
  sites.push(
    { kind: "norm", norm: "mlpNorm", consumers: ["gate", "up"], shift: false },
    { kind: "mlp", from: "up", to: "down" },
  );
  return sites;
}

/** Rows of the attention's linears: entry h * d + i is the row of dimension i of head h. */
export interface AttentionRows {
  /** [H * d]. */
  query: Int32Array;
  /** [K * d]; key-value head k serves the query heads k * H / K .. (k + 1) * H / K - 1. */
  key: Int32Array;
  /** [K * d]. */
  value: Int32Array;
  /** True: all are rows of the one linear "queryKeyValue"; false: of "query", "key" and "value". */
  fused: boolean;
}

export function attentionRows(config: ModelConfig): AttentionRows {
  const rows = (heads: number) => Int32Array.from({ length: heads * config.headSize }, (_, row) => row);
  return {
    query: rows(config.heads),
    key: rows(config.keyValueHeads),
    value: rows(config.keyValueHeads),
    fused: false,
  };
}
