// What each step of VPTQ is worth on real linears: proxy error and processor time after every step, measured Hessians.
// node scripts/bench.mjs bench/quality/linears.ts MODEL TEXT [block] [slots, "query,down"] [scheme as JSON] [windows]
import { openCheckpointModel } from "../../src/checkpoint/open.js";
import { createWasmEngine } from "../../src/engine/wasm/engine.js";
import { openFile, openFolder } from "../../src/node/folder.js";
import { nodeWorkers } from "../../src/node/threads.js";
import { ActivationBudget } from "../../src/pipeline/activations.js";
import { modelBlocks } from "../../src/pipeline/block-source.js";
import { runBlocks } from "../../src/pipeline/blocks.js";
import type { LinearStatistics, MethodContext } from "../../src/quant/method.js";
import { prepareLinear } from "../../src/quant/prepare.js";
import { proxyLoss } from "../../src/quant/proxy.js";
import type { Codes } from "../../src/quant/vptq/codes.js";
import { measureScales, normalise, visitingOrder } from "../../src/quant/vptq/normalise.js";
import { rate, refineCodes } from "../../src/quant/vptq/refine.js";
import type { VptqScheme } from "../../src/quant/vptq/scheme.js";
import { checkCodebooksFit, paddedRows, planSegments } from "../../src/quant/vptq/segments.js";
import { trainCodebooks } from "../../src/quant/vptq/train.js";
import type { F32 } from "../../src/tensor/index.js";
import { drawWindows, openTokenizer, parseCorpus } from "../../src/text/index.js";

const [model, text, block = "0", slots = "", change = "{}", count = "32"] = process.argv.slice(2);
if (!model || !text) throw new Error("give the folder of a model and a text");
const WINDOW = 1024;
const scheme: VptqScheme = {
  vectorLength: 4,
  codebook: 256,
  residuals: [],
  groups: 1,
  norm: "none",
  refine: 2,
  beam: 8,
  asymmetric: 0,
  iterations: 100,
  damping: 0.01,
  ...JSON.parse(change),
};

const engine = await createWasmEngine({ threads: 2, spawnWorker: nodeWorkers() });
const opened = await openCheckpointModel(await openFolder(model));
const tokenizer = await openTokenizer(opened.folder);
const file = await openFile(text);
const tokens = tokenizer.encode(parseCorpus(text, await file.read(0, file.size)));
const windows = drawWindows(tokens, { count: Number(count), length: WINDOW, seed: 0 });
const wanted = slots ? slots.split(",") : undefined;

/** Processor time of all threads since the last call, in ms: steadier than the clock on a busy machine. */
const lap = (() => {
  let before = process.cpuUsage();
  return () => {
    const { user, system } = process.cpuUsage(before);
    before = process.cpuUsage();
    return `${((user + system) / 1000).toFixed(0)} ms`;
  };
})();

function trace(weight: F32, statistics: LinearStatistics, name: string): Promise<void> {
  const context: MethodContext = { engine, seed: 0, name };
  return engine.scope(async () => {
    const [rows, columns] = weight.shape;
    const plan = planSegments(columns, scheme);
    checkCodebooksFit(plan, rows, name);
    console.log(`\n${name}, ${rows} x ${columns}`);
    lap();
    const scales = await measureScales(engine, weight, scheme.norm);
    const { damping, asymmetric } = scheme;
    const options = { paddedRows: paddedRows(rows, plan), damping, asymmetric, order: visitingOrder(scales) };
    const problem = await normalise(engine, await prepareLinear(weight, statistics, options, context), scales, rows);
    const power = await proxyLoss(engine, problem.weights, undefined, problem.hessian, problem.rowWeights);
    console.log(`  ${"factor".padEnd(16)} ${"".padEnd(8)} ${lap()}`);
    const report = async (step: string, codes: Codes) => {
      const spent = lap();
      const { loss } = await rate(engine, problem, codes);
      console.log(`  ${step.padEnd(16)} ${(loss / power).toFixed(5)}  ${spent}`);
      lap();
    };
    const published = await trainCodebooks(problem, plan, scheme, context);
    await report("as published", { segments: published.segments, indices: published.sweep.indices });
    await refineCodes(problem, plan, published, scheme, context, report);
  });
}

const source = modelBlocks(engine, opened.model, opened.weights, windows);
const stop = Number(block);
await runBlocks(
  { ...source, blocks: stop + 1 },
  {
    needsStatistics: (at, slot) => at === stop && (wanted?.includes(slot) ?? true),
    quantizeStage: async (at, stageSlots, weights, statistics) => {
      if (at === stop && statistics)
        for (const slot of stageSlots)
          if (wanted?.includes(slot) ?? true) await trace(weights.linears[slot].weight, statistics, `${at}.${slot}`);
      return {};
    },
    onBlock: () => {},
    onWindow: () => {},
  },
  {
    engine,
    windows: windows.length,
    propagate: "full",
    correctionWindows: 0,
    budget: new ActivationBudget(Number.POSITIVE_INFINITY),
  },
);
source.close();
await engine.close();
