// The hot kernels on a card: time of each version beside the physical limit, a library's time, and a check. bench/kernels/README.md.
// node scripts/bench.mjs bench/kernels/gpu.ts [--engine cuda|webgpu] [--kernel name,name] [--size 7b,wiki-40m,8192,tiny] [--json]
//   [--no-torch]
// node scripts/bench.mjs bench/kernels/gpu.ts --compile: the laboratory's own versions by NVRTC, without a card
// PYTHON names an interpreter with torch, default python3; without it the column of torch is empty.
import { parseArgs } from "node:util";
import { CudaDevice } from "../../src/engine/cuda/device.js";
import type { Precision } from "../../src/engine/engine.js";
import { Tensor } from "../../src/tensor/index.js";
import { type Card, knownCard, limitOf, type Unit } from "./gpu/cards.js";
import { CODEBOOK_CASES } from "./gpu/codebooks.js";
import { type Bench, type Extents, type MakeCase, openBench } from "./gpu/lab.js";
import { ATTENTION_CASES, LAYER_CASES } from "./gpu/layers.js";
import { MATRIX_CASES, productsIn } from "./gpu/matrices.js";
import { openTorch, type Torch } from "./gpu/torch.js";
import { TRAINING_CASES } from "./gpu/training.js";
import { addVersions, compileVersions } from "./gpu/versions.js";

const SIZES: Readonly<Record<string, Extents>> = {
  "7b": size("7b", 2048, 4096, 11008, 32, 32, 8, 65536), // LLaMA-2-7B
  "wiki-40m": size("wiki-40m", 1024, 512, 1408, 8, 4, 4, 256),
  "8192": size("8192", 8192, 8192, 8192, 64, 64, 8, 65536), // products only
  tiny: size("tiny", 40, 64, 96, 4, 2, 4, 24), // for adapters in software
};
const KERNELS: Readonly<Record<Precision, Readonly<Record<string, MakeCase>>>> = {
  f32: { ...MATRIX_CASES, ...CODEBOOK_CASES, ...LAYER_CASES, ...TRAINING_CASES },
  tf32: productsIn("tf32"),
  f16: { ...productsIn("f16"), ...ATTENTION_CASES },
};
/** WebGPU has no tf32, and f16 for products alone. */
const WEBGPU_KERNELS: typeof KERNELS = { f32: KERNELS.f32, tf32: {}, f16: productsIn("f16") };

const { values: args } = parseArgs({
  options: {
    engine: { type: "string", default: "cuda" },
    kernel: { type: "string" },
    size: { type: "string", default: "7b,wiki-40m" },
    json: { type: "boolean", default: false },
    "no-torch": { type: "boolean", default: false },
    compile: { type: "boolean", default: false },
  },
});

const TITLE = 100;

interface Row {
  kernel: string;
  size: string;
  shape: string;
  precision: Precision;
  version: string;
  milliseconds: number;
  /** The least time that the card allows, and what sets it. */
  limit: number;
  by: "memory" | Unit;
  /** 1 where memory alone decides and the kernel moves nothing twice. */
  share: number;
  /** Of the check, and whether it is within its tolerance. */
  error: number;
  correct: boolean;
  /** Milliseconds, or why there are none. */
  library?: number | string;
  torch?: number | string;
}

addVersions();
if (args.compile) for (const line of await compileVersions(["sm_80", "sm_90"])) console.log(line);
else await main();

async function main(): Promise<void> {
  const since = performance.now();
  const kind = args.engine;
  if (kind !== "cuda" && kind !== "webgpu") throw new Error(`--engine: expected cuda or webgpu, got ${kind}`);
  const sizes = args.size.split(",").map((name) => SIZES[name] ?? unknown("size", name, Object.keys(SIZES)));
  const names = args.kernel?.split(",");
  for (const name of names ?? []) if (!(name in KERNELS.f32)) unknown("kernel", name, Object.keys(KERNELS.f32));
  const say = (line: string) => (args.json ? console.error(line) : console.log(line));

  const torch = kind === "webgpu" || args["no-torch"] ? { reason: "not asked for" } : await openTorch();
  say("reason" in torch ? `no torch: ${torch.reason}` : torch.description);
  const rows: Row[] = [];
  let card: Card | undefined;
  let failed = 0;
  for (const precision of ["f32", "tf32", "f16"] as const) {
    const all = kind === "webgpu" ? WEBGPU_KERNELS[precision] : KERNELS[precision];
    const asked = Object.entries(all).filter(([name]) => !names || names.includes(name));
    if (asked.length === 0) continue;
    let bench: Bench;
    try {
      bench = await openBench(kind, precision);
    } catch (error) {
      if (precision === "f32") throw error;
      say(error instanceof Error ? error.message : String(error)); // not every adapter multiplies in f16
      continue;
    }
    say(bench.engine.description);
    card ??= await cardOf(bench, sizes[0]);
    if (rows.length === 0)
      say(`${describeCard(card)}\n${"".padEnd(TITLE)}        ms     limit of      share  check           others`);
    for (const extents of sizes)
      for (const [name, make] of asked)
        try {
          const found = await measure(bench, name, make, extents, card, torch);
          rows.push(...found);
          if (!args.json) for (const row of found) print(row);
        } catch (error) {
          failed++; // time on a card is dear: the others go on
          console.error(`${name}, ${extents.name}: ${error instanceof Error ? error.message : error}`);
        }
    await bench.close();
  }
  if (!("reason" in torch)) torch.close();
  if (args.json) console.log(JSON.stringify({ card, rows }, null, 1));
  const wrong = rows.filter(({ correct }) => !correct).length;
  say(
    `${rows.length} rows, ${wrong} wrong, ${failed} kernels failed, ${((performance.now() - since) / 1000).toFixed(1)} s`,
  );
  if (wrong + failed > 0) process.exitCode = 1;
}

/** All versions of a kernel at one size: checked, then timed. */
function measure(
  bench: Bench,
  kernel: string,
  make: MakeCase,
  extents: Extents,
  card: Card,
  torch: Torch | { reason: string },
): Promise<Row[]> {
  return bench.engine.scope(async () => {
    const found = await make(bench, extents);
    if (!found) return [];
    const { shape, work, versions, check, tolerance, library } = found;
    const limit = limitOf(card, work);
    const rows: Row[] = [];
    for (const [place, { name: version, run }] of versions.entries()) {
      const made: Tensor[] = [];
      const checked = async () => {
        const result = await run();
        made.push(...tensorsOf(result));
        return result;
      };
      const error = await bench.engine.scope(() => check(checked));
      const milliseconds = await bench.clock.time(run);
      // the next version gets the memory of these results: it must not find them there
      bench.engine.scope(() => made.map(({ shape, dtype }) => bench.engine.create(shape, dtype)));
      const row: Row = {
        ...{ kernel, size: extents.name, shape, precision: bench.engine.precision, version, milliseconds },
        ...{ limit: limit.milliseconds, by: limit.by, share: limit.milliseconds / milliseconds },
        ...{ error, correct: error <= tolerance },
      };
      if (place === versions.length - 1) {
        if (library) {
          const off = await bench.engine.scope(() => check(library.run));
          row.library = off <= tolerance ? await bench.clock.time(library.run) : `off by ${off.toExponential(0)}`;
        }
        if (found.torch && !("reason" in torch)) {
          const peer = await torch.time(found.torch);
          row.torch = "error" in peer ? peer.error : peer.milliseconds;
        }
      }
      rows.push(row);
    }
    return rows;
  });
}

function tensorsOf(result: unknown): Tensor[] {
  if (result instanceof Tensor) return [result];
  return typeof result === "object" && result !== null ? Object.values(result).flatMap(tensorsOf) : [];
}

/** From the data sheet; of a card that is not known, what copies and products reach. */
async function cardOf(bench: Bench, { hidden, tokens }: Extents): Promise<Card> {
  const { engine, clock, draw } = bench;
  const { device } = engine;
  const name = device instanceof CudaDevice ? device.card.name : engine.description;
  const known = knownCard(name);
  if (known) return known;
  return engine.scope(async () => {
    const source = engine.create([2 ** 24]);
    const copy = () => engine.copy(source);
    const side = Math.max(512, Math.min(tokens, hidden));
    const [x, w] = [draw([side, side]), draw([side, side])];
    const product = () => engine.matmul(x, w, { transposeB: true });
    engine.scope(() => [copy(), product()]); // compiles the kernel
    const bandwidth = (8 * source.size) / (1e-3 * (await clock.time(copy)));
    const f32 = (2 * side ** 3) / (1e-3 * (await clock.time(product)));
    return { name, bandwidth, peaks: { f32 }, source: "measured" };
  });
}

function describeCard({ name, bandwidth, peaks, source }: Card): string {
  const speeds = Object.entries(peaks).map(([unit, speed]) => `${(speed / 1e12).toPrecision(3)} T/s ${unit}`);
  return `limits of ${name}, ${source}: ${(bandwidth / 1e12).toPrecision(3)} TB/s, ${speeds.join(", ")}`;
}

function print(row: Row): void {
  const title = `${row.kernel}${row.precision === "f32" ? "" : ` ${row.precision}`}, ${row.shape}: ${row.version}`;
  const time = (milliseconds: number) => milliseconds.toFixed(3);
  const other = (name: string, found: number | string | undefined) =>
    found === undefined ? "" : `${name} ${typeof found === "string" ? `failed: ${found}` : time(found)} `;
  const error = row.error === 0 ? "0" : row.error.toExponential(0);
  const columns = [
    time(row.milliseconds).padStart(9),
    time(row.limit).padStart(9),
    row.by.padEnd(6),
    (row.share < 100 ? `${(100 * row.share).toFixed(0)} %` : "").padStart(6),
    (row.correct ? `off by ${error}` : `WRONG by ${error}`).padEnd(15),
    other("cuBLAS", row.library) + other("torch", row.torch),
  ];
  console.log(`${title.padEnd(TITLE)} ${columns.join(" ")}`.trimEnd());
}

function unknown(what: string, name: string, known: readonly string[]): never {
  throw new Error(`--${what}: expected some of ${known.join(", ")}, got ${name}`);
}

function size(
  name: string,
  ...[tokens, hidden, mlp, heads, keyValueHeads, vectorLength, codewords]: number[]
): Extents {
  return { name, tokens, hidden, mlp, heads, keyValueHeads, vectorLength, codewords };
}
