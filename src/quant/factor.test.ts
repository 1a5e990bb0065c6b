import { describe, expect, it } from "vitest";
import { syntheticLinear } from "../../test/synthetic.js";
import { INVERSE_RESIDUAL } from "../../test/tolerances.js";
import { createReferenceEngine } from "../engine/reference/index.js";
import { dampedFactor, feedbackOf, inverseFactor } from "./factor.js";
import { descendingOrder, identityOrder, permuteBoth, permuteSymmetric } from "./permute.js";

const engine = createReferenceEngine();
const N = 37;

const hessianOf = (seed = 0) => syntheticLinear(engine, 1, N, seed).statistics.hessian;

describe("inverseFactor", () => {
  it("gives an upper triangular U with U^T U H = 1", async () => {
    await engine.scope(async () => {
      const hessian = hessianOf();
      const factor = await inverseFactor(engine, hessian);
      const values = await engine.read(factor);
      const product = await engine.read(engine.matmul(engine.matmul(factor, factor, { transposeA: true }), hessian));
      for (let i = 0; i < N; i++) {
        for (let j = 0; j < N; j++) {
          expect(Math.abs(product[i * N + j] - (i === j ? 1 : 0))).toBeLessThan(INVERSE_RESIDUAL);
          if (j < i) expect(values[i * N + j]).toBe(0);
        }
      }
    });
  });

  it("is the Cholesky factor of the inverse, and not that of another order put into this one", async () => {
    await engine.scope(async () => {
      const hessian = hessianOf();
      const order = descendingOrder(await engine.read(engine.diagonal(hessian)));
      const inOrder = await engine.read(await inverseFactor(engine, permuteSymmetric(engine, hessian, order)));
      const reindexed = await engine.read(permuteBoth(engine, await inverseFactor(engine, hessian), order));
      const below = (values: Float32Array) =>
        values.reduce((sum, value, at) => sum + (at % N < Math.floor(at / N) ? Math.abs(value) : 0), 0);
      expect(below(inOrder)).toBe(0);
      expect(below(reindexed)).toBeGreaterThan(0.1); // no longer triangular: error would flow back into finished columns
    });
  });

  it("gives feedback with a unit diagonal", async () => {
    await engine.scope(async () => {
      const feedback = await feedbackOf(engine, await inverseFactor(engine, hessianOf()));
      for (const value of await engine.read(engine.diagonal(feedback))) expect(Math.abs(value - 1)).toBeLessThan(2e-7);
    });
  });
});

describe("dampedFactor", () => {
  it("adds what it was asked for when that is enough", async () => {
    await engine.scope(async () => {
      const hessian = hessianOf();
      const before = await engine.read(engine.diagonal(hessian));
      const mean = before.reduce((sum, value) => sum + value, 0) / N;
      const order = descendingOrder(before);
      const damped = await dampedFactor(engine, hessian, order, 0.01, "a.linear");
      expect(damped.damping).toBe(0.01);
      const after = await engine.read(engine.diagonal(damped.hessian));
      for (let i = 0; i < N; i++) expect(after[i] / (before[order[i]] + 0.01 * mean)).toBeCloseTo(1, 5);
    });
  });

  it("raises the damping tenfold until the Hessian can be factored, and says by how much", async () => {
    await engine.scope(async () => {
      // the rank is 1, and rounding makes it indefinite: a speck of damping is not enough
      const values = Float32Array.from({ length: N * N }, (_, at) => (1 + (at % N)) * (1 + Math.floor(at / N)));
      values[1] -= 3;
      values[N] -= 3;
      const hessian = engine.upload(values, [N, N], "f32");
      const { damping } = await dampedFactor(engine, hessian, identityOrder(N), 1e-6, "a.linear");
      expect(damping).toBeGreaterThan(1e-6);
      expect(Math.abs(Math.log10(damping) % 1)).toBeLessThan(1e-9);
    });
  });

  it("gives up with the linear's name when no damping helps", async () => {
    const values = new Float32Array(N * N).fill(-1);
    for (let i = 0; i < N; i++) values[i * N + i] = -50;
    const hessian = engine.upload(values, [N, N], "f32");
    await expect(dampedFactor(engine, hessian, identityOrder(N), 0.01, "a.linear")).rejects.toMatchObject({
      kind: "numeric",
      message: expect.stringContaining("a.linear"),
    });
  });

  it("factors a Hessian of inputs that were never active", async () => {
    await engine.scope(async () => {
      const { factor } = await dampedFactor(engine, engine.create([N, N]), identityOrder(N), 0.01, "a.linear");
      expect(await engine.allFinite(factor)).toBe(true);
    });
  });

  it("leaves nothing behind", async () => {
    const own = createReferenceEngine();
    await own.scope(async () => {
      const { statistics } = syntheticLinear(own, 1, N);
      const before = own.liveBytes();
      await own.scope(async () => {
        await dampedFactor(own, statistics.hessian, identityOrder(N), 0.01, "a.linear");
      });
      expect(own.liveBytes()).toBe(before);
    });
    expect(own.liveBytes()).toBe(0);
  });
});
