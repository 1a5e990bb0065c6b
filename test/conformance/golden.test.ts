import { readFileSync } from "node:fs";
import { afterAll, describe, it } from "vitest";
import { createReferenceEngine } from "../../src/engine/reference/index.js";
import type { F32, I32, Tensor } from "../../src/tensor/index.js";
import { GOLDEN } from "../tolerances.js";
import { collect } from "./case.js";
import { expectClose } from "./compare.js";

// The reference against torch, transformers, numpy and scikit-learn (golden/make.py).

interface Plain {
  shape: number[];
  data: number[];
}
type Table<Key extends string> = Record<Key, Plain>;
interface Numbers {
  factors: Table<"a" | "cholesky" | "inverse">;
  products: Table<"a" | "b" | "c" | "w" | "matmul" | "gram">;
  attention: (Table<"q" | "k" | "v" | "out"> & { keyLength: number; window: number | null; scale: number })[];
  decoder: Table<
    | "x"
    | "weight"
    | "rmsNorm"
    | "gate"
    | "up"
    | "siluMultiply"
    | "logits"
    | "reference"
    | "targets"
    | "crossEntropy"
    | "klDivergence"
    | "heads"
    | "cos"
    | "sin"
    | "rope"
  > & { start: number };
  codebook: Table<"vectors" | "centroids" | "nearest">;
  affine: (Table<"weights" | "scale" | "zero" | "codes" | "quantized"> & { bits: number; symmetric: boolean })[];
}

const numbers: Numbers = JSON.parse(readFileSync(new URL("golden/numbers.json", import.meta.url), "utf8"));

describe("the reference engine agrees with", () => {
  const engine = createReferenceEngine();
  afterAll(() => engine.close());
  const real = ({ data, shape }: Plain): F32 => engine.upload(Float32Array.from(data), shape, "f32");
  const ids = ({ data, shape }: Plain): I32 => engine.upload(Int32Array.from(data), shape, "i32");

  const close = async (value: F32 | Promise<F32>, { data, shape }: Plain) => {
    const [output] = await collect(engine, await value);
    expectClose(output, { ...output, shape, data }, GOLDEN, "golden");
  };
  const equal = async (value: Tensor, { data, shape }: Plain) => {
    const [output] = await collect(engine, value);
    const exact = output.dtype === "f32" ? [...Float32Array.from(data)] : data;
    expectClose(output, { ...output, shape, data: exact }, undefined, "golden");
  };

  it("numpy on Cholesky, the triangular inverse, products and Gram matrices", async () => {
    const { factors, products } = numbers;
    await close(engine.cholesky(real(factors.a)), factors.cholesky);
    await close(engine.triangularInverse(real(factors.cholesky)), factors.inverse);
    const accumulate = real(products.c);
    await close(engine.matmul(real(products.a), real(products.b), { alpha: 0.75, accumulate }), products.matmul);
    const sum = engine.create(products.gram.shape);
    engine.gram(sum, real(products.a), real(products.w));
    await close(sum, products.gram);
  });

  it("torch on attention", async () => {
    for (const { q, k, v, keyLength, window, scale, out } of numbers.attention)
      await close(engine.attention(real(q), real(k), real(v), { scale, keyLength, window: window ?? undefined }), out);
  });

  it("torch on norms, activations and losses, transformers on the rotary embedding", async () => {
    const { decoder } = numbers;
    await close(engine.rmsNorm(real(decoder.x), real(decoder.weight), 1e-3), decoder.rmsNorm);
    await close(engine.siluMultiply(real(decoder.gate), real(decoder.up)), decoder.siluMultiply);
    await close(engine.rope(real(decoder.heads), real(decoder.cos), real(decoder.sin), decoder.start), decoder.rope);
    await close(engine.crossEntropy(real(decoder.logits), ids(decoder.targets)), decoder.crossEntropy);
    await close(engine.klDivergence(real(decoder.reference), real(decoder.logits)), decoder.klDivergence);
  });

  it("scikit-learn on the nearest codeword", async () => {
    const { vectors, centroids, nearest } = numbers.codebook;
    await equal(engine.nearestCodeword(real(vectors), real(centroids)).indices, nearest);
  });

  it("torch on scales, zeros and codes, to the last bit", async () => {
    for (const { weights, scale, zero, codes, quantized, bits, symmetric } of numbers.affine) {
      const groupOfColumn = Int32Array.from({ length: weights.shape[0] }, (_, column) => Math.floor(column / 8));
      const options = { bits, symmetric, groupOfColumn, groups: 2 };
      const grid = engine.affineGrid(real(weights), options);
      await equal(grid.scale, scale);
      await equal(grid.zero, zero);
      const swept = engine.affineSweep(real(weights), undefined, options);
      await equal(swept.codes, codes);
      await equal(swept.quantized, quantized);
    }
  });
});
