/** What went wrong, so that a caller can react: the command line turns `usage` into exit code 2 and everything else into 1. */
export type ErrorKind =
  | "usage" // the request makes no sense: an option, a recipe, a name
  | "format" // a file is not what it claims to be
  | "unsupported" // understood, but not something we can do
  | "numeric" // NaN, infinity, a factorisation that cannot succeed
  | "memory" // an engine has no room for what was asked: less at a time may go
  | "io" // the disk or the folder refused
  | "aborted"; // stopped by the caller

/** The one error type of the project. `message` says what was expected and what came; `remedy` says what to do. */
export class BitwrightError extends Error {
  override readonly name = "BitwrightError";

  constructor(
    readonly kind: ErrorKind,
    message: string,
    readonly remedy?: string,
    options?: { cause?: unknown },
  ) {
    super(message, options);
  }
}

export const usageError = (message: string, remedy?: string) => new BitwrightError("usage", message, remedy);
export const formatError = (message: string, remedy?: string) => new BitwrightError("format", message, remedy);
export const unsupportedError = (message: string, remedy?: string) =>
  new BitwrightError("unsupported", message, remedy);
export const numericError = (message: string, remedy?: string) => new BitwrightError("numeric", message, remedy);
export const memoryError = (message: string, remedy?: string) => new BitwrightError("memory", message, remedy);
export const ioError = (message: string, remedy?: string, cause?: unknown) =>
  new BitwrightError("io", message, remedy, { cause });

/** What was thrown, in one line, for messages that quote it. */
export const firstLine = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).split("\n")[0];

/** Throws the `aborted` error when the signal has fired. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new BitwrightError("aborted", "stopped before the work was done");
}
