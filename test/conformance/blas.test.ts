import { afterEach, describe, expect, it, vi } from "vitest";
import { createBlasEngine } from "../../src/engine/blas/index.js";
import { findBlas } from "../../src/engine/blas/library.js";
import { createEngine } from "../../src/node/engines.js";
import { nodeWorkers } from "../../src/node/threads.js";
import { conformance } from "./suite.js";

const found = await findBlas(2);

async function makeBlas() {
  const made = await createBlasEngine({ threads: 2, spawnWorker: nodeWorkers() });
  if ("reason" in made) throw new Error(made.reason);
  return made.engine;
}

if ("library" in found) {
  conformance(found.library.description, makeBlas);

  describe("the machine's library", () => {
    it("is named", async () => {
      const engine = await makeBlas();
      expect(engine.name).toBe("blas");
      expect(engine.description).toMatch(/(OpenBLAS|MKL|Accelerate|BLAS).*WebAssembly/);
      expect(engine.arithmetic).toMatch(/^blas \S+/);
      await engine.close();
    });

    it("takes large products and leaves small ones to the kernels", () => {
      const product = { a: 0, b: 0, c: 0, transposeA: false, transposeB: false, alpha: 1, accumulate: false };
      const memory = new SharedArrayBuffer(4 * 64 * 64);
      const values = new Float32Array(memory).fill(2);
      const { multiply } = found.library;
      expect(multiply({ ...product, m: 1, n: 64, k: 64 }, memory)).toBe(false);
      expect(multiply({ ...product, m: 8, n: 8, k: 8 }, memory)).toBe(false);
      expect(values.every((value) => value === 2)).toBe(true);
      const [n, bytes] = [64, 4 * 64 * 64];
      const large = new SharedArrayBuffer(3 * bytes);
      new Float32Array(large).fill(3);
      expect(multiply({ ...product, b: bytes, c: 2 * bytes, m: n, n, k: n }, large)).toBe(true);
      expect(new Float32Array(large, 2 * bytes).every((value) => value === 9 * 64)).toBe(true);
    });

    it("is what auto chooses", async () => {
      const { engine, reason } = await createEngine("auto", { threads: 1 });
      expect(engine.name).toBe("blas");
      expect(reason).toMatch(/found/);
      await engine.close();
    });
  });
} else {
  describe("without a library", () => {
    it("says what is missing and how to get it", () => {
      expect(found.reason).toMatch(/koffi|install|BITWRIGHT_BLAS/);
    });

    it("is not what auto chooses", async () => {
      const { engine, reason } = await createEngine("auto", { threads: 1 });
      expect(engine.name).toBe("wasm");
      expect(reason).toBe(found.reason);
      await engine.close();
    });
  });
}

describe("a library that does not load", () => {
  afterEach(() => vi.unstubAllEnvs());

  it("is a reason, not a crash", async () => {
    vi.stubEnv("BITWRIGHT_BLAS", "no-such-library.so");
    const made = await createBlasEngine({ threads: 1 });
    expect("reason" in made && made.reason).toMatch(/koffi|BITWRIGHT_BLAS=no-such-library\.so does not load/);
    const { engine, reason } = await createEngine("auto", { threads: 1 });
    expect(engine.name).toBe("wasm");
    expect(reason).toMatch(/koffi|no-such-library/);
    await engine.close();
    await expect(createEngine("blas")).rejects.toThrow(/no blas engine/);
  });

  it("is not asked for by reproducible runs", async () => {
    const { engine } = await createEngine("auto", { threads: 1, reproducible: true });
    expect([engine.name, engine.arithmetic]).toEqual(["wasm", "wasm"]);
    await engine.close();
    await expect(createEngine("blas", { reproducible: true })).rejects.toThrow(/reproducible/);
  });
});
