// Embeds the kernel sources of the GPU engines, src/engine/cuda/kernels/*.cu and src/engine/webgpu/kernels/*.wgsl, as text in
// kernels.generated.ts beside them: a browser's bundle and an installed package then need no files.
import { existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join, parse } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** Writes both files where they are missing or out of date. */
export function embedSources() {
  for (const [engine, extension] of [
    ["cuda", ".cu"],
    ["webgpu", ".wgsl"],
  ]) {
    const folder = join(ROOT, "src/engine", engine, "kernels");
    const names = readdirSync(folder)
      .filter((name) => name.endsWith(extension))
      .sort();
    const entries = names.map(
      (name) => `  ${JSON.stringify(parse(name).name)}: ${JSON.stringify(readFileSync(join(folder, name), "utf8"))},`,
    );
    const text = [
      "// Made by scripts/sources.mjs from kernels/. Do not edit.",
      "export const KERNEL_FILES: Readonly<Record<string, string>> = {",
      ...entries,
      "};",
      "",
    ].join("\n");
    const output = join(ROOT, "src/engine", engine, "kernels.generated.ts");
    if (existsSync(output) && readFileSync(output, "utf8") === text) continue;
    const temporary = `${output}.${process.pid}.tmp`;
    writeFileSync(temporary, text);
    renameSync(temporary, output);
  }
}

/** Vitest's global set-up: tests see the sources as they are now. */
export default embedSources;

if (process.argv[1] === fileURLToPath(import.meta.url)) embedSources();
