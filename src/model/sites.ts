import type { ModelConfig } from "./config.js";
import { blockSpec } from "./families/index.js";
import type { LinearSlot, NormSlot, StageSpec } from "./family.js";
import { fusedHeads } from "./heads.js";

// Where a block admits an equivalent transformation per channel (OmniQuant, arXiv 2308.13137, section 3.3): a scale, and a
// shift where the biases can take it up, that one side gains and the other loses, so that the block computes what it did.

export type SiteSpec =
  /** The output of a norm, which these linears read and nothing else does. `shift`: norm and linears have biases. */
  | { kind: "norm"; norm: NormSlot; consumers: readonly LinearSlot[]; shift: boolean }
  /** Value to output: a scale a value row, repeated over the query heads that share it. `shift`: both have biases. */
  | { kind: "value"; shift: boolean }
  /**
   * Query and key: what query rows lose, key rows gain, repeated over grouped heads. Of each head the first `rotary`
   * dimensions are rotated, in pairs (i, i + rotary / 2) that must share a scale.
   */
  | { kind: "queryKey"; rotary: number }
  /** The rows of `from` and the columns of `to`: any scale behind a gate, positive scales through ReLU. */
  | { kind: "mlp"; from: "up"; to: "down" };

/**
 * The sites of a block, in the order of computation; the same for every block. None at a norm whose output is the stream too
 * (post-norm) or that has no weights, none between query and key that are normed, none through GELU.
 */
export function transformSites(config: ModelConfig): SiteSpec[] {
  const { stages } = blockSpec(config);
  const { attentionBias: bias } = config;
  const sites: SiteSpec[] = [];
  for (const stage of stages) {
    if (stage.kind !== "residual" && stage.norm && config.normWeights) {
      const { norm } = stage;
      const first = sites.find((site) => site.kind === "norm" && site.norm === norm);
      if (!first) sites.push(normSite(config, stages, norm));
    }
    if (stage.kind === "attention") {
      sites.push({ kind: "value", shift: bias.value && bias.output });
      if (!config.queryKeyNorm) {
        sites.push({ kind: "queryKey", rotary: config.positions === "rotary" ? config.headSize : 0 });
      }
    }
    if (stage.kind === "gated" || (stage.kind === "plain" && config.activation === "relu")) {
      sites.push({ kind: "mlp", from: "up", to: "down" });
    }
  }
  return sites;
}

function normSite(config: ModelConfig, stages: readonly StageSpec[], norm: NormSlot): SiteSpec {
  const readers = stages.filter((stage) => stage.kind !== "residual" && stage.norm === norm);
  const biased = readers.every((stage) =>
    stage.kind === "attention"
      ? config.attentionBias.query && config.attentionBias.key && config.attentionBias.value
      : config.mlpBias,
  );
  const consumers = readers.flatMap((stage): readonly LinearSlot[] => stage.slots);
  return { kind: "norm", norm, consumers, shift: config.norm === "layer" && biased };
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
  const { heads, keyValueHeads, headSize } = config;
  const fused = blockSpec(config).stages.some(({ slots }) => slots[0] === "queryKeyValue");
  const own = (count: number) => Array.from({ length: count }, (_, head) => head);
  const places = fused ? fusedHeads(config) : { query: own(heads), key: own(keyValueHeads), value: own(keyValueHeads) };
  const rows = (of: readonly number[]) =>
    Int32Array.from(of.flatMap((head) => Array.from({ length: headSize }, (_, i) => head * headSize + i)));
  return { query: rows(places.query), key: rows(places.key), value: rows(places.value), fused };
}
