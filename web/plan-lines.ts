import type { PlannedLinear } from "../src/index.js";
import type { PlanLine } from "./protocol.js";

/** What each linear gets, those of a kind in one line: "model.layers.*.mlp.down_proj". */
export function planLines(planned: readonly PlannedLinear[]): PlanLine[] {
  const lines = new Map<string, PlanLine>();
  for (const { spec, plan, bits, block } of planned) {
    const { rows, columns } = spec;
    const line: PlanLine = {
      name: spec.name.replace(`.${block}.`, ".*."),
      count: 1,
      rows,
      columns,
      scheme: schemeOf(plan),
      bitsPerWeight: bits / (rows * columns),
    };
    const key = JSON.stringify(line);
    const known = lines.get(key);
    if (known) known.count++;
    else lines.set(key, line);
  }
  return [...lines.values()];
}

function schemeOf(plan: PlannedLinear["plan"]): string {
  if (plan.method === "keep") return "kept as it is";
  if (plan.method !== "vptq") {
    const { bits, group } = plan.scheme;
    return `${bits} bits, ${group === "channel" ? "a scale a row" : `groups of ${group}`}`;
  }
  const { vectorLength, codebook, residuals, outliers } = plan.scheme;
  const extra = outliers ? `, ${outliers.percent} % outliers` : "";
  return `vectors of ${vectorLength}, ${[codebook, ...residuals].join(" + ")} codewords${extra}`;
}
