import { type Command, InvalidArgumentError, Option } from "commander";
import type { Precision } from "../../engine/engine.js";
import { BitwrightError, usageError } from "../../errors.js";
import { ENGINE_CHOICES, type EngineChoice } from "../engines.js";
import { readJsonFile } from "../folder.js";

// Options that several commands share, and the parsers of their values.

/** Options of every command. */
export interface CommonOptions {
  json: boolean;
  quiet: boolean;
}

/** Options of the commands that compute. */
export interface EngineOptions {
  engine: EngineChoice;
  threads?: number;
  reproducible: boolean;
  device?: number;
  precision: Precision;
  deviceMemory?: number;
}

export function addCommonOptions(command: Command): Command {
  return command
    .option(
      "--json",
      'print one JSON document and nothing else; a failure is {"error": {kind, message, remedy}}',
      false,
    )
    .option("--quiet", "no progress", false);
}

export function addEngineOptions(command: Command): Command {
  return command
    .addOption(
      new Option(
        "--engine <name>",
        "what computes; auto takes an NVIDIA card (cuda), any other card (webgpu), a BLAS library, or else WebAssembly",
      )
        .choices(ENGINE_CHOICES)
        .default("auto"),
    )
    .option("--device <number>", "which card, as bitwright doctor counts them (default: 0)", wholeNumber(0, 1024))
    .addOption(
      new Option("--precision <type>", "of matrix products on a card: operands are rounded to it, sums are f32")
        .choices(["f32", "tf32", "f16"])
        .default("f32"),
    )
    .option(
      "--device-memory <size>",
      "most that tensors take of a card's memory (default: what is free; webgpu cannot tell, and keeps activations there with this only)",
      byteSize(2 ** 20),
    )
    .option("--threads <count>", "threads (default: one for each core)", wholeNumber(1, 256))
    .option("--reproducible", "only arithmetic that gives the same bits on every machine (slower)", false);
}

/** A parser of whole numbers from `least` to `most`. */
export function wholeNumber(least: number, most = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() !== "" && Number.isInteger(value) && value >= least && value <= most) return value;
    const range = most === Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `from ${least} to ${most}`;
    throw new InvalidArgumentError(`Expected a whole number ${range}.`);
  };
}

/** A parser of numbers within bounds. */
export function numberBetween(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() !== "" && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`Expected a number from ${least} to ${most}.`);
  };
}

const SIZE_UNITS: Readonly<Record<string, number>> = {
  "": 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
};

/** A parser of sizes: "500MB", "5GB", "2GiB", or bytes; at least `least`. */
export function byteSize(least: number): (text: string) => number {
  return (text) => {
    const match = /^\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*$/i.exec(text);
    const unit =
      match &&
      SIZE_UNITS[
        match[2]
          .toLowerCase()
          .replace(/^([kmg])$/, "$1b")
          .replace(/^b$/, "")
      ];
    if (!match || !unit) throw new InvalidArgumentError("Expected a size such as 500MB or 5GB.");
    const bytes = Math.floor(Number(match[1]) * unit);
    if (!Number.isSafeInteger(bytes) || bytes < least)
      throw new InvalidArgumentError(`Expected at least ${least} bytes.`);
    return bytes;
  };
}

/** A JSON file that an option names; not there or not JSON is bad use. */
export async function readJsonOption(path: string): Promise<unknown> {
  try {
    return await readJsonFile(path);
  } catch (error) {
    if (error instanceof BitwrightError) throw usageError(error.message, error.remedy);
    throw error;
  }
}
