import { beforeEach, describe, expect, it } from "vitest";
import type { AdamwOptions, AffineGridOptions, Engine, GroupGridOptions } from "../../src/engine/engine.js";
import { BitwrightError } from "../../src/errors.js";
import type { DType, F32, I32, Tensor } from "../../src/tensor/index.js";
import { collect } from "./case.js";

type Attempt = (engine: Engine, make: Maker) => unknown;

interface Maker {
  /** Zeros. */
  (...shape: number[]): F32;
  ids(...values: number[]): I32;
  of(dtype: DType, ...shape: number[]): Tensor;
}

const grid = (more: Partial<AffineGridOptions> = {}): AffineGridOptions => ({
  bits: 4,
  symmetric: false,
  groupOfColumn: Int32Array.of(0, 0, 1),
  groups: 2,
  ...more,
});

const groups = (more: Partial<GroupGridOptions> = {}): GroupGridOptions => ({
  bits: 4,
  group: 2,
  symmetric: false,
  ...more,
});

const adam = (more: Partial<AdamwOptions> = {}): AdamwOptions => ({
  ...{ rate: 0.1, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, decay: 0, step: 1 },
  ...more,
});

/** What must be refused with kind "usage", by operation. */
const MISUSES: Partial<Record<keyof Engine, Attempt[]>> = {
  create: [
    (e) => e.create([2, -1]),
    (e) => e.create([1.5]),
    (e) => e.create([Number.NaN]),
    (e) => e.create([2 ** 30, 2 ** 30]),
  ],
  upload: [
    (e) => e.upload(new Float32Array(5), [2, 3], "f32"),
    (e) => e.upload(new Float32Array(6) as never, [6], "i32"),
    (e) => e.upload(new Float32Array(1), [-1], "f32"),
  ],
  write: [
    (e, t) => e.write(t(3), new Float32Array(4)),
    (e, t) => e.write(t(3), new Float32Array(2), 2),
    (e, t) => e.write(t(3), new Float32Array(1), -1),
    (e, t) => e.write(t(3), new Int32Array(1) as never),
  ],
  view: [
    (e, t) => e.view(t(3), [4]),
    (e, t) => e.view(t(3), [2], 2),
    (e, t) => e.view(t(3), [1], -1),
    (e, t) => e.view(t(3), [1], 0.5),
    (e, t) => e.view(t(3), [-1]),
  ],
  copyInto: [
    (e, t) => e.copyInto(t(3), t(4)),
    (e, t) => e.copyInto(t(3), t(2), 2),
    (e, t) => e.copyInto(t(3), t.ids(1, 2, 3) as never),
  ],
  cast: [
    (e, t) => e.cast(t(3), "f32"),
    (e, t) => e.cast(t(3), "u32"),
    (e, t) => e.cast(t.of("f16", 3), "bf16"),
    (e, t) => e.cast(t.of("u32", 3), "f32"),
  ],
  add: [(e, t) => e.add(t(3), t(4)), (e, t) => e.add(t(2, 3), t(2)), (e, t) => e.add(t(3), t.ids(1, 2, 3) as never)],
  subtract: [(e, t) => e.subtract(t(2, 3), t(3, 2)), (e, t) => e.subtract(t(3), t(2, 3))],
  multiply: [(e, t) => e.multiply(t(2, 3), t(1, 3)), (e, t) => e.multiply(t(2, 3), t())],
  scale: [(e, t) => e.scale(t.ids(1) as never, 2)],
  divide: [(e, t) => e.divide(t(3), t(4)), (e, t) => e.divide(t(2, 3), t(2))],
  exp: [(e, t) => e.exp(t.ids(1) as never)],
  relu: [(e, t) => e.relu(t.ids(1) as never)],
  gelu: [(e, t) => e.gelu(t.ids(1) as never)],
  addInto: [
    (e, t) => e.addInto(t(3), t(4)),
    (e, t) => {
      const a = t(5);
      e.addInto(e.view(a, [4]), e.view(a, [4], 1));
    },
  ],
  divideRows: [(e, t) => e.divideRows(t(2, 3), t(3)), (e, t) => e.divideRows(t(), t(1))],
  scaleRows: [(e, t) => e.scaleRows(t(2, 3), t(3)), (e, t) => e.scaleRows(t(), t(1))],
  siluMultiply: [(e, t) => e.siluMultiply(t(2, 3), t(3)), (e, t) => e.siluMultiply(t(6), t(2, 3))],
  transpose: [(e, t) => e.transpose(t(3)), (e, t) => e.transpose(t(2, 3, 4))],
  gatherRows: [
    (e, t) => e.gatherRows(t(3, 2), t.ids(0, 3)),
    (e, t) => e.gatherRows(t(3, 2), t.ids(-1)),
    (e, t) => e.gatherRows(t(0, 2), t.ids(0)),
    (e, t) => e.gatherRows(t(), t.ids(0)),
    (e, t) => e.gatherRows(t(3, 2), t(1) as never),
  ],
  dot: [(e, t) => e.dot(t(3), t(4))],
  allFinite: [(e, t) => e.allFinite(t.ids(1) as never)],
  argmax: [(e, t) => e.argmax(t(3)), (e, t) => e.argmax(t(3, 0))],
  sumRows: [(e, t) => e.sumRows(t()), (e, t) => e.sumRows(t.ids(1) as never)],
  rowDots: [(e, t) => e.rowDots(t(), t()), (e, t) => e.rowDots(t(2, 3), t(2, 4))],
  columnAbsMax: [(e, t) => e.columnAbsMax(t()), (e, t) => e.columnAbsMax(t.ids(1) as never)],
  matmul: [
    (e, t) => e.matmul(t(2, 3), t(4, 5)),
    (e, t) => e.matmul(t(2, 3), t(3, 5), { transposeA: true }),
    (e, t) => e.matmul(t(2, 3), t(3, 5), { transposeB: true }),
    (e, t) => e.matmul(t(3), t(3, 5)),
    (e, t) => e.matmul(t(2, 2, 3), t(3, 5)),
    (e, t) => e.matmul(t(2, 2, 3), t(3, 3, 5)),
    (e, t) => e.matmul(t(2, 3), t(3, 5), { accumulate: t(5, 2) }),
    (e, t) => {
      const a = t(3, 3);
      return e.matmul(a, t(3, 3), { accumulate: a });
    },
  ],
  gram: [
    (e, t) => e.gram(t(3, 3), t(2, 4)),
    (e, t) => e.gram(t(3, 3), t(2, 3), t(3)),
    (e, t) => e.gram(t(3, 3), t(3)),
    (e, t) => {
      const a = t(3, 3);
      e.gram(a, a);
    },
  ],
  hadamard: [
    (e, t) => e.hadamard(t()),
    (e, t) => e.hadamard(t(3)),
    (e, t) => e.hadamard(t(2, 12)),
    (e, t) => e.hadamard(t(4, 4095)),
    (e, t) => e.hadamard(t.ids(1, 2) as never),
  ],
  diagonal: [(e, t) => e.diagonal(t(2, 3)), (e, t) => e.diagonal(t(2))],
  addDiagonal: [(e, t) => e.addDiagonal(t(2, 3), 1)],
  cholesky: [(e, t) => e.cholesky(t(2, 3)), (e, t) => e.cholesky(t(4))],
  triangularInverse: [(e, t) => e.triangularInverse(t(3, 2))],
  rmsNorm: [(e, t) => e.rmsNorm(t(2, 3), t(2), 1e-5), (e, t) => e.rmsNorm(t(), t(1), 1e-5)],
  rope: [
    (e, t) => e.rope(t(1, 2, 1, 4), t(3, 3), t(3, 3), 0),
    (e, t) => e.rope(t(1, 2, 1, 4), t(3, 2), t(3, 2), 2),
    (e, t) => e.rope(t(1, 2, 1, 4), t(3, 2), t(3, 2), -1),
    (e, t) => e.rope(t(1, 2, 1, 4), t(3, 2), t(3, 1), 0),
    (e, t) => e.rope(t(2, 1, 4), t(3, 2), t(3, 2), 0),
  ],
  attention: [
    (e, t) => e.attention(t(1, 2, 3, 4), t(1, 2, 2, 4), t(1, 2, 2, 4), { scale: 1 }),
    (e, t) => e.attention(t(1, 2, 2, 4), t(1, 2, 2, 4), t(1, 3, 2, 4), { scale: 1 }),
    (e, t) => e.attention(t(1, 2, 2, 4), t(2, 2, 2, 4), t(2, 2, 2, 4), { scale: 1 }),
    (e, t) => e.attention(t(1, 3, 2, 4), t(1, 2, 2, 4), t(1, 2, 2, 4), { scale: 1 }),
    (e, t) => e.attention(t(1, 2, 2, 4), t(1, 4, 2, 4), t(1, 4, 2, 4), { scale: 1, keyLength: 5 }),
    (e, t) => e.attention(t(1, 2, 2, 4), t(1, 4, 2, 4), t(1, 4, 2, 4), { scale: 1, keyLength: 1 }),
    (e, t) => e.attention(t(1, 2, 2, 4), t(1, 2, 2, 4), t(1, 2, 2, 4), { scale: 1, window: 0 }),
    (e, t) => e.attention(t(1, 2, 2, 4), t(1, 2, 2, 4), t(1, 2, 2, 4), { scale: Number.NaN }),
    (e, t) => e.attention(t(1, 2, 2, 4), t(1, 2, 2, 4), t(1, 2, 2, 4), { scale: 1, slopes: t(3) }),
  ],
  layerNorm: [
    (e, t) => e.layerNorm(t(2, 3), t(2), t(3), 1e-5),
    (e, t) => e.layerNorm(t(2, 3), t(3), t(2), 1e-5),
    (e, t) => e.layerNorm(t(), t(1), t(1), 1e-5),
  ],
  siluMultiplyGrad: [(e, t) => e.siluMultiplyGrad(t(3), t(3), t(4)), (e, t) => e.siluMultiplyGrad(t(3), t(4), t(3))],
  reluGrad: [(e, t) => e.reluGrad(t(3), t(4))],
  geluGrad: [(e, t) => e.geluGrad(t(3), t(1, 3))],
  rmsNormGrad: [
    (e, t) => e.rmsNormGrad(t(2, 3), t(2), 1e-5, t(2, 3)),
    (e, t) => e.rmsNormGrad(t(2, 3), t(3), 1e-5, t(3, 2)),
  ],
  layerNormGrad: [
    (e, t) => e.layerNormGrad(t(2, 3), t(2), 1e-5, t(2, 3)),
    (e, t) => e.layerNormGrad(t(2, 3), t(3), 1e-5, t(6)),
  ],
  attentionGrad: [
    (e, t) => e.attentionGrad(t(1, 2, 3, 4), t(1, 2, 2, 4), t(1, 2, 2, 4), t(1, 2, 3, 4), t(1, 2, 3, 4), { scale: 1 }),
    (e, t) => e.attentionGrad(t(1, 2, 2, 4), t(1, 3, 2, 4), t(1, 3, 2, 4), t(1, 2, 2, 4), t(1, 2, 2, 4), { scale: 1 }),
    (e, t) => e.attentionGrad(t(1, 2, 2, 4), t(1, 2, 2, 4), t(1, 2, 2, 4), t(1, 2, 2, 5), t(1, 2, 2, 4), { scale: 1 }),
    (e, t) => e.attentionGrad(t(1, 2, 2, 4), t(1, 2, 2, 4), t(1, 2, 2, 4), t(1, 2, 2, 4), t(16), { scale: 1 }),
    (e, t) => {
      const [q, slopes] = [t(1, 2, 2, 4), t(1)];
      return e.attentionGrad(q, q, q, q, q, { scale: 1, slopes });
    },
  ],
  adamwStep: [
    (e, t) => e.adamwStep(t(3), t(4), t(3), t(3), adam()),
    (e, t) => e.adamwStep(t(3), t(3), t(3), t(1, 3), adam()),
    (e, t) => e.adamwStep(t(3), t(3), t(3), t(3), adam({ step: 0 })),
    (e, t) => e.adamwStep(t(3), t(3), t(3), t(3), adam({ beta2: 1 })),
    (e, t) => {
      const a = t(3);
      e.adamwStep(a, t(3), a, t(3), adam());
    },
  ],
  crossEntropy: [
    (e, t) => e.crossEntropy(t(2, 3), t.ids(0, 3)),
    (e, t) => e.crossEntropy(t(2, 3), t.ids(-1, 0)),
    (e, t) => e.crossEntropy(t(2, 3), t.ids(0)),
    (e, t) => e.crossEntropy(t(3), t.ids(0)),
  ],
  klDivergence: [
    (e, t) => e.klDivergence(t(2, 3), t(3, 2)),
    (e, t) => e.klDivergence(t(3), t(3)),
    (e, t) => e.klDivergence(t(3, 0), t(3, 0)),
  ],
  nearestCodeword: [
    (e, t) => e.nearestCodeword(t(5, 4), t(3, 2)),
    (e, t) => e.nearestCodeword(t(5, 4), t(0, 4)),
    (e, t) => e.nearestCodeword(t(5, 4), t(3, 4), t.ids(0)),
    (e, t) => e.nearestCodeword(t(20), t(3, 4)),
  ],
  segmentSum: [
    (e, t) => e.segmentSum(t(2, 4), t(3), t.ids(0, 0), 2),
    (e, t) => e.segmentSum(t(2, 4), t(2), t.ids(0), 2),
    (e, t) => e.segmentSum(t(2, 4), t(2), t.ids(0, 2), 2),
    (e, t) => e.segmentSum(t(2, 4), t(2), t.ids(0, -1), 2),
    (e, t) => e.segmentSum(t(2, 4), t(2), t.ids(0, 0), -1),
  ],
  vectorSweep: [
    (e, t) => e.vectorSweep(t(3, 8), t(2, 2), [{ begin: 0, end: 3, stages: [t(5, 4)] }]),
    (e, t) => e.vectorSweep(t(3, 8), undefined, [{ begin: 0, end: 2, stages: [t(5, 4)] }]),
    (e, t) => e.vectorSweep(t(3, 8), undefined, [{ begin: 0, end: 4, stages: [t(5, 4)] }]),
    (e, t) => e.vectorSweep(t(3, 8), undefined, [{ begin: 1, end: 3, stages: [t(5, 4)] }]),
    (e, t) => e.vectorSweep(t(3, 8), undefined, []),
    (e, t) => e.vectorSweep(t(3, 8), undefined, [{ begin: 0, end: 3, stages: [] }]),
    (e, t) => e.vectorSweep(t(3, 8), undefined, [{ begin: 0, end: 3, stages: [t(5, 3)] }]),
    (e, t) => e.vectorSweep(t(3, 8), undefined, [{ begin: 0, end: 3, stages: [t(0, 4)] }]),
    (e, t) => e.vectorSweep(t(3, 8), undefined, [{ begin: 0, end: 3, stages: [t(5, 4), t(5, 2)] }]),
    (e, t) => e.vectorSweep(t(3, 8), undefined, [{ begin: 0, end: 3, stages: [t(5, 4)] }], { beam: 0 }),
  ],
  coordinateSweep: [
    (e, t) => e.coordinateSweep(t(1, 4), t(2, 2), t(1, 4), [{ begin: 0, end: 1, stages: [t(5, 4)] }], [[ids(e)]]),
    (e, t) => e.coordinateSweep(t(1, 4), t(1, 1), t(1, 8), [{ begin: 0, end: 1, stages: [t(5, 4)] }], [[ids(e)]]),
    (e, t) => e.coordinateSweep(t(1, 4), t(1, 1), t(1, 4), [{ begin: 0, end: 1, stages: [t(5, 4)] }], []),
    (e, t) => e.coordinateSweep(t(1, 4), t(1, 1), t(1, 4), [{ begin: 0, end: 1, stages: [t(5, 4)] }], [[]]),
    (e, t) => e.coordinateSweep(t(1, 4), t(1, 1), t(1, 4), [{ begin: 0, end: 1, stages: [t(5, 2)] }], [[ids(e)]]),
  ],
  affineGrid: [
    (e, t) => e.affineGrid(t(3), grid()),
    (e, t) => e.affineGrid(t(2, 5), grid()),
    (e, t) => e.affineGrid(t(3, 5), grid({ bits: 1 })),
    (e, t) => e.affineGrid(t(3, 5), grid({ bits: 9 })),
    (e, t) => e.affineGrid(t(3, 5), grid({ bits: 2.5 })),
    (e, t) => e.affineGrid(t(3, 5), grid({ groups: 1 })),
    (e, t) => e.affineGrid(t(3, 5), grid({ groupOfColumn: Int32Array.of(0, -1, 1) })),
  ],
  affineSweep: [
    (e, t) => e.affineSweep(t(3, 5), t(5, 5), grid()),
    (e, t) => e.affineSweep(t(3, 5), undefined, grid({ groups: 1 })),
    (e, t) => e.affineSweep(t(3, 5), undefined, { ...grid(), grid: { scale: t(5, 2), zero: t(2, 5) } }),
    (e, t) => e.affineSweep(t(3, 5), undefined, { ...grid(), grid: { scale: t(2, 5), zero: t(1, 5) } }),
  ],
  clippedGrid: [
    (e, t) => e.clippedGrid(t(3), undefined, groups()),
    (e, t) => e.clippedGrid(t(3, 5), undefined, groups({ bits: 1 })),
    (e, t) => e.clippedGrid(t(3, 5), undefined, groups({ bits: 9 })),
    (e, t) => e.clippedGrid(t(3, 5), undefined, groups({ group: 0 })),
    (e, t) => e.clippedGrid(t(3, 5), undefined, groups({ group: 1.5 })),
    (e, t) => e.clippedGrid(t(3, 5), { upper: t(3, 2), lower: t(3, 3) }, groups()),
    (e, t) => e.clippedGrid(t(3, 5), { upper: t(3, 3), lower: t(9) }, groups()),
  ],
  clippedGridGrad: [
    (e, t) => e.clippedGridGrad(t(3, 5), undefined, t(3, 2), groups()),
    (e, t) => e.clippedGridGrad(t(3, 5), { upper: t(3, 2), lower: t(3, 3) }, t(3, 3), groups()),
  ],
  fakeQuantize: [
    (e, t) => e.fakeQuantize(t(15), { scale: t(3, 3), zero: t(3, 3) }, groups()),
    (e, t) => e.fakeQuantize(t(3, 5), { scale: t(3, 2), zero: t(3, 3) }, groups()),
    (e, t) => e.fakeQuantize(t(3, 5), { scale: t(3, 3), zero: t(3, 1) }, groups()),
    (e, t) => e.fakeQuantize(t(3, 5), { scale: t(3, 3), zero: t(3, 3) }, groups({ bits: 2.5 })),
  ],
  fakeQuantizeGrad: [
    (e, t) => e.fakeQuantizeGrad(t(3, 5), { scale: t(3, 3), zero: t(3, 3) }, t(5, 3), groups()),
    (e, t) => e.fakeQuantizeGrad(t(3, 5), { scale: t(3, 3), zero: t(3) }, t(3, 5), groups()),
  ],
  clippedFakeQuantize: [
    (e, t) => e.clippedFakeQuantize(t(15), {}, undefined, groups()),
    (e, t) => e.clippedFakeQuantize(t(3, 5), { rows: t(5) }, undefined, groups()),
    (e, t) => e.clippedFakeQuantize(t(3, 5), { columns: t(3) }, undefined, groups()),
    (e, t) => e.clippedFakeQuantize(t(3, 5), { rows: t(3, 1) }, undefined, groups()),
    (e, t) => e.clippedFakeQuantize(t(3, 5), { rows: t.ids(1, 2, 3) as never }, undefined, groups()),
    (e, t) => e.clippedFakeQuantize(t(3, 5), {}, { upper: t(3, 2), lower: t(3, 3) }, groups()),
    (e, t) => e.clippedFakeQuantize(t(3, 5), {}, undefined, groups({ bits: 1 })),
  ],
  clippedFakeQuantizeGrad: [
    (e, t) => e.clippedFakeQuantizeGrad(t(3, 5), { rows: t(3) }, undefined, t(5, 3), groups()),
    (e, t) => e.clippedFakeQuantizeGrad(t(3, 5), { rows: t(5) }, undefined, t(3, 5), groups()),
    (e, t) => e.clippedFakeQuantizeGrad(t(3, 5), {}, { upper: t(3, 3), lower: t(9) }, t(3, 5), groups()),
  ],
  affineCodes: [(e, t) => e.affineCodes(t(3, 5), { scale: t(3, 5), zero: t(3, 5) }, groups())],
  fakeQuantizeRows: [
    (e, t) => e.fakeQuantizeRows(t(), 4),
    (e, t) => e.fakeQuantizeRows(t.ids(1) as never, 4),
    (e, t) => e.fakeQuantizeRows(t(3), 1),
    (e, t) => e.fakeQuantizeRows(t(3), 9),
  ],
  fakeQuantizeRowsGrad: [
    (e, t) => e.fakeQuantizeRowsGrad(t(3, 5), 4, t(5, 3)),
    (e, t) => e.fakeQuantizeRowsGrad(t(3, 5), 0, t(3, 5)),
  ],
};

/** [1, 1]. */
const ids = (engine: Engine): I32 => engine.create([1, 1], "i32");

/** Misuse is refused with kind "usage" and the operation's name, at once or by rejection, and costs no byte. */
export function refusalTests(getEngine: () => Engine): void {
  let engine: Engine;
  beforeEach(() => {
    engine = getEngine();
  });

  const maker = (): Maker =>
    Object.assign((...shape: number[]) => engine.create(shape), {
      ids: (...values: number[]) => engine.upload(Int32Array.from(values), [values.length], "i32"),
      of: (dtype: DType, ...shape: number[]) => engine.create(shape, dtype) as Tensor,
    });

  const attempt = async (body: () => unknown): Promise<unknown> => {
    const before = engine.liveBytes();
    const failure = await engine.scope(async () => {
      try {
        await body();
      } catch (error) {
        return error;
      }
    });
    expect(engine.liveBytes()).toBe(before);
    return failure;
  };

  for (const [operation, attempts] of Object.entries(MISUSES)) {
    it(operation, async () => {
      for (const [index, misuse] of attempts.entries()) {
        // what an operation finds in the elements may come with the next read
        const failure = await attempt(async () => collect(engine, await misuse(engine, maker())));
        expect(failure, `${operation}, misuse ${index}`).toBeInstanceOf(BitwrightError);
        const { kind, message } = failure as BitwrightError;
        expect({ kind, message }, `${operation}, misuse ${index}`).toEqual({
          kind: "usage",
          message: expect.stringMatching(new RegExp(`^${operation}\\b.*expected .*got `)),
        });
      }
    });
  }

  it("tensors whose life has ended", async () => {
    const gone = engine.scope(() => {
      engine.create([2]);
      return [engine.create([2])];
    })[0];
    gone.dispose();
    for (const use of [() => engine.read(gone), () => engine.scale(gone, 1), () => engine.view(gone, [1])])
      expect(await attempt(use)).toMatchObject({ kind: "usage" });
  });

  describe("numbers that cannot be", () => {
    it("cholesky names the pivot of a matrix that is not positive definite", async () => {
      const make = (third: number, n = 5) => {
        const data = Float32Array.from({ length: n * n }, (_, at) => (at % (n + 1) === 0 ? 1 : 0));
        data[2 * n + 2] = third;
        return engine.upload(data, [n, n], "f32");
      };
      for (const third of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
        const failure = await attempt(() => engine.cholesky(make(third)));
        expect(failure).toMatchObject({ kind: "numeric", message: expect.stringMatching(/^cholesky.*pivot 2 of 5/) });
      }
    });

    it("triangularInverse names a 0 on the diagonal", async () => {
      const lower = Float32Array.of(1, 0, 0, 2, 3, 0, 4, 5, 0);
      const failure = await attempt(() =>
        collect(engine, engine.triangularInverse(engine.upload(lower, [3, 3], "f32"))),
      );
      expect(failure).toMatchObject({
        kind: "numeric",
        message: expect.stringMatching(/^triangularInverse.*element 2 of 3/),
      });
    });
  });
}
