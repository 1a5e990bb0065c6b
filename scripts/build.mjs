// Builds dist/: the WASM kernels (AssemblyScript), embedded as a generated module, then the TypeScript.
import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, rmSync } from "node:fs";
import { buildKernels } from "./kernels.mjs";

const tsc = "node_modules/typescript/bin/tsc";
await buildKernels();
rmSync("dist", { recursive: true, force: true });
execFileSync(process.execPath, [tsc, "-p", "tsconfig.build.json"], { stdio: "inherit" });
if (existsSync("dist/node/cli/main.js")) chmodSync("dist/node/cli/main.js", 0o755);
