import type { Writable } from "node:stream";
import { Command, CommanderError } from "commander";
import { type BitwrightError, usageError } from "../../errors.js";
import { packageVersion } from "../package.js";
import type { AddCommand, Attach } from "./command.js";
import { addDequantize } from "./commands/dequantize.js";
import { addDoctor } from "./commands/doctor.js";
import { addEval } from "./commands/eval.js";
import { addExport } from "./commands/export.js";
import { addGenerate } from "./commands/generate.js";
import { addInspect } from "./commands/inspect.js";
import { addLogits } from "./commands/logits.js";
import { addQuantize } from "./commands/quantize.js";
import type { CommonOptions } from "./options.js";
import { EXIT, reportFailure } from "./process.js";
import { createTerminal, type Terminal } from "./terminal.js";

const COMMANDS: readonly AddCommand[] = [
  addQuantize,
  addEval,
  addGenerate,
  addInspect,
  addExport,
  addDequantize,
  addLogits,
  addDoctor,
];

const DESCRIPTION = `Quantizes large language models to 2-4 bits, measures what that cost, and runs them.

MODEL is the folder of a Hugging Face checkpoint, plain or quantized.`;

const AFTER = `
Exit codes: 0 done, 1 failed, 2 bad use, 130 stopped by Ctrl-C.
With --json every command prints one JSON document to standard output and nothing else; a failure is
{"error": {"kind", "message", "remedy"}}, with the same words for people on standard error.

Begin with:
  $ bitwright doctor
  $ bitwright quantize models/wiki-7m -o wiki-2bit
  $ bitwright eval models/wiki-7m --text wikitext2`;

export interface Streams {
  stdout: Writable & { isTTY?: boolean };
  stderr: Writable & { isTTY?: boolean };
}

/** Runs a command line (without node and the script) and returns the exit code. */
export async function runProgram(argv: readonly string[], streams: Streams, signal: AbortSignal): Promise<number> {
  const open = (options: CommonOptions): Terminal => createTerminal({ ...options, ...streams });
  // until a command is known, --json anywhere on the line says how to report
  let terminal = open({ json: argv.includes("--json"), quiet: false });
  const attach: Attach = (command, handler) => {
    command.action(async (...all: unknown[]) => {
      const invoked = all.at(-1) as Command;
      const options = invoked.opts<Parameters<typeof handler>[1]>();
      terminal = open(options);
      await handler(invoked.args, options, { terminal, signal });
    });
  };
  const program = new Command("bitwright")
    .description(DESCRIPTION)
    .version(packageVersion(), "-V, --version", "print the version")
    .helpOption("-h, --help", "print this help")
    .helpCommand("help [command]", "print the help of a command")
    .addHelpText("after", AFTER)
    .showSuggestionAfterError(true)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void streams.stdout.write(text),
      writeErr: (text) => void streams.stderr.write(text),
      outputError: () => {}, // told below, in our words
      getOutHelpWidth: () => 110,
      getErrHelpWidth: () => 110,
    });
  for (const add of COMMANDS) add(program, attach);
  try {
    await program.parseAsync([...argv], { from: "user" });
    return EXIT.done;
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return EXIT.done;
      // no command at all: commander has printed the help
      if (error.code !== "commander.help") terminal.fail(usageOf(error, program, argv));
      return EXIT.usage;
    }
    return reportFailure(error, terminal, signal);
  }
}

/** "error: unknown option '--windw'\n(Did you mean --window?)" as one of our errors. */
function usageOf(error: CommanderError, program: Command, argv: readonly string[]): BitwrightError {
  const command = program.commands.find((candidate) => candidate.name() === argv[0]);
  const help = command ? `bitwright ${command.name()} --help` : "bitwright --help";
  const message = error.message.replace(/^error: /, "").replace(/\n\(/, " (");
  return usageError(message, help);
}
