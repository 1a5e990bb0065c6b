import type { ModelConfig } from "./config.js";

/** Which heads of a fused product [.., (H + 2K) d] are queries (in order, [H]), keys and values ([K] each). */
export function fusedHeads({ heads, keyValueHeads }: ModelConfig): {
  query: readonly number[];
  key: readonly number[];
  value: readonly number[];
} {
  const shared = heads / keyValueHeads; // a group: so many queries, their key, their value
  const groups = Array.from({ length: keyValueHeads }, (_, group) => group * (shared + 2));
  return {
    query: Array.from({ length: heads }, (_, head) => groups[Math.floor(head / shared)] + (head % shared)),
    key: groups.map((group) => group + shared),
    value: groups.map((group) => group + shared + 1),
  };
}
