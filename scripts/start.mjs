// `npm start`: the quickstart. Builds first when there is no build, as after a clone without its install scripts.
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
if (!existsSync(`${root}dist/node/cli/start.js`)) {
  execFileSync(process.execPath, ["scripts/build.mjs"], { cwd: root, stdio: "inherit" });
}
await import("../dist/node/cli/start.js");
