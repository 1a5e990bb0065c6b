// Checks that imports only go down the list of ARCHITECTURE.md, and that node: stays where it may be.
import { readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";

const ORDER = [
  "base",
  "tensor",
  "files",
  "text",
  "engine",
  "autograd",
  "model",
  "quant",
  "checkpoint",
  "pipeline",
  "eval",
  "runtime",
  "report",
  "api",
  "node",
];
const BASE_FILES = new Set(["errors.ts", "random.ts", "hash.ts", "turns.ts"]);
const MAY_IMPORT_NODE = [/^node\//, /^engine\/blas\//, /^engine\/cuda\//];
const IMPORT =
  /(?:import|export)\s[^;]*?from\s*["']([^"']+)["']|import\s*\(\s*["']([^"']+)["']\s*\)|import\s+["']([^"']+)["']/g;

const root = resolve("src");
const problems = [];

function layerOf(path) {
  const [first, second] = path.split("/");
  if (second === undefined) return BASE_FILES.has(first) ? "base" : "api";
  return first;
}

function walk(folder) {
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) {
      if (name !== "assembly") walk(path);
    } else if (name.endsWith(".ts")) check(path);
  }
}

function check(path) {
  const from = relative(root, path);
  const isTest = from.endsWith(".test.ts");
  const fromLayer = layerOf(from);
  if (!ORDER.includes(fromLayer))
    problems.push(`${from}: folder '${fromLayer}' is not a layer (see scripts/layers.mjs)`);
  for (const match of readFileSync(path, "utf8").matchAll(IMPORT)) {
    const target = match[1] ?? match[2] ?? match[3];
    if (target.startsWith("node:")) {
      if (!isTest && !MAY_IMPORT_NODE.some((rule) => rule.test(from))) problems.push(`${from}: imports ${target}`);
    } else if (target.startsWith(".")) {
      if (isTest) continue; // a test may use the layers above to build its inputs
      const to = relative(root, resolve(dirname(path), target));
      const toLayer = layerOf(to.replace(/\.js$/, ".ts"));
      if (ORDER.indexOf(toLayer) > ORDER.indexOf(fromLayer))
        problems.push(`${from}: imports up, ${toLayer} from ${fromLayer}`);
      const methods = /^quant\/(rtn|gptq|vptq|awq|omniquant)/;
      const a = methods.exec(from)?.[1];
      const b = methods.exec(to)?.[1];
      if (a && b && a !== b) problems.push(`${from}: method ${a} imports method ${b}`);
      const engines = /^engine\/(reference|wasm|webgpu|cuda)\//;
      const ea = engines.exec(from)?.[1];
      const eb = engines.exec(to)?.[1];
      if (ea && eb && ea !== eb) problems.push(`${from}: engine ${ea} imports engine ${eb}`);
    }
  }
}

walk(root);
for (const problem of problems) console.error(problem);
if (problems.length > 0) process.exit(1);
console.log("layers: imports go down only");
