// Builds dist/: the WASM kernels (AssemblyScript), embedded as a generated module, the sources of the GPU kernels likewise, then the TypeScript.
import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, rmSync } from "node:fs";
import { buildKernels } from "./kernels.mjs";
import { embedSources } from "./sources.mjs";

const tsc = "node_modules/typescript/bin/tsc";
await buildKernels();
embedSources();
rmSync("dist", { recursive: true, force: true });
execFileSync(process.execPath, [tsc, "-p", "tsconfig.build.json"], { stdio: "inherit" });
if (existsSync("dist/node/cli/main.js")) chmodSync("dist/node/cli/main.js", 0o755);
