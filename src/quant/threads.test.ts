import { describe, expect, it } from "vitest";
import { fingerprint } from "../../test/records.js";
import { syntheticLinear } from "../../test/synthetic.js";
import { wasmEngines } from "../../test/wasm-engines.js";
import type { Engine } from "../engine/engine.js";
import { quantizeGptq } from "./gptq.js";
import { quantizeVptq } from "./vptq/vptq.js";

const { engines, reference } = wasmEngines();

describe("on the wasm engine", () => {
  const context = (engine: Engine) => ({ engine, seed: 1, name: "a.linear" });
  const methods = {
    vptq: async (engine: Engine) => {
      const { weight, statistics } = syntheticLinear(engine, 160, 96);
      const scheme = {
        vectorLength: 4,
        codebook: 64,
        residuals: [16],
        groups: 1,
        norm: "column",
        refine: 1,
        beam: 4,
        asymmetric: 0,
        iterations: 40,
        damping: 0.01,
      } as const;
      return quantizeVptq(weight, statistics, { ...scheme, residuals: [...scheme.residuals] }, context(engine));
    },
    gptq: async (engine: Engine) => {
      const { weight, statistics } = syntheticLinear(engine, 160, 96);
      const scheme = { bits: 3, group: 32, symmetric: false, actOrder: true, asymmetric: 0, damping: 0.01 } as const;
      return quantizeGptq(weight, statistics, scheme, context(engine));
    },
  };

  it.each(["vptq", "gptq"] as const)("%s gives the same bytes with any number of threads", async (method) => {
    const results = [];
    for (const engine of engines) results.push(await engine.scope(() => methods[method](engine)));
    const [first, ...others] = results.map(({ record }) => fingerprint(record));
    for (const other of others) expect(other).toEqual(first);
    for (const engine of engines) expect(engine.liveBytes()).toBe(0);
    // rounding differs from the reference's, so codes may; the error may not
    const expected = await reference.scope(() => methods[method](reference));
    expect(results[0].metrics.proxyError / expected.metrics.proxyError).toBeGreaterThan(0.97);
    expect(results[0].metrics.proxyError / expected.metrics.proxyError).toBeLessThan(1.03);
  });
});
