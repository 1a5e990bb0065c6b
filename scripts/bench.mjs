// Runs a benchmark: node scripts/bench.mjs bench/speed/matmul.ts [arguments]. Bundles it for Node and starts it.
import { spawnSync } from "node:child_process";
import { mkdirSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { buildKernels } from "./kernels.mjs";

const [source, ...rest] = process.argv.slice(2);
if (!source) {
  console.error("usage: node scripts/bench.mjs FILE [arguments]");
  process.exit(2);
}
await buildKernels();
const folder = fileURLToPath(new URL("../build/", import.meta.url));
mkdirSync(folder, { recursive: true });
const outfile = join(folder, `${basename(source, ".ts")}.${process.pid}.mjs`);
try {
  await build({
    entryPoints: [source],
    outfile,
    bundle: true,
    platform: "node",
    format: "esm",
    target: "node20",
    packages: "external",
    logLevel: "error",
  });
  process.exitCode = spawnSync(process.execPath, [outfile, ...rest], { stdio: "inherit" }).status ?? 1;
} finally {
  rmSync(outfile, { force: true });
}
