import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** The folder of the package: data/ and models/ are in it. The same from src/node and from dist/node. */
export const packageFolder = fileURLToPath(new URL("../../", import.meta.url));

export function packageVersion(): string {
  const { version } = JSON.parse(readFileSync(join(packageFolder, "package.json"), "utf8")) as { version: string };
  return version;
}
