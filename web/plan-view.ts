import { formatBits, formatBytes, formatCount, formatSeconds } from "../src/report/format.js";
import { element, input, make, makeRow } from "./dom.js";
import type { PlanInfo } from "./protocol.js";

/** Shows what a job will store, take and need. */
export function showPlan(plan: PlanInfo): void {
  const figures: [string, string][] = [
    ["bits per weight", formatBits(plan.bitsPerWeight)],
    ["linears", formatCount(plan.linears)],
    ["size before", formatBytes(plan.beforeBytes)],
    ["size after, about", formatBytes(plan.afterBytes)],
    ["time, roughly", formatSeconds(plan.seconds)],
    ["memory, about", formatBytes(plan.memoryBytes)],
  ];
  element("plan-figures").replaceChildren(
    ...figures.map(([title, value]) => make("div", {}, make("dt", {}, title), make("dd", {}, value))),
  );
  const { calibration } = plan;
  element("plan-text").textContent = calibration
    ? `Calibration: ${calibration.samples} of the windows of ${calibration.window} tokens that ${calibration.name} gives (${formatCount(calibration.tokens)} tokens).`
    : "No calibration: each weight is rounded by itself.";
  if (calibration) {
    input("samples").placeholder = String(calibration.samples);
    input("window").placeholder = String(calibration.window);
  }
  element("plan-lines").replaceChildren(
    ...plan.lines.map(({ name, count, rows, columns, scheme, bitsPerWeight }) =>
      makeRow([name, String(count), `${rows} × ${columns}`, scheme, formatBits(bitsPerWeight)], 1),
    ),
  );
  element("plan").hidden = false;
}
