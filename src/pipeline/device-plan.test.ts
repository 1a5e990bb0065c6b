import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { type CheckpointModel, openCheckpointModel } from "../checkpoint/open.js";
import { NoRoom } from "../engine/device/pool.js";
import type { Engine } from "../engine/engine.js";
import { createReferenceEngine } from "../engine/reference/index.js";
import { BitwrightError, usageError } from "../errors.js";
import { memoryFolder, memoryOutput } from "../files/memory.js";
import { stageSlots } from "../model/families/index.js";
import { createRandom } from "../random.js";
import { ActivationBudget, ActivationStore } from "./activations.js";
import { activationRoom, blockNeed, planBlock, withRoom } from "./device-plan.js";
import { jobCost } from "./estimate.js";
import type { QuantizeEvent } from "./events.js";
import { planOf, quantize } from "./job.js";
import { type RecipeInput, resolveRecipe } from "./recipe.js";

const FIXTURE = "test/golden/families/llama-gqa-llama3-tied";
const files = new Map(
  ["config.json", "model.safetensors"].map((name) => [name, new Uint8Array(readFileSync(`${FIXTURE}/${name}`))]),
);
const common = { samples: 4, window: 24 };
const FULL: RecipeInput = { ...common, method: "gptq", bits: 3, group: 16, propagate: "full" };
const STAGED: RecipeInput = { ...common, method: "gptq", bits: 3, group: 16 };
/** A step of training has another way out first. */
const MENDED = /activations (go to the host's memory|are computed again)/;
const [APART, LEFT] = [/measured one after the other/, /activations go to the host's memory/];

let model: CheckpointModel;
let tokens: Int32Array;
beforeAll(async () => {
  model = await openCheckpointModel(memoryFolder("tiny", files));
  const random = createRandom(7);
  tokens = Int32Array.from({ length: 400 }, () => random.integer(model.model.vocabulary));
});

/** What block 0 needs; both are of one size. */
const needOf = (input: RecipeInput, isOpen = true) => {
  const recipe = resolveRecipe(input);
  const linears = planOf(model.model, recipe).filter(({ block }) => block === 0);
  return blockNeed(linears, stageSlots(model.model), recipe.propagate === "quantized", common.window, () => isOpen);
};

/**
 * An engine whose memory is its own and has so many bytes; 0: the host's. `shrink` changes the size before each block. The request for
 * memory number `refused` gets none.
 */
async function run(
  recipe: RecipeInput,
  bytes: number,
  shrink: (block: number) => number = () => bytes,
  refused = Number.POSITIVE_INFINITY,
) {
  let size = bytes;
  const engine: Engine = createReferenceEngine();
  if (bytes > 0) engine.roomBytes = () => Math.max(1, size - engine.liveBytes());
  let requests = 0;
  const memory = engine as unknown as { allocate(bytes: number, filled: boolean): unknown };
  const allocate = memory.allocate.bind(engine);
  memory.allocate = (wanted, filled) => {
    if (requests++ === refused) throw new NoRoom(`no room for ${wanted} bytes`, "buy some");
    return allocate(wanted, filled);
  };
  const output = memoryOutput();
  const warnings: string[] = [];
  const passes: string[] = [];
  const onEvent = (event: QuantizeEvent) => {
    if (event.type === "block") size = shrink(event.block);
    if (event.type === "warning") warnings.push(event.message);
    if (event.type === "pass" && event.window === 0) passes.push(`${event.block}: ${event.slots}`);
  };
  const options = { engine, output, calibration: tokens, calibrationName: "random tokens", onEvent };
  try {
    await quantize(model, recipe, options);
  } finally {
    expect(engine.liveBytes()).toBe(0);
  }
  return { files: output.files, warnings, passes, requests };
}

describe("a block in an engine's own memory", () => {
  it("needs less by stage, and no less than its weights and its largest Hessian", () => {
    for (const recipe of [FULL, STAGED]) {
      const { whole, byStage } = needOf(recipe);
      const first = planOf(model.model, resolveRecipe(recipe)).filter(({ block }) => block === 0);
      const weights = first.reduce((sum, { spec }) => sum + 4 * spec.rows * spec.columns, 0);
      const widest = Math.max(...first.map(({ spec }) => spec.columns));
      expect(byStage).toBeGreaterThan(weights + 4 * widest ** 2);
      if (recipe === FULL) expect(whole).toBeGreaterThan(byStage);
      else expect(whole).toBe(byStage);
      // only passed through: nothing is measured, nothing can be split
      const passed = needOf(recipe, false);
      expect(passed.whole).toBe(passed.byStage);
      expect(passed.whole).toBeLessThan(byStage);
    }
    const rtn = needOf({ method: "rtn", bits: 4 });
    expect(rtn.whole).toBe(rtn.byStage);
    expect(rtn.whole).toBeLessThan(needOf(FULL).byStage);
  });

  it("is measured at once where all of it fits, else one stage after the other, to the same bytes", async () => {
    const expected = await run(FULL, 0);
    const enough = await run(FULL, 2 ** 30);
    expect([enough.files, enough.warnings, enough.passes]).toEqual([expected.files, [], expected.passes]);
    const little = await run(FULL, needOf(FULL).whole - 1);
    expect(little.files).toEqual(expected.files);
    expect(little.warnings).toEqual([expect.stringMatching(APART)]);
    expect(expected.passes).toEqual([
      "0: query,key,value,output,gate,up,down",
      "1: query,key,value,output,gate,up,down",
    ]);
    expect(little.passes).toEqual(
      ["0", "1"].flatMap((block) =>
        ["query,key,value", "output", "gate,up", "down"].map((slots) => `${block}: ${slots}`),
      ),
    );
  });

  it.each([
    ["full", FULL],
    ["quantized", STAGED],
  ] as const)("sends activations to the host before it is split (%s stream)", async (_name, recipe) => {
    const expected = await run(recipe, 0);
    const { whole, byStage } = needOf(recipe);
    // at first there is room for activations, half of what is left over; then for the block alone
    const shrunk = await run(recipe, 4 * whole, (block) =>
      block === 0 ? 4 * whole : Math.ceil((whole + byStage) / 2),
    );
    expect(shrunk.files).toEqual(expected.files);
    const [first, ...others] = shrunk.warnings;
    expect(first).toMatch(LEFT);
    expect(others).toEqual(recipe === FULL ? [expect.stringMatching(APART)] : []);
  });
});

describe("a request for memory that is refused", () => {
  const clipped: RecipeInput = { ...common, method: "omniquant", bits: 3, group: 16, train: "clip", epochs: 1 };
  it.each([
    ["full stream", FULL],
    ["quantized stream", STAGED],
    ["training", clipped],
  ] as const)(
    "lets the activations go to the host, wherever it comes, to the same bytes (%s)",
    async (_name, recipe) => {
      const expected = await run(recipe, 2 ** 30);
      expect(expected.warnings).toEqual([]);
      const random = createRandom(3, "refusals");
      const places = Array.from({ length: 40 }, (_, i) => Math.floor(((i + random.next()) * expected.requests) / 40));
      let mended = 0;
      for (const place of places) {
        const outcome = await run(recipe, 2 ** 30, undefined, place).catch((error: unknown) => error);
        if (outcome instanceof NoRoom) continue; // nothing could go, or what failed cannot be done twice
        const { files, warnings } = outcome as Awaited<ReturnType<typeof run>>;
        expect(files).toEqual(expected.files);
        // the first activations go there without a word
        for (const warning of warnings) expect(warning).toMatch(MENDED);
        mended++;
      }
      expect(mended).toBeGreaterThanOrEqual(38);
    },
  );
});

describe("planBlock", () => {
  const need = { whole: 100, byStage: 60, early: 20 };
  const budget = () => new ActivationBudget(Number.POSITIVE_INFINITY, undefined, undefined, 1000);
  const plan = (bytes: number, held = 0, uploadsBeside = true, byStage = need.byStage) => {
    const engine: Engine = Object.assign(createReferenceEngine(), { uploadsBeside, roomBytes: () => bytes });
    return planBlock({ engine, budget: budget(), needs: [{ ...need, byStage }] }, 0, held);
  };

  it("splits where the whole does not fit, and lets the next weights come where they do", async () => {
    expect(await plan(99)).toEqual({ byStage: true, uploadsNext: false });
    expect(await plan(99, 0, true, need.whole)).toEqual({ byStage: false, uploadsNext: false });
    expect(await plan(100)).toEqual({ byStage: false, uploadsNext: false });
    expect(await plan(120)).toEqual({ byStage: false, uploadsNext: true });
    expect(await plan(120, 0, false)).toEqual({ byStage: false, uploadsNext: false });
  });

  it("does not count weights twice that are there already", async () => {
    expect(await plan(80, 20)).toEqual({ byStage: false, uploadsNext: false });
    expect(await plan(100, 20)).toEqual({ byStage: false, uploadsNext: true });
  });

  it("gives activations what the largest block leaves, half at most", () => {
    expect(activationRoom(1000, [need, { ...need, whole: 500 }])).toBe(900 - 520);
    expect(activationRoom(10_000, [need])).toBe(5000);
    expect(activationRoom(100, [need])).toBe(0);
    expect(activationRoom(0, [])).toBe(0);
  });

  it("counts the parts of a split block as what was planned for the whole", () => {
    const recipe = resolveRecipe(FULL);
    const slots = stageSlots(model.model);
    const { pass } = jobCost(planOf(model.model, recipe), slots, recipe, 4, 24);
    const parts = slots.reduce((sum, own) => sum + pass(own, slots.length), 0);
    expect(parts / pass(slots.flat())).toBeCloseTo(1, 12);
  });
});

describe("withRoom", () => {
  const engine = createReferenceEngine();
  const short = new NoRoom("no room", "buy some");

  it("does it again once the activations are out of the engine's memory, which stay what they were", async () => {
    const budget = new ActivationBudget(Number.POSITIVE_INFINITY, undefined, undefined, 1000);
    const store = new ActivationStore(engine, 1, "f32", budget);
    await engine.scope(() => store.put(0, engine.upload(Float32Array.of(1, 2), [2], "f32")));
    expect(engine.liveBytes()).toBe(8);
    const told: string[] = [];
    const work = async () => {
      if (engine.liveBytes() > 0) throw short;
      return "done";
    };
    expect(await withRoom(budget, work, ({ message }) => told.push(message))).toBe("done");
    expect([engine.liveBytes(), budget.engineBytes, told]).toEqual([0, 0, ["no room"]]);
    await engine.scope(async () => expect([...(await engine.read(await store.get(0)))]).toEqual([1, 2]));
    // from now on none come there
    await engine.scope(() => store.put(0, engine.upload(Float32Array.of(3, 4), [2], "f32")));
    expect(engine.liveBytes()).toBe(0);
    await expect(
      withRoom(
        budget,
        () => Promise.reject(short),
        () => told.push("again"),
      ),
    ).rejects.toBe(short);
    expect(told).toEqual(["no room"]);
    await store.close();
    expect(budget.stores.size).toBe(0);
  });

  it("lets other failures through", async () => {
    const budget = new ActivationBudget(Number.POSITIVE_INFINITY, undefined, undefined, 1000);
    const store = new ActivationStore(engine, 1, "f32", budget);
    await engine.scope(() => store.put(0, engine.upload(Float32Array.of(1, 2), [2], "f32")));
    // a device that tells late has spoiled what it was to compute
    for (const other of [usageError("wrong"), new BitwrightError("memory", "told late", "")]) {
      const work = () => Promise.reject(other);
      await expect(withRoom(budget, work, () => {})).rejects.toBe(other);
    }
    expect(engine.liveBytes()).toBe(8);
    await store.close();
  });
});
