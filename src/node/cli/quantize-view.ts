import type { LinearDone, QuantizeEvent } from "../../pipeline/events.js";
import { formatBits, formatBytes, formatCount, formatSeconds, formatSmall } from "../../report/format.js";
import { createProgress } from "./progress.js";
import type { Terminal } from "./terminal.js";

export interface QuantizeViewOptions {
  /** Before the bar. Default "quantize". */
  title?: string;
  /** A line for each linear. Default true. */
  lines?: boolean;
}

/** Shows the events of a quantize job: a line for each linear, and a bar with the time left. */
export function createQuantizeView(terminal: Terminal, { title = "quantize", lines = true }: QuantizeViewOptions = {}) {
  const progress = createProgress(terminal, title);
  let state = { fraction: 0, remainingSeconds: Number.NaN };
  let blocks = 0;
  const update = (detail: string, isMilestone?: boolean) =>
    progress.update(state.fraction, detail, state.remainingSeconds, isMilestone);
  return {
    onEvent(event: QuantizeEvent): void {
      switch (event.type) {
        case "start": {
          if (!lines) break;
          const resumed = event.resumedLinears > 0 ? `, ${event.resumedLinears} of them finished before` : "";
          progress.line(`${event.linears} linears in ${event.blocks} blocks${resumed}`);
          if (event.windows > 0)
            progress.line(`calibration: ${event.windows} windows, ${formatCount(event.tokens)} tokens`);
          break;
        }
        case "block":
          blocks = event.blocks;
          update(`block ${event.block + 1} of ${blocks}`, lines);
          break;
        case "pass": {
          const what = event.slots.length > 0 ? `measuring ${event.slots.join(", ")}` : "passing on";
          update(`block ${event.block + 1} of ${blocks}, ${what}: window ${event.window + 1} of ${event.windows}`);
          break;
        }
        case "linear":
          if (lines) progress.line(describeLinear(event));
          else update(shortName(event.name));
          break;
        case "step":
          break;
        case "epoch":
          update(
            `block ${event.block + 1} of ${blocks}, ${TRAINING[event.stage] ?? event.stage}: epoch ${event.epoch} of ${event.epochs}, loss ${formatSmall(event.loss)} (start ${formatSmall(event.startLoss)})`,
          );
          break;
        case "trained":
          if (lines) progress.line(describeTraining(event));
          break;
        case "kept":
          progress.line(`  ${shortName(event.name).padEnd(NAME_WIDTH)} kept as it is`);
          break;
        case "progress":
          state = event;
          break;
        case "spill":
          progress.line("activations beyond the memory budget go to a scratch file");
          break;
        case "writing":
          state = { fraction: 1, remainingSeconds: Number.NaN };
          update(`writing ${formatBytes(event.bytes)}`, lines);
          break;
        case "warning":
          progress.line(`warning: ${event.message}`);
          break;
        case "done":
          break;
        default:
          event satisfies never;
      }
    },
    stop: () => progress.stop(),
  };
}

/** What is trained in each stage, for people. */
const TRAINING: Readonly<Record<string, string>> = { clip: "clipping and transformation", tune: "scales and weights" };

function describeTraining(event: QuantizeEvent & { type: "trained" }): string {
  const { block, stage, startLoss, loss, improved, skippedSteps, steps } = event;
  const moved = improved
    ? `loss ${formatSmall(startLoss)} -> ${formatSmall(loss)}`
    : `did not beat the start, which is kept (loss ${formatSmall(startLoss)})`;
  const skipped = skippedSteps > 0 ? `, ${skippedSteps} steps skipped (not finite)` : "";
  return `  block ${block}: ${TRAINING[stage] ?? stage}, ${steps} steps: ${moved}${skipped}`;
}

const NAME_WIDTH = 20;

/** "model.layers.3.mlp.down_proj" as "3.mlp.down_proj". */
export const shortName = (name: string): string => name.replace(/^model\.layers\./, "");

function describeLinear(event: LinearDone): string {
  const name = shortName(event.name).padEnd(NAME_WIDTH);
  const shape = `${event.rows} x ${event.columns}`.padStart(13);
  const bits = `${formatBits(event.bitsPerWeight)} bits`.padStart(12);
  const error = `proxy error ${formatSmall(event.proxyError)}`.padEnd(22);
  const time = event.resumed ? "finished before" : formatSeconds(event.seconds);
  const notes = event.notes.length > 0 ? `  (${event.notes.join("; ")})` : "";
  return `  ${name} ${shape} ${bits}  ${error} ${time}${notes}`;
}
