import { describe, expect, it } from "vitest";
import { syntheticLinear } from "../../../test/synthetic.js";
import { NOT_RAISED } from "../../../test/tolerances.js";
import type { CodebookSegment } from "../../engine/engine.js";
import { createReferenceEngine } from "../../engine/reference/index.js";
import { createRandom } from "../../random.js";
import { proxyLoss } from "../proxy.js";
import { type Codes, decodeCodes } from "./codes.js";
import { leastSquaresCentroids } from "./least-squares.js";

const engine = createReferenceEngine();
const [I, P] = [20, 24];

/** A problem, and codes at random: two segments, the second with two stages. */
function setting() {
  const random = createRandom(11);
  const normal = (shape: number[]) =>
    engine.upload(
      Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => random.normal()),
      shape,
      "f32",
    );
  const choose = (columns: number, vectors: number, codewords: number) =>
    engine.upload(
      Int32Array.from({ length: columns * vectors }, () => random.integer(codewords)),
      [columns, vectors],
      "i32",
    );
  const segments: CodebookSegment[] = [
    { begin: 0, end: 5, stages: [normal([4, 2])] },
    { begin: 5, end: I, stages: [normal([8, 3]), normal([4, 3])] },
  ];
  const codes: Codes = {
    segments,
    indices: [[choose(5, P / 2, 4)], [choose(15, P / 3, 8), choose(15, P / 3, 4)]],
  };
  const rowWeights = engine.upload(
    Float32Array.from({ length: P }, (_, row) => (row >= P - 2 ? 0 : 0.5 + row / P)),
    [P],
    "f32",
  );
  const { hessian } = syntheticLinear(engine, 1, I).statistics;
  return { problem: { weights: normal([I, P]), hessian, rowWeights }, codes, normal };
}

describe("leastSquaresCentroids", () => {
  it("finds a minimum of the weighted loss: no step from it helps", async () => {
    await engine.scope(async () => {
      const { problem, codes, normal } = setting();
      const loss = ({ segments }: Pick<Codes, "segments">) => {
        const decoded = decodeCodes(engine, { segments, indices: codes.indices }, I, P);
        return proxyLoss(engine, problem.weights, decoded, problem.hessian, problem.rowWeights);
      };
      const segments = await leastSquaresCentroids(engine, problem, codes, { iterations: 300, tolerance: 1e-14 });
      const least = await loss({ segments });
      expect(least).toBeLessThan(0.9 * (await loss(codes)));
      for (let trial = 0; trial < 20; trial++) {
        const moved = segments.map((segment) => ({
          ...segment,
          stages: segment.stages.map((book) => engine.add(book, engine.scale(normal([...book.shape]), 1e-3))),
        }));
        expect(await loss({ segments: moved })).toBeGreaterThanOrEqual(least * (1 - NOT_RAISED));
      }
    });
  });

  it("restores the codebook of exactly decoded weights, and leaves codewords alone that nobody chose", async () => {
    await engine.scope(async () => {
      const { problem, codes, normal } = setting();
      const [first] = codes.segments;
      const unchosen = engine.upload(new Int32Array(5 * (P / 2)).fill(1), [5, P / 2], "i32");
      const truth: Codes = {
        segments: [{ ...first, end: 5 }],
        indices: [[unchosen]],
      };
      const hessian = engine.create([5, 5]);
      engine.addDiagonal(hessian, 2);
      const weights = decodeCodes(engine, truth, 5, P);
      const book = normal([4, 2]);
      const start: Codes = { segments: [{ ...first, stages: [book] }], indices: truth.indices };
      const [fitted] = await leastSquaresCentroids(engine, { weights, hessian }, start);
      const values = await engine.read(fitted.stages[0]);
      const [wanted, before] = [await engine.read(first.stages[0]), await engine.read(book)];
      for (let at = 0; at < 8; at++) expect(values[at]).toBeCloseTo(at === 2 || at === 3 ? wanted[at] : before[at], 5);
      expect(problem.weights.disposed).toBe(false);
    });
  });

  it("never raises the loss, however early it stops", async () => {
    await engine.scope(async () => {
      const { problem, codes } = setting();
      let last = Number.POSITIVE_INFINITY;
      for (let iterations = 0; iterations < 12; iterations++) {
        const segments = await leastSquaresCentroids(engine, problem, codes, { iterations, tolerance: 0 });
        const decoded = decodeCodes(engine, { segments, indices: codes.indices }, I, P);
        const loss = await proxyLoss(engine, problem.weights, decoded, problem.hessian, problem.rowWeights);
        expect(loss).toBeLessThanOrEqual(last * (1 + NOT_RAISED));
        last = loss;
      }
    });
  });
});
