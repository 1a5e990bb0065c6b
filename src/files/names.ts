import { usageError } from "../errors.js";

/** Throws "usage" unless `name` can only mean a file directly in a folder: no separators, no "..", no control characters. */
export function checkPlainName(name: string, where: string): void {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  if (name === "" || name === "." || name === ".." || name.length > 255 || /[/\\:\u0000-\u001f\u007f]/.test(name)) {
    throw usageError(
      `${JSON.stringify(name.slice(0, 100))} is not a plain file name (asked of ${where})`,
      "give the name of a file in the folder, without a path",
    );
  }
}
