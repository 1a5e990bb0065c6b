import { afterAll, describe, expect, it } from "vitest";
import { type FakeCuda, fakeCuda, type Launch, missingFakes } from "../../../test/fake-cuda/card.js";
import type { Engine, Precision } from "../engine.js";
import { createCudaEngine } from "./engine.js";

// Which kernels attention takes, on a card that only notes them; what they compute is for card.test.ts.

const made = await fakeCuda();

function tests(fake: FakeCuda): void {
  afterAll(fake.remove);

  async function withEngine(precision: Precision, body: (engine: Engine) => void): Promise<Launch[]> {
    fake.reset();
    const found = await createCudaEngine({ precision });
    if ("reason" in found) throw new Error(found.reason);
    const before = found.engine.liveBytes();
    found.engine.scope(() => body(found.engine));
    const launches = fake.launches();
    expect(found.engine.liveBytes()).toBe(before);
    await found.engine.close();
    return launches;
  }
  /** Attention and its gradients, of views of one tensor. */
  const attend = (precision: Precision, tokens: number, heads: number, keyHeads: number, size: number) =>
    withEngine(precision, (engine) => {
      const [queries, keys] = [tokens * heads * size, tokens * keyHeads * size];
      const all = engine.create([queries + 2 * keys]);
      const q = engine.view(all, [1, tokens, heads, size]);
      const k = engine.view(all, [1, tokens, keyHeads, size], queries);
      const v = engine.view(all, [1, tokens, keyHeads, size], queries + keys);
      const options = { scale: 0.1 };
      const output = engine.attention(q, k, v, options);
      engine.attentionGrad(q, k, v, output, output, options);
    });
  const names = (launches: Launch[]) => launches.map(({ kernel }) => kernel);
  const pointers = ({ arguments: view }: Launch, count: number) =>
    Array.from({ length: count }, (_, place) => view.getBigUint64(8 * place, true));

  it("in f16 they are those for tensor cores, and operands are converted once", async () => {
    const launches = await attend("f16", 100, 4, 4, 64);
    const grads = ["largestOfBoth", "halfGrads", "attendTensorGradQueries", "attendTensorGradKeys"];
    expect(names(launches)).toEqual(["halves", "halves", "halves", "attendTensor", ...grads]);
    const forward = launches[3];
    expect({ grid: forward.grid, block: forward.block }).toEqual({ grid: [2 * 4, 1, 1], block: [128, 1, 1] });
    const operands = pointers(forward, 3);
    expect(new Set(operands).size).toBe(3); // although they are views of one tensor
    expect(operands.every((address) => address % 16n === 0n)).toBe(true);
    expect(pointers(launches[6], 3)).toEqual(operands);
    expect(pointers(launches[7], 3)).toEqual(operands);
  });

  it("gradients of heads that share keys are added", async () => {
    const launches = await attend("f16", 65, 6, 2, 80);
    expect(names(launches).slice(-2)).toEqual(["attendTensorGradKeys", "sumHeads"]);
    expect(launches.at(-1)?.grid[0]).toBe((65 * 2 * 80 + 255) >> 8);
  });

  const plain: [string, Precision, number, number][] = [
    ["another precision", "tf32", 100, 64],
    ["few tokens", "f16", 16, 64],
    ["rows that are not of whole 16 bytes", "f16", 100, 68],
    ["heads that are too large", "f16", 100, 256],
  ];
  it.each(plain)("%s: those of f32", async (_, precision, tokens, size) => {
    const launched = names(await attend(precision, tokens, 2, 2, size));
    expect(launched).toEqual([tokens <= 16 ? "attendRows" : "attendTiles", "attendGradQueries", "attendGradKeys"]);
  });

  it("nothing runs for nothing", async () => {
    expect(names(await attend("f16", 0, 2, 2, 64))).toEqual([]);
  });
}

if ("fake" in made) describe("kernels of attention", () => tests(made.fake));
else
  it("says why there is no card to pretend", () => {
    expect(made.reason).toMatch(missingFakes);
    console.log(`The kernels of attention were not looked at without a card: ${made.reason}`);
  });
