import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { FACTOR } from "../../../test/tolerances.js";
import { onHost, wasmEngines } from "../../../test/wasm-engines.js";
import { createRandom } from "../../random.js";
import type { Engine } from "../engine.js";

const { engines, reference } = wasmEngines();

/** Gram matrix of 2n correlated rows, with NaN above the diagonal where nobody may look. */
function positiveDefinite(n: number): Float32Array {
  const random = createRandom(4, n);
  const x = Float64Array.from({ length: 2 * n * n }, () => random.normal());
  for (let t = 0; t < 2 * n; t++) for (let i = 1; i < n; i++) x[t * n + i] += 0.5 * x[t * n + i - 1];
  const a = new Float32Array(n * n).fill(Number.NaN);
  for (let i = 0; i < n; i++)
    for (let j = 0; j <= i; j++) {
      let sum = i === j ? 0.02 * n : 0;
      for (let t = 0; t < 2 * n; t++) sum += x[t * n + i] * x[t * n + j];
      a[i * n + j] = sum / n;
    }
  return a;
}

const factor = (engine: Engine, a: Float32Array) =>
  onHost(engine, async () => {
    const n = Math.sqrt(a.length);
    const cholesky = await engine.cholesky(engine.upload(a, [n, n], "f32"));
    return { cholesky, inverse: engine.triangularInverse(cholesky) };
  });

function expectClose(actual: number[], expected: number[]): void {
  const allowed = (FACTOR.ofLargest as number) * Math.max(0, ...expected.map(Math.abs));
  expect(actual.length).toBe(expected.length);
  for (const [i, value] of expected.entries()) expect(Math.abs(actual[i] - value)).toBeLessThanOrEqual(allowed);
}

describe("cholesky and triangularInverse", () => {
  for (const n of [0, 1, 2, 3, 5, 63, 64, 65, 127, 130, 197])
    it(`${n}: the reference's numbers with the same order of f64 sums`, async () => {
      const a = positiveDefinite(n);
      const expected = await factor(reference, a);
      for (const engine of engines) expect(await factor(engine, a)).toEqual(expected);
    });

  it("agree with numpy", async () => {
    interface Golden {
      n: number;
      matrix: number[];
      cholesky: number[];
      inverse: number[];
    }
    const path = new URL("../../../test/golden/factor/factor.json", import.meta.url);
    const cases: Golden[] = JSON.parse(readFileSync(path, "utf8"));
    expect(cases.length).toBeGreaterThan(0);
    for (const { matrix, cholesky, inverse } of cases)
      for (const engine of [reference, ...engines]) {
        const actual = await factor(engine, Float32Array.from(matrix));
        expectClose(actual.cholesky, cholesky);
        expectClose(actual.inverse, inverse);
      }
  });

  it("name the pivot that is not positive", async () => {
    for (const [n, pivot] of [
      [3, 0],
      [3, 2],
      [150, 64],
      [150, 149],
    ]) {
      const a = positiveDefinite(n);
      a[pivot * n + pivot] = -1;
      for (const engine of [reference, ...engines]) {
        await expect(factor(engine, a)).rejects.toMatchObject({
          kind: "numeric",
          message: expect.stringMatching(new RegExp(`got -[0-9.]+ at pivot ${pivot} of ${n}$`)),
        });
        expect(engine.liveBytes()).toBe(0);
      }
      a[pivot * n + pivot] = Number.NaN;
      for (const engine of [reference, ...engines])
        await expect(factor(engine, a)).rejects.toThrow(`got NaN at pivot ${pivot} of ${n}`);
    }
  });

  it("refuse a diagonal with a 0", () => {
    for (const engine of engines)
      engine.scope(() => {
        const lower = engine.upload(Float32Array.of(1, 0, 5, 0), [2, 2], "f32");
        expect(() => engine.triangularInverse(lower)).toThrow(/diagonal element 1 of 2 is 0/);
      });
  });
});
