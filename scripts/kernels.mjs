// Compiles src/engine/wasm/assembly (AssemblyScript) to two WebAssembly modules, plain SIMD and relaxed SIMD, and embeds
// both as base64 in src/engine/wasm/kernels.generated.ts. Skipped when neither the sources nor the compiler changed.
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const FOLDER = "src/engine/wasm/assembly";
const OUTPUT = join(ROOT, "src/engine/wasm/kernels.generated.ts");

// Below: constants of the kernels, from 1024 on; the pool's control block at 32 KiB; the heap from 64 KiB (see runtime.ts).
const OPTIONS = [
  "--runtime",
  "stub",
  "--optimizeLevel",
  "3",
  "--shrinkLevel",
  "0",
  "--converge",
  "--noAssert",
  "--disableWarning",
  "--importMemory",
  "--sharedMemory",
  "--initialMemory",
  "2",
  "--maximumMemory",
  "65536",
  "--memoryBase",
  "1024",
  "--use",
  "abort=",
];

/** Every file directly in the folder is an entry: its exports are kernels. Helpers live in lib/. */
const entries = () =>
  readdirSync(join(ROOT, FOLDER))
    .filter((name) => name.endsWith(".ts"))
    .sort()
    .map((name) => `${FOLDER}/${name}`);

function hashOfSources() {
  const hash = createHash("sha256");
  const require = createRequire(import.meta.url);
  hash.update(readFileSync(fileURLToPath(import.meta.url)));
  hash.update(require("assemblyscript/package.json").version);
  const files = readdirSync(join(ROOT, FOLDER), { recursive: true })
    .map(String)
    .filter((name) => name.endsWith(".ts"))
    .sort();
  for (const name of files) hash.update(`${name}\n`).update(readFileSync(join(ROOT, FOLDER, name)));
  return hash.digest("hex");
}

async function compile(features) {
  const { default: asc } = await import("assemblyscript/asc");
  let binary;
  const enable = features.flatMap((feature) => ["--enable", feature]);
  const { error, stderr } = await asc.main([...entries(), "--outFile", "kernels.wasm", ...OPTIONS, ...enable], {
    readFile: (name, base) => {
      const path = join(base ?? ".", name);
      return existsSync(join(ROOT, path)) ? readFileSync(join(ROOT, path), "utf8") : null;
    },
    listFiles: () => [],
    writeFile: (name, contents) => {
      if (name.endsWith(".wasm")) binary = contents;
    },
  });
  if (error) throw new Error(`the kernels did not compile:\n${stderr.toString() || error.message}`);
  return binary;
}

/** Writes kernels.generated.ts when it is missing or out of date. */
export async function buildKernels() {
  const hash = hashOfSources();
  if (existsSync(OUTPUT) && readFileSync(OUTPUT, "utf8").includes(hash)) return;
  const plain = await compile(["simd", "threads"]);
  const relaxed = await compile(["simd", "threads", "relaxed-simd"]);
  const text = (bytes) => JSON.stringify(Buffer.from(bytes).toString("base64"));
  const source = [
    "// Made by scripts/kernels.mjs from assembly/. Do not edit.",
    `// ${hash}`,
    `export const PLAIN_KERNELS: string = ${text(plain)};`,
    `export const RELAXED_KERNELS: string = ${text(relaxed)};`,
    "",
  ].join("\n");
  const temporary = `${OUTPUT}.${process.pid}.tmp`;
  writeFileSync(temporary, source);
  renameSync(temporary, OUTPUT);
  console.log(`kernels: ${plain.length} bytes plain, ${relaxed.length} bytes relaxed SIMD`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await buildKernels();
