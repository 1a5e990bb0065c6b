#!/usr/bin/env node
import { EXIT, runProgram } from "./program.js";

// The process around the command line: signals, broken pipes, the exit code.

const controller = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    if (controller.signal.aborted) process.exit(EXIT.stopped); // asked twice: at once
    controller.abort();
    process.stderr.write(`\nstopping after the current step (${signal}; once more to stop at once)\n`);
  });
}
// the reader of a pipe may leave early (`| head`): not an error
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  process.exit(error.code === "EPIPE" ? EXIT.done : EXIT.failed);
});

process.exitCode = await runProgram(process.argv.slice(2), process, controller.signal);
