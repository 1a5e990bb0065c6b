import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Engine } from "../../../src/engine/engine.js";
import { createWasmEngine } from "../../../src/engine/wasm/engine.js";
import { nodeWorkers } from "../../../src/node/threads.js";
import { openModel } from "../../../src/runtime/model.js";
import { VPTQ_LOGITS } from "../../tolerances.js";
import { GOLDEN_CHECKPOINTS, goldenFolder, goldenLogits } from "./folder.js";

describe("checkpoints of the official code", () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await createWasmEngine({ threads: 2, spawnWorker: nodeWorkers() });
  });
  afterAll(() => engine.close());

  it.each(GOLDEN_CHECKPOINTS)("give the logits that transformers and the vptq package give: %s", async (name) => {
    const { tokens, logits } = await goldenLogits(name);
    const model = await openModel(engine, await goldenFolder(name));
    const got = await engine.scope(async () => engine.read(await model.decoder.logits([tokens])));
    const vocabulary = got.length / tokens.length;
    const columns = logits.length / tokens.length;
    let worst = 0;
    for (let position = 0; position < tokens.length; position++) {
      for (let column = 0; column < columns; column++) {
        const difference = got[position * vocabulary + column] - logits[position * columns + column];
        worst = Math.max(worst, Math.abs(difference));
      }
    }
    expect(worst).toBeLessThanOrEqual(VPTQ_LOGITS);
    await model.close();
  });
});
