import * as library from "@huggingface/jinja";
import { BitwrightError, formatError } from "../errors.js";

// Jinja templates out of a checkpoint, as transformers renders them. They come from strangers: work and output are bounded.

/** Characters of a template; the longest published ones have about 20,000. */
const TEMPLATE_LENGTH = 2 ** 18;
/** Nodes of the template that are evaluated, and numbers of a range. */
const STEPS = 200_000;
const RANGE = 1000;
/** Characters of the result beyond those that were put in. */
const ADDED_LENGTH = 2 ** 20;

/** The part of the library that we use: its type files have relative imports that Node's resolution does not follow. */
interface Environment {
  set(name: string, value: unknown): void;
}
interface Interpreter {
  run(program: unknown): { value: unknown };
  evaluate(statement: unknown, environment: unknown): unknown;
}
const { Environment, Interpreter, parse, tokenize } = library as unknown as {
  Environment: new () => Environment;
  Interpreter: new (environment: Environment) => Interpreter;
  parse(tokens: unknown): unknown;
  tokenize(text: string, options: { lstrip_blocks: boolean; trim_blocks: boolean }): unknown;
};

class BoundedInterpreter extends Interpreter {
  private steps = 0;

  override evaluate(statement: unknown, environment: unknown): unknown {
    if (++this.steps > STEPS) throw new Error(`it takes more than ${STEPS} steps`);
    return super.evaluate(statement, environment);
  }
}

/** What a template that refuses its variables says, as `raise_exception` in it does. */
class Refusal extends Error {}

export type JinjaTemplate = (variables: Record<string, unknown>, inputLength: number) => string;

/**
 * Parses a template. `now` is what `strftime_now` in it tells; `where` names it in messages. Throws "format" for text that is no
 * template; the result throws "format" where the template fails or goes out of bounds, and "usage" with the template's
 * own words where it refuses the variables. `inputLength` counts the characters that are put in.
 */
export function parseJinja(text: string, where: string, now: () => Date): JinjaTemplate {
  if (text.length > TEMPLATE_LENGTH) {
    throw formatError(
      `${where} has ${text.length} characters, more than the ${TEMPLATE_LENGTH} that a template may have`,
    );
  }
  const program = guard(where, "is not a Jinja template", () =>
    parse(tokenize(text, { lstrip_blocks: true, trim_blocks: true })),
  );
  return (variables, inputLength) => {
    const environment = new Environment();
    for (const [name, value] of Object.entries({ ...globals(now), ...variables })) environment.set(name, value);
    const result = guard(where, "cannot be rendered", () => new BoundedInterpreter(environment).run(program).value);
    if (typeof result !== "string" || result.length > inputLength + ADDED_LENGTH) {
      throw formatError(`${where} makes more than ${ADDED_LENGTH} characters of its own`);
    }
    return result;
  };
}

function guard<T>(where: string, what: string, body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (error instanceof BitwrightError) throw error;
    const reason = error instanceof Error ? error.message.slice(0, 300) : "";
    if (error instanceof Refusal) throw new BitwrightError("usage", `${where} refuses these messages: ${reason}`);
    throw formatError(`${where} ${what}: ${reason}`);
  }
}

const globals = (now: () => Date): Record<string, unknown> => ({
  true: true,
  false: false,
  none: null,
  True: true,
  False: false,
  None: null,
  range,
  raise_exception: (message: unknown) => {
    throw new Refusal(String(message));
  },
  strftime_now: (format: unknown) => strftime(String(format), now()),
});

function range(first: number, second?: number, step = 1): number[] {
  const [start, stop] = second === undefined ? [0, first] : [first, second];
  const count = Math.max(0, Math.ceil((stop - start) / step));
  if (!(count <= RANGE)) throw new Error(`a range of more than ${RANGE} numbers`);
  return Array.from({ length: count }, (_, i) => start + i * step);
}

/** The directives of Python's strftime that templates use, in English and local time; others stay as they are. */
function strftime(format: string, date: Date): string {
  const two = (value: number) => `${value}`.padStart(2, "0");
  const word = (options: Intl.DateTimeFormatOptions) => new Intl.DateTimeFormat("en-US", options).format(date);
  const parts: Record<string, () => string> = {
    Y: () => `${date.getFullYear()}`,
    m: () => two(date.getMonth() + 1),
    d: () => two(date.getDate()),
    H: () => two(date.getHours()),
    M: () => two(date.getMinutes()),
    S: () => two(date.getSeconds()),
    B: () => word({ month: "long" }),
    b: () => word({ month: "short" }),
    A: () => word({ weekday: "long" }),
    a: () => word({ weekday: "short" }),
    "%": () => "%",
  };
  return format.replace(/%(.)/g, (whole, letter: string) => parts[letter]?.() ?? whole);
}
