import { BitwrightError } from "../src/errors.js";
import type { Failure } from "./protocol.js";

/** What the command line calls its options has other names on the page. */
const WORDS: readonly [RegExp, string][] = [
  [/--samples (\d+)/g, "$1 calibration windows"],
  [/--window (\d+)/g, "$1 tokens a window"],
  [/--samples/g, "the calibration windows"],
  [/--window/g, "the tokens a window"],
  [/run with the same options to continue it, or without --resume to start again/g, "choose Start over"],
  [/give one with --calibration/g, "choose one under Calibration"],
  [/see `bitwright quantize --help` for the words/g, "check the numbers of the form"],
];

/** An error as the page shows it: what is wrong, and what to do. */
export function failureOf(error: unknown): Failure {
  if (!(error instanceof BitwrightError)) {
    console.error(error);
    return { kind: "internal", message: error instanceof Error ? error.message : String(error) };
  }
  const reword = (text: string) => WORDS.reduce((done, [from, to]) => done.replace(from, to), text);
  return { kind: error.kind, message: reword(error.message), remedy: error.remedy && reword(error.remedy) };
}
