import { expect, it } from "vitest";
import { EXP_RELATIVE } from "../../../test/tolerances.js";
import { enableRelaxedSimd } from "../../node/engines.js";
import { createWasmEngine } from "./engine.js";

// silu(x) = x / (1 + exp(-x)) is x exp(x) far below 0, so its relative error there is that of the kernels' exp.
it("computes exp to f32 accuracy over its whole range", async () => {
  enableRelaxedSimd();
  for (const reproducible of [true, false]) {
    const engine = await createWasmEngine({ reproducible });
    const gates = Float32Array.from({ length: 200_001 }, (_, i) => -86.5 + i * 8.6e-4);
    const gate = engine.upload(gates, [gates.length], "f32");
    const one = engine.upload(new Float32Array(gates.length).fill(1), [gates.length], "f32");
    const values = await engine.read(engine.siluMultiply(gate, one));
    let worst = 0;
    for (const [i, x] of gates.entries()) {
      const expected = x / (1 + Math.exp(-x));
      worst = Math.max(worst, x === 0 ? 0 : Math.abs(values[i] - expected) / Math.abs(expected));
    }
    expect(worst).toBeLessThan(EXP_RELATIVE);
    const edges = engine.upload(Float32Array.of(-1000, -100, -87.5, 0, 100, 1000), [6], "f32");
    const ones = engine.upload(new Float32Array(6).fill(1), [6], "f32");
    const [a, b, c, ...rest] = await engine.read(engine.siluMultiply(edges, ones));
    for (const tiny of [a, b, c]) expect(Math.abs(tiny)).toBeLessThan(1e-35);
    expect(rest).toEqual([0, 100, 1000]);
    const notNumbers = engine.upload(Float32Array.of(Number.NaN), [1], "f32");
    expect(await engine.read(engine.siluMultiply(notNumbers, engine.view(ones, [1])))).toEqual(
      Float32Array.of(Number.NaN),
    );
    await engine.close();
  }
});
