import { BitwrightError } from "../../errors.js";
import { createTerminal, type Terminal } from "./terminal.js";

/** 0 done, 1 failed, 2 bad use, 130 stopped by Ctrl-C (128 + SIGINT). */
export const EXIT = { done: 0, failed: 1, usage: 2, stopped: 130 } as const;

/** Tells what went wrong and returns the exit code for it. */
export function reportFailure(error: unknown, terminal: Terminal, signal: AbortSignal): number {
  const known = error instanceof BitwrightError ? error : undefined;
  if (signal.aborted || known?.kind === "aborted") {
    const remedy = known?.kind === "aborted" ? known.remedy : undefined;
    terminal.document({ error: { kind: "aborted", message: "stopped", remedy } });
    terminal.stderr.write(`stopped${remedy === undefined ? "" : `: ${remedy}`}\n`);
    return EXIT.stopped;
  }
  terminal.fail(error);
  return known?.kind === "usage" ? EXIT.usage : EXIT.failed;
}

/** The process around a program: signals, broken pipes, the exit code. */
export async function runProcess(program: (signal: AbortSignal) => Promise<number>): Promise<void> {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(EXIT.stopped); // asked twice: at once
      controller.abort();
      process.stderr.write(`\nstopping after the current step (${name}; once more to stop at once)\n`);
    });
  }
  // the reader of a pipe may leave early (`| head`): not an error
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    process.exit(error.code === "EPIPE" ? EXIT.done : EXIT.failed);
  });
  try {
    process.exitCode = await program(controller.signal);
  } catch (error) {
    const { stdout, stderr } = process;
    const terminal = createTerminal({ json: false, quiet: false, stdout, stderr });
    process.exitCode = reportFailure(error, terminal, controller.signal);
  }
}
