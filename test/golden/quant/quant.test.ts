import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createReferenceEngine } from "../../../src/engine/reference/index.js";
import type { AffineScheme } from "../../../src/quant/affine-scheme.js";
import { dampedFactor, feedbackOf } from "../../../src/quant/factor.js";
import { quantizeGptq } from "../../../src/quant/gptq.js";
import { descendingOrder, identityOrder } from "../../../src/quant/permute.js";
import { prepareLinear } from "../../../src/quant/prepare.js";
import type { AffineRecord } from "../../../src/quant/record.js";
import { quantizeRtn } from "../../../src/quant/rtn.js";
import { accumulate, createStatistics, finishStatistics, shortfallOf } from "../../../src/quant/statistics.js";
import { kmeans } from "../../../src/quant/vptq/kmeans.js";
import { leastSquaresCentroids } from "../../../src/quant/vptq/least-squares.js";
import { createRandom } from "../../../src/random.js";
import { expectClose } from "../../conformance/compare.js";
import {
  CENTROIDS,
  CORRECTED,
  INVERSE_FACTOR,
  KMEANS_OBJECTIVE,
  LEAST_SQUARES,
  STATISTICS,
  type Tolerance,
} from "../../tolerances.js";
import { type Cases, openCases } from "./cases.js";

// What numpy and scikit-learn say (make.py), for the methods on the reference engine.

const engine = createReferenceEngine();
let cases: Cases;
beforeAll(async () => {
  cases = await openCases();
});
afterAll(() => engine.close());

const DAMPING = 0.01;

async function expectNear(actual: Float32Array, name: string, tolerance: Tolerance): Promise<void> {
  const as = (data: Float32Array) => ({ path: name, shape: [data.length], dtype: "f32" as const, data });
  expectClose(as(actual), as(await cases.f32(name)), tolerance, name);
}

describe("statistics", () => {
  it("are numpy's second moments", async () => {
    await engine.scope(async () => {
      const [inputs, full] = [await cases.upload(engine, "inputs"), await cases.upload(engine, "full")];
      const [tokens, columns] = inputs.shape;
      const accumulator = createStatistics(engine, columns, true);
      const first = 50 * columns;
      for (const [offset, count] of [
        [0, 50],
        [first, tokens - 50],
      ]) {
        const part = (tensor: typeof inputs) => engine.view(tensor, [1, count, columns], offset);
        const own = part(inputs);
        accumulate(engine, accumulator, own, shortfallOf(engine, own, part(full)));
      }
      const statistics = await finishStatistics(engine, accumulator, "test");
      expect(statistics.tokens).toBe(tokens);
      await expectNear(await engine.read(statistics.hessian), "hessian", STATISTICS);
      if (!statistics.correction) throw new Error("no correction");
      await expectNear(await engine.read(statistics.correction), "correction", STATISTICS);
    });
  });
});

describe("the factor of the inverse Hessian", () => {
  it("is numpy's upper Cholesky factor of the inverse", async () => {
    await engine.scope(async () => {
      const hessian = await cases.upload(engine, "hessian");
      const { factor } = await dampedFactor(engine, hessian, identityOrder(hessian.shape[0]), DAMPING, "test");
      await expectNear(await engine.read(factor), "factor", INVERSE_FACTOR);
    });
  });

  it("gives the asymmetric correction in any order of the columns", async () => {
    await engine.scope(async () => {
      const weight = await cases.upload(engine, "weight");
      const [rows, columns] = weight.shape;
      const statistics = {
        hessian: await cases.upload(engine, "hessian"),
        correction: await cases.upload(engine, "correction"),
        tokens: 1,
      };
      const options = { paddedRows: rows, damping: DAMPING, asymmetric: 0.5, order: descendingOrder };
      const prepared = await prepareLinear(weight, statistics, options, { engine, seed: 0, name: "test" });
      const swept = await engine.read(prepared.weights);
      const corrected = new Float32Array(rows * columns);
      for (let i = 0; i < columns; i++)
        for (let o = 0; o < rows; o++) corrected[o * columns + prepared.order[i]] = swept[i * rows + o];
      await expectNear(corrected, "corrected", CORRECTED);
    });
  });
});

describe("affine codes", async () => {
  const opened = await openCases();
  const names = opened.names.filter((name) => name.endsWith(".codes")).map((name) => name.slice(0, -".codes".length));

  it("has cases", () => {
    expect(names.length).toBe(36);
  });

  it.each(names)("%s", async (name) => {
    const [method, bits, group, symmetric] = name.split(".");
    const scheme: AffineScheme = {
      bits: Number(bits) as AffineScheme["bits"],
      group: Number(group),
      symmetric: symmetric === "symmetric",
      actOrder: method === "gptq-act",
      asymmetric: 0,
      damping: DAMPING,
    };
    await engine.scope(async () => {
      const weight = await cases.upload(engine, "weight");
      const hessian = await cases.upload(engine, "hessian");
      const quantize = method === "rtn" ? quantizeRtn : quantizeGptq;
      const { record } = await quantize(weight, { hessian, tokens: 1 }, scheme, { engine, seed: 0, name });
      await expectAffine(record as AffineRecord, name, await engine.read(hessian));
    });
  });

  /** Equal scales, zeros and codes; a row may part from Python's only at a value that lies between two codes. */
  async function expectAffine(record: AffineRecord, name: string, hessian: Float32Array): Promise<void> {
    const { rows, columns, codes } = record;
    const expected = await cases.u8(`${name}.codes`);
    const ties = new Set(await cases.i32(`${name}.ties`));
    const natural = identityOrder(columns);
    const order = name.startsWith("gptq-act")
      ? descendingOrder(Array.from(natural, (i) => hessian[i * columns + i]))
      : natural;
    let tiedRows = 0;
    for (let row = 0; row < rows; row++) {
      const parting = order.find((column) => codes[row * columns + column] !== expected[row * columns + column]);
      if (parting === undefined) continue;
      tiedRows++;
      expect(ties, `row ${row} parts at column ${parting}`).toContain(row * columns + parting);
    }
    expect(tiedRows).toBeLessThanOrEqual(1);
    if (tiedRows > 0) return;
    expect(record.scale).toEqual(await cases.f32(`${name}.scale`));
    expect(record.zero).toEqual(await cases.u8(`${name}.zero`));
  }
});

describe("the column sweep of VPTQ", () => {
  it("chooses Python's codewords, and their least-squares centroids are numpy's", async () => {
    await engine.scope(async () => {
      const weight = await cases.upload(engine, "weight");
      const hessian = await cases.upload(engine, "hessian");
      const book = await cases.upload(engine, "sweep.codebook");
      const order = await cases.i32("sweep.order");
      const [rows, columns] = weight.shape;
      const options = { paddedRows: rows, damping: DAMPING, asymmetric: 0, order: descendingOrder };
      const prepared = await prepareLinear(weight, { hessian, tokens: 1 }, options, { engine, seed: 0, name: "test" });
      expect(prepared.order).toEqual(order);
      const segments = [{ begin: 0, end: columns, stages: [book] }];
      const sweep = engine.vectorSweep(prepared.weights, await feedbackOf(engine, prepared.factor), segments);
      const swept = await engine.read(sweep.indices[0][0]);
      const vectors = rows / book.shape[1];
      const indices = new Int32Array(swept.length);
      for (let i = 0; i < columns; i++)
        for (let j = 0; j < vectors; j++) indices[j * columns + order[i]] = swept[i * vectors + j];
      expect(indices).toEqual(await cases.i32("sweep.indices"));

      const problem = { weights: prepared.weights, hessian: prepared.hessian };
      const codes = { segments, indices: sweep.indices };
      const [fitted] = await leastSquaresCentroids(engine, problem, codes, { iterations: 200, tolerance: 1e-12 });
      await expectNear(await engine.read(fitted.stages[0]), "sweep.leastSquares", LEAST_SQUARES);
    });
  });
});

describe("weighted k-means", () => {
  it("ends where scikit-learn's Lloyd ends from the same start", async () => {
    await engine.scope(async () => {
      const points = await cases.upload(engine, "kmeans.points");
      const weights = await cases.upload(engine, "kmeans.weights");
      const initial = await cases.upload(engine, "kmeans.start");
      const options = { iterations: 1000, tolerance: 0, initial, random: createRandom(0) };
      const result = await kmeans(engine, points, weights, initial.shape[0], options);
      const [objective] = await cases.f32("kmeans.objective");
      expect(Math.abs(result.objective / objective - 1)).toBeLessThan(KMEANS_OBJECTIVE);
      await expectNear(await engine.read(result.centroids), "kmeans.centroids", CENTROIDS);
    });
  });
});
