import type { LinearDone } from "../src/index.js";
import { formatBits, formatBytes, formatPerplexity, formatSeconds, formatSmall } from "../src/report/format.js";
import { byId, element, makeRow } from "./dom.js";
import type { RunEvent } from "./protocol.js";

/** Seconds between two announcements to those who listen to the page. */
const ANNOUNCE_SECONDS = 15;
const TITLE = "Bitwright";
const TRAINING: Readonly<Record<string, string>> = { clip: "clipping", tune: "scales and weights" };

/** Shows the events of a job: a bar, a line of what is at work, a row for each linear that is done. */
export function createRunView() {
  const bar = byId("progress", HTMLProgressElement);
  let detail = "";
  let remaining = Number.NaN;
  let blocks = 0;
  let announcedAt = Number.NEGATIVE_INFINITY;
  const draw = () => {
    const percent = Math.floor(100 * bar.value);
    const left = Number.isFinite(remaining) ? ` · ${formatSeconds(remaining)} left` : "";
    const text = `${percent} %${detail === "" ? "" : ` · ${detail}`}${left}`;
    element("progress-text").textContent = text;
    document.title = `${percent} % · ${TITLE}`;
    if (performance.now() - announcedAt < 1000 * ANNOUNCE_SECONDS) return;
    announcedAt = performance.now();
    announce(`${percent} percent${left}`);
  };
  const update = (fraction: number, seconds: number) => {
    bar.value = fraction;
    remaining = seconds;
  };
  return {
    start(): void {
      element("lines").replaceChildren();
      update(0, Number.NaN);
      detail = "reading";
      announcedAt = Number.NEGATIVE_INFINITY;
      draw();
      element("run").hidden = false;
    },
    onEvent(event: RunEvent): void {
      switch (event.type) {
        case "start":
          blocks = event.blocks;
          detail = `${event.linears} linears on ${event.engine}`;
          break;
        case "block":
          detail = `block ${event.block + 1} of ${blocks}`;
          break;
        case "pass": {
          const what = event.slots.length > 0 ? `measuring ${event.slots.join(", ")}` : "passing on";
          detail = `block ${event.block + 1} of ${blocks}, ${what}, window ${event.window + 1} of ${event.windows}`;
          break;
        }
        case "linear":
          addLine(event);
          return;
        case "step":
          break;
        case "epoch":
          detail = `block ${event.block + 1} of ${blocks}, ${TRAINING[event.stage] ?? event.stage}: epoch ${event.epoch} of ${event.epochs}, loss ${formatSmall(event.loss)} (start ${formatSmall(event.startLoss)})`;
          break;
        case "progress":
          update(event.fraction, event.remainingSeconds);
          break;
        case "writing":
          update(1, Number.NaN);
          detail = `writing ${formatBytes(event.bytes)}`;
          break;
        case "evaluating":
          update(0, Number.NaN);
          detail = "measuring perplexity before and after";
          announce(detail);
          break;
        case "window":
          update(event.done / event.windows, event.remainingSeconds);
          detail =
            event.model === "against"
              ? "measuring the original"
              : `measuring the result, perplexity ${formatPerplexity(event.perplexity)} so far`;
          break;
        case "warning":
          addNote(event.message);
          break;
        case "spill":
          addNote("activations that memory has no room for go to a scratch file of the browser");
          break;
        case "kept":
          addNote(`${event.name}: kept as it is`);
          break;
        case "trained":
        case "done":
          break;
        default:
          event satisfies never;
      }
      draw();
    },
    /** Says how it ended; the rows stay. */
    end(text: string, finished: boolean): void {
      if (finished) bar.value = 1;
      element("progress-text").textContent = text;
      document.title = TITLE;
      announce(text);
    },
  };
}

function announce(text: string): void {
  element("announcement").textContent = text;
}

function addLine({ name, rows, columns, bitsPerWeight, proxyError, resumed, seconds }: LinearDone): void {
  const time = resumed ? "before" : formatSeconds(seconds);
  addRow(makeRow([name, `${rows} × ${columns}`, formatBits(bitsPerWeight), formatSmall(proxyError), time], 3));
}

function addNote(text: string): void {
  const row = makeRow([text], 0);
  row.cells[0].colSpan = 5;
  addRow(row);
}

/** The list follows its end unless somebody has scrolled up. */
function addRow(row: HTMLTableRowElement): void {
  const scroll = element("lines-scroll");
  const isAtEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 8;
  element("lines").append(row);
  if (isAtEnd) scroll.scrollTop = scroll.scrollHeight;
}
