import { describe, expect, it } from "vitest";
import { createCudaEngine } from "../../src/engine/cuda/engine.js";
import { conformance, sameBits } from "./suite.js";

async function make() {
  const made = await createCudaEngine();
  if ("reason" in made) throw new Error(made.reason);
  return made.engine;
}

const found = await createCudaEngine();

if ("engine" in found) {
  await found.engine.close();
  console.log(`CUDA: ${found.engine.description}`);
  conformance("cuda", make);
  sameBits("cuda: two runs give the same bits", make, make);
  describe("a card that is not there", () => {
    it("is refused by its number", async () => {
      await expect(createCudaEngine({ device: 999 })).rejects.toMatchObject({
        kind: "usage",
        message: expect.stringMatching(/expected a card from 0 to \d+, got 999/),
      });
    });
  });
} else
  it("says what is missing where there is no card", () => {
    expect(found.reason).toMatch(/NVIDIA|koffi|CUDA|libnvrtc|libcublas/);
    console.log(`CUDA was not tested: ${found.reason}`);
  });
