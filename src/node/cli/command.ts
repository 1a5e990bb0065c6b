import type { Command } from "commander";
import type { Engine } from "../../engine/engine.js";
import { createEngine } from "../engines.js";
import type { CommonOptions, EngineOptions } from "./options.js";
import type { Terminal } from "./terminal.js";

/** What a running command has besides its arguments. */
export interface CommandContext {
  terminal: Terminal;
  /** Fires at Ctrl-C. */
  signal: AbortSignal;
}

/** What a command does; it throws what goes wrong. */
export type Handler<Options extends CommonOptions> = (
  args: string[],
  options: Options,
  context: CommandContext,
) => Promise<void>;

/** Ties a handler to a command of commander. */
export type Attach = <Options extends CommonOptions>(command: Command, handler: Handler<Options>) => void;

/** Adds one command to the program. */
export type AddCommand = (program: Command, attach: Attach) => void;

/** Runs `body` with the engine that the options ask for, and closes it whatever happens. */
export async function withEngine<T>(
  options: EngineOptions,
  context: CommandContext,
  body: (engine: Engine) => Promise<T>,
): Promise<T> {
  const { engine, reason } = await createEngine(options.engine, {
    threads: options.threads,
    reproducible: options.reproducible,
    device: options.device,
    precision: options.precision,
    deviceMemory: options.deviceMemory,
  });
  try {
    context.terminal.note(
      `engine: ${engine.name} (${engine.description})${reason === "asked for" ? "" : `; ${reason}`}`,
    );
    return await body(engine);
  } finally {
    await engine.close();
  }
}
