import { afterAll, describe, expect, it } from "vitest";
import { testGpu } from "../../../test/webgpu-adapter.js";
import { createRandom } from "../../random.js";
import { DeviceMemory } from "../device/memory.js";
import type { Engine } from "../engine.js";
import { createReferenceEngine } from "../reference/index.js";
import { openDevice } from "./adapter.js";
import { WebgpuDevice } from "./device.js";
import { KERNEL_FILES } from "./kernels.generated.js";
import { manyNearestOperations } from "./nearest.js";

// The search for very many vectors, at sizes that an adapter in software can do: what the specification gives, to the bit.

interface Case {
  count: number;
  length: number;
  codewords: number;
  /** Of numbers: whole ones give ties, equal codewords too. */
  draw: (normal: number) => number;
}
const CASES: Record<string, Case> = {
  plain: { count: 4500, length: 8, codewords: 700, draw: (x) => x },
  "short vectors": { count: 2500, length: 3, codewords: 130, draw: (x) => x },
  "ties everywhere": { count: 2100, length: 4, codewords: 300, draw: (x) => Math.round(x) },
  "large and close": { count: 2100, length: 6, codewords: 257, draw: (x) => 1000 + x * 2 ** -6 },
  "one codeword": { count: 300, length: 8, codewords: 1, draw: (x) => x },
  "out of range": { count: 700, length: 8, codewords: 150, draw: (x) => (x > 2 ? 1e25 : x < -2 ? Number.NaN : x) },
};

const found = await testGpu();
const opened = "gpu" in found ? await openDevice(found.gpu) : found;

describe.skipIf(!("open" in opened))("the search with many vectors a thread", () => {
  if (!("open" in opened)) return;
  const memory = new DeviceMemory(new WebgpuDevice(opened.open, KERNEL_FILES));
  const reference = createReferenceEngine();
  afterAll(() => memory.close());

  const { nearestCodeword } = manyNearestOperations(memory, 1);
  for (const [title, { count, length, codewords, draw }] of Object.entries(CASES))
    it(title, async () => {
      const random = createRandom(4, title);
      const drawn = (size: number) => Float32Array.from({ length: size }, () => draw(random.normal()));
      const [vectors, codebook] = [drawn(count * length), drawn(codewords * length)];
      const search = async (on: Pick<Engine, "upload" | "read">, nearest: Engine["nearestCodeword"]) => {
        const result = nearest(
          on.upload(vectors, [count, length], "f32"),
          on.upload(codebook, [codewords, length], "f32"),
        );
        return { indices: await on.read(result.indices), distances: await on.read(result.distances) };
      };
      const got = await memory.scope(() => search(memory, nearestCodeword));
      const want = await reference.scope(() => search(reference, (v, c) => reference.nearestCodeword(v, c)));
      expect(got).toEqual(want);
    });
});
