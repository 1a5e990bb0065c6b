import { describe, expect, it } from "vitest";
import { refusal } from "../../test/checkpoints.js";
import type { Engine } from "../engine/engine.js";
import { createReferenceEngine } from "../engine/reference/index.js";
import { bytesOf } from "../files/dtypes.js";
import { memoryOutput, memorySource } from "../files/memory.js";
import { openSafetensors } from "../files/safetensors.js";
import { writeSafetensors } from "../files/safetensors-writer.js";
import { f32ToBF16, f32ToF16 } from "../tensor/index.js";
import { loadWeight, plainWeights } from "./weights.js";

const host = createReferenceEngine();
/** As if its memory were its own. */
const card: Engine = Object.assign(createReferenceEngine(), { roomBytes: () => 2 ** 30 });

const stored = { f32: (values: Float32Array) => values, f16: f32ToF16, bf16: f32ToBF16 };
type Stored = keyof typeof stored;

async function weightsOf(dtype: Stored, values: Float32Array, shape: number[]) {
  const output = memoryOutput();
  const bytes = bytesOf(stored[dtype](values));
  const tensor = { name: "model.x.weight", dtype, shape, read: async () => bytes };
  await writeSafetensors(await output.create("model.safetensors"), [tensor]);
  await output.commit();
  const file = output.files.get("model.safetensors") ?? expect.unreachable();
  return plainWeights(await openSafetensors(memorySource("model", file)));
}

describe("loadWeight", () => {
  it.each(["f32", "f16", "bf16"] as const)("gives what is stored as %s, by either way", async (dtype) => {
    const values = Float32Array.from({ length: 15 }, (_, i) => (i - 7) / 4);
    const source = await weightsOf(dtype, values, [3, 5]);
    expect((await source.readHalf?.("model.x.weight", [3, 5]))?.dtype).toBe(dtype === "f32" ? undefined : dtype);
    for (const engine of [host, card]) {
      const before = engine.liveBytes();
      await engine.scope(async () => {
        const tensor = await loadWeight(engine, source, "model.x.weight", [3, 5]);
        expect([tensor.dtype, tensor.shape]).toEqual(["f32", [3, 5]]);
        expect(await engine.read(tensor)).toEqual(values);
        expect(engine.liveBytes() - before).toBe(4 * 15); // nothing else is left
      });
    }
  });

  it.each([
    [Number.NaN, "NaN"],
    [Number.NEGATIVE_INFINITY, "infinity"],
  ])("names the place of %d, wherever it is found", async (bad, what) => {
    for (const dtype of ["f32", "f16", "bf16"] as const) {
      const values = new Float32Array(15).fill(1);
      values[8] = bad;
      const source = await weightsOf(dtype, values, [3, 5]);
      for (const engine of [host, card]) {
        const error = await refusal(engine.scope(() => loadWeight(engine, source, "model.x.weight", [3, 5])));
        expect([error.kind, error.message]).toEqual(["numeric", `tensor model.x.weight holds ${what} at [1, 3]`]);
        expect(engine.liveBytes()).toBe(0);
      }
    }
  });

  it("refuses another shape and another name", async () => {
    const source = await weightsOf("bf16", new Float32Array(15), [3, 5]);
    for (const engine of [host, card]) {
      const load = (name: string, shape: number[]) =>
        refusal(engine.scope(() => loadWeight(engine, source, name, shape)));
      expect((await load("model.x.weight", [5, 3])).message).toMatch(/expected shape \[5, 3\]/);
      expect((await load("model.y.weight", [3, 5])).message).toMatch(/model.y.weight is missing from model/);
    }
  });
});
