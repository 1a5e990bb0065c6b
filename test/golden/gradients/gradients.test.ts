import { readFileSync } from "node:fs";
import { describe, it } from "vitest";
import type { Engine } from "../../../src/engine/engine.js";
import type { F32 } from "../../../src/tensor/index.js";
import { collect } from "../../conformance/case.js";
import { expectClose } from "../../conformance/compare.js";
import { ADAMW, ATTENTION_GRAD, GRADIENT_GOLDEN, NORM_GRAD, type Tolerance } from "../../tolerances.js";
import { wasmEngines } from "../../wasm-engines.js";

// Operations of training and their gradients against torch (make.py), on the reference and on the wasm engines.

interface Plain {
  shape: number[];
  data: number[];
}
interface Derived<Name extends string> {
  inputs: Record<Name, Plain>;
  output: Plain;
  grad: Plain;
  gradients: Record<Name, Plain>;
}
interface Numbers {
  attention: (Derived<"q" | "k" | "v"> & { scale: number; window: number | null; slopes: Plain | null })[];
  layerNorm: Derived<"x" | "weight" | "bias">;
  rmsNorm: Derived<"x" | "weight">;
  gelu: Derived<"input">;
  siluMultiply: Derived<"gate" | "up">;
  adamw: {
    options: { rate: number; beta1: number; beta2: number; epsilon: number; decay: number };
    start: Plain;
    gradients: Plain[];
    trained: Plain[];
    first: Plain;
    second: Plain;
  };
}

const numbers: Numbers = JSON.parse(readFileSync(new URL("gradients.json", import.meta.url), "utf8"));

describe("agree with torch", () => {
  const { engines, reference } = wasmEngines();

  /** Runs `body` on every engine; its `close` compares at the reference's tolerance, or the given one where f32 computes. */
  async function onEach(
    tolerance: Tolerance,
    body: (
      engine: Engine,
      real: (plain: Plain) => F32,
      close: (value: F32, expected: Plain) => Promise<void>,
    ) => Promise<void>,
  ): Promise<void> {
    for (const engine of [reference, ...engines])
      await engine.scope(() =>
        body(
          engine,
          ({ data, shape }) => engine.upload(Float32Array.from(data), shape, "f32"),
          async (value, { shape, data }) => {
            const [output] = await collect(engine, value);
            const allowed = engine === reference ? GRADIENT_GOLDEN : tolerance;
            expectClose(output, { ...output, shape, data }, allowed, engine.description);
          },
        ),
      );
  }

  it("attention and its gradient: grouped heads, windows, slopes", () =>
    onEach(ATTENTION_GRAD, async (engine, real, close) => {
      for (const { inputs, output, grad, gradients, scale, window, slopes } of numbers.attention) {
        const [q, k, v] = [inputs.q, inputs.k, inputs.v].map(real);
        const options = { scale, window: window ?? undefined, slopes: slopes ? real(slopes) : undefined };
        const result = engine.attention(q, k, v, options);
        await close(result, output);
        const found = engine.attentionGrad(q, k, v, result, real(grad), options);
        for (const name of ["q", "k", "v"] as const) await close(found[name] as F32, gradients[name]);
      }
    }));

  it("norms and their gradients", () =>
    onEach(NORM_GRAD, async (engine, real, close) => {
      const { layerNorm, rmsNorm } = numbers;
      {
        const { inputs, output, grad, gradients } = layerNorm;
        const [x, weight, bias] = [inputs.x, inputs.weight, inputs.bias].map(real);
        await close(engine.layerNorm(x, weight, bias, 1e-3), output);
        const found = engine.layerNormGrad(x, weight, 1e-3, real(grad));
        for (const name of ["x", "weight", "bias"] as const) await close(found[name] as F32, gradients[name]);
      }
      const { inputs, grad, gradients } = rmsNorm;
      const found = engine.rmsNormGrad(real(inputs.x), real(inputs.weight), 1e-3, real(grad));
      for (const name of ["x", "weight"] as const) await close(found[name] as F32, gradients[name]);
    }));

  it("activations and their gradients", () =>
    onEach(NORM_GRAD, async (engine, real, close) => {
      const { gelu, siluMultiply } = numbers;
      await close(engine.gelu(real(gelu.inputs.input)), gelu.output);
      await close(engine.geluGrad(real(gelu.inputs.input), real(gelu.grad)), gelu.gradients.input);
      const { inputs, grad, gradients } = siluMultiply;
      const found = engine.siluMultiplyGrad(real(inputs.gate), real(inputs.up), real(grad));
      for (const name of ["gate", "up"] as const) await close(found[name], gradients[name]);
    }));

  it("three steps of AdamW", () =>
    onEach(ADAMW, async (engine, real, close) => {
      const { options, start, gradients, trained, first, second } = numbers.adamw;
      const [parameter, m, v] = [real(start), engine.create(start.shape), engine.create(start.shape)];
      for (const [index, gradient] of gradients.entries()) {
        engine.adamwStep(parameter, real(gradient), m, v, { ...options, step: index + 1 });
        await close(parameter, trained[index]);
      }
      await close(m, first);
      await close(v, second);
    }));
});
