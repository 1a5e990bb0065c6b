import { type Options, SingleBar } from "cli-progress";
import { formatSeconds } from "../../report/format.js";
import type { Terminal } from "./terminal.js";

/** A running job's state on standard error. */
export interface ProgressView {
  /** Share done, 0-1; `detail` says what is at work; seconds left when they are known. A log gets a line for each milestone. */
  update(fraction: number, detail: string, remainingSeconds?: number, isMilestone?: boolean): void;
  /** A line that stays, above the bar. */
  line(text: string): void;
  /** Takes the bar away. */
  stop(): void;
}

/** Seconds between the lines that a log gets instead of a bar. */
const LINE_SECONDS = 10;

/** A bar for people at a terminal, a line now and then for logs, nothing with --json or --quiet. */
export function createProgress(terminal: Terminal, title: string): ProgressView {
  if (!terminal.verbose) return { update: () => {}, line: () => {}, stop: () => {} };
  return terminal.live ? barView(terminal, title) : lineView(terminal, title);
}

function barView(terminal: Terminal, title: string): ProgressView {
  const options: Options = {
    format: `${title} {bar} {percentage} %  {left}  {detail}`,
    barsize: 24,
    barCompleteChar: "\u2588",
    barIncompleteChar: "\u2591",
    hideCursor: true,
    gracefulExit: false, // signals are ours: a job ends in its own way
    clearOnComplete: true,
    stream: terminal.stderr as NodeJS.WriteStream,
    fps: 10,
  };
  let bar: SingleBar | undefined;
  let state: [number, Record<string, string>] = [0, { left: "", detail: "" }];
  const show = () => {
    if (bar) return bar.update(...state);
    bar = new SingleBar(options);
    bar.start(1000, ...state);
  };
  const hide = () => {
    bar?.stop();
    bar = undefined;
  };
  return {
    update(fraction, detail, remainingSeconds) {
      const left = Number.isFinite(remainingSeconds) ? `${formatSeconds(remainingSeconds)} left` : "";
      state = [Math.floor(1000 * fraction), { left, detail }];
      show();
    },
    line(text) {
      // the bar leaves the line, the text takes it, and the bar goes on below
      const shown = bar !== undefined;
      hide();
      terminal.stderr.write(`${text}\n`);
      if (shown) show();
    },
    stop: hide,
  };
}

function lineView(terminal: Terminal, title: string): ProgressView {
  let last = performance.now();
  return {
    update(fraction, detail, remainingSeconds, isMilestone = false) {
      if (!isMilestone && performance.now() - last < LINE_SECONDS * 1000) return;
      last = performance.now();
      const left = Number.isFinite(remainingSeconds) ? `, ${formatSeconds(remainingSeconds)} left` : "";
      terminal.note(`${title}: ${Math.floor(100 * fraction)} %${left}${detail === "" ? "" : `, ${detail}`}`);
    },
    line: (text) => terminal.note(text),
    stop: () => {},
  };
}
