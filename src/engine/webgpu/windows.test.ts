import { afterAll, describe, expect, it } from "vitest";
import {
  type Case,
  normal,
  type Output,
  positiveDefinite,
  runCase,
  unitUpper,
  whole,
} from "../../../test/conformance/case.js";
import { ALL_CASES } from "../../../test/conformance/suite.js";
import { onHost } from "../../../test/wasm-engines.js";
import { testGpu } from "../../../test/webgpu-adapter.js";
import { BitwrightError } from "../../errors.js";
import type { F32, I32 } from "../../tensor/index.js";
import { deviceOperations } from "../device/engine.js";
import { DeviceMemory } from "../device/memory.js";
import type { Engine } from "../engine.js";
import { openDevice } from "./adapter.js";
import { WebgpuDevice } from "./device.js";
import { factorOperations } from "./factor.js";
import { KERNEL_FILES } from "./kernels.generated.js";
import { manyNearestOperations } from "./nearest.js";

// Operations on a device that binds little at once: the same bytes as where all fits.

/** The sums of products follow the windows; they have tests of their own (matrix.test.ts). */
const PRODUCTS: readonly string[] = ["matmul", "gram"];
/** Cases of an operation that are run, and bytes of an input from which on they are walked. */
const MOST_CASES = 16;
const LARGE = 512;

const found = await testGpu();
const opened = "gpu" in found ? await openDevice(found.gpu) : found;

/** Counts what it does. */
class CountingDevice extends WebgpuDevice {
  calls = 0;
  override run(...call: Parameters<WebgpuDevice["run"]>): void {
    this.calls++;
    super.run(...call);
  }
  override copy(...call: Parameters<WebgpuDevice["copy"]>): void {
    this.calls++;
    super.copy(...call);
  }
}

const largestInput = ({ inputs }: Case): number => Math.max(0, ...inputs.map(({ data }) => data.byteLength));

/** Cases of an operation that can be walked, from all over the list. */
function casesOf(operation: string): Case[] {
  const large = ALL_CASES.filter((one) => one.operation === operation && largestInput(one) >= LARGE);
  const step = Math.max(1, large.length / MOST_CASES);
  return large.filter((_, index) => Math.floor(index / step) !== Math.floor((index - 1) / step));
}

/** A lower triangle with 2 on its diagonal. */
function lowerTriangle(n: number) {
  const input = normal([n, n], "lower", 0.3 / Math.sqrt(n));
  const data = input.data.map((value, at) => (at % n > at / n ? 0 : at % (n + 1) === 0 ? 2 : value));
  return { ...input, data };
}

/** Rows of which the last are the first ones with the other sign, so that sums over them are 0. */
function cancelling(rows: number, width: number) {
  const input = normal([rows, width], "cancelling");
  const data = input.data.map((value, at, all) =>
    2 * at < all.length ? value : -all[(rows - 1 - Math.floor(at / width)) * width + (at % width)],
  );
  return { ...input, data };
}

/** Coordinate descent with one codebook for all columns. */
const sweepCoordinates: Case["run"] = (engine, [weights, hessian, quantized, codebook, indices]) => {
  const segment = { begin: 0, end: weights.shape[0], stages: [codebook as F32] };
  return engine.coordinateSweep(weights as F32, hessian as F32, quantized as F32, [segment], [[indices as I32]]);
};

/** Shapes whose windows, taken for themselves, would be cut in other blocks and parts: these decide the last bits. */
const ORDERED: readonly Case[] = [
  ...[300, 417].flatMap((n): Case[] => [
    {
      operation: "cholesky",
      label: `${n}`,
      inputs: [positiveDefinite(n)],
      run: (engine, [a]) => engine.cholesky(a as F32),
    },
    {
      operation: "triangularInverse",
      label: `${n}`,
      inputs: [lowerTriangle(n)],
      run: (engine, [a]) => engine.triangularInverse(a as F32),
    },
  ]),
  {
    operation: "coordinateSweep",
    label: "gradients that are 0 but for their rounding, whose sign is what is chosen",
    inputs: [cancelling(200, 256), { ...normal([200, 200], "ones"), data: new Float32Array(200 ** 2).fill(1) }],
    run: (engine, [weights, hessian]) => {
      const [quantized, indices] = [engine.create([200, 256]), engine.create([200, 256], "i32")];
      const codebook = engine.upload(Float32Array.of(-1e-5, 1e-5), [2, 1], "f32");
      const segment = { begin: 0, end: 200, stages: [codebook] };
      return engine.coordinateSweep(weights as F32, hessian as F32, quantized, [segment], [[indices]]);
    },
  },
  {
    operation: "coordinateSweep",
    label: "the Hessian in parts",
    inputs: [
      ...[normal([200, 8]), positiveDefinite(200), normal([200, 8], "quantized"), normal([16, 4])],
      whole([200, 2], 16),
    ],
    run: sweepCoordinates,
  },
  {
    operation: "vectorSweep",
    label: "vectors of 8, groups of 8 of them",
    inputs: [normal([70, 8192]), unitUpper(70), normal([16, 8])],
    run: (engine, [weights, feedback, codebook]) =>
      engine.vectorSweep(weights as F32, feedback as F32, [{ begin: 0, end: 70, stages: [codebook as F32] }]),
  },
  {
    operation: "coordinateSweep",
    label: "vectors of 8, groups of 8 of them",
    inputs: [
      ...[normal([70, 8192]), positiveDefinite(70), normal([70, 8192], "quantized"), normal([16, 8])],
      whole([70, 1024], 16),
    ],
    run: sweepCoordinates,
  },
  {
    operation: "attention",
    label: "positions in parts",
    inputs: [normal([256, 1, 2, 8]), normal([256, 300, 2, 8], "k"), normal([256, 300, 2, 8], "v")],
    run: (engine, [q, k, v]) => engine.attention(q as F32, k as F32, v as F32, { scale: 0.3 }),
  },
];

const bytesOf = (outputs: readonly Output[]) =>
  outputs.map(({ path, shape, data }) => {
    const { buffer, byteOffset, byteLength } = ArrayBuffer.isView(data) ? data : Float64Array.from(data);
    return { path, shape, bytes: Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength).toString("base64") };
  });

if ("open" in opened) {
  const device = new CountingDevice(opened.open, KERNEL_FILES);
  const all = device.bindingBytes;
  const memory = new DeviceMemory(device);
  const engine = Object.assign(memory, deviceOperations(memory), factorOperations(memory)) as unknown as Engine;
  afterAll(() => engine.close());

  /** What `body` gives with bindings of so many bytes, and the kernels and copies that it took. */
  async function bound<T>(bindingBytes: number, body: () => Promise<T>): Promise<{ result: T; calls: number }> {
    Object.assign(device, { bindingBytes });
    const before = device.calls;
    try {
      const result = await body();
      expect(engine.liveBytes()).toBe(0);
      return { result, calls: device.calls - before };
    } finally {
      Object.assign(device, { bindingBytes: all });
    }
  }

  const runBound = (bindingBytes: number, one: Case) =>
    bound(bindingBytes, async () => bytesOf(await runCase(engine, one, true)));

  /** A case with bindings of an eighth of its largest input and some words, or of the least more that will do. */
  async function runNarrow(one: Case) {
    for (let bytes = 256 * Math.max(2, Math.ceil(largestInput(one) / 2048)) + 12; ; bytes *= 2)
      try {
        return await runBound(bytes, one);
      } catch (error) {
        if (!(error instanceof BitwrightError) || error.kind !== "unsupported") throw error;
      }
  }

  const up = ({ shape, data }: ReturnType<typeof normal>) => engine.upload(data, shape, "f32");

  describe("in windows", () => {
    for (const operation of new Set(ALL_CASES.map((one) => one.operation)))
      if (!PRODUCTS.includes(operation))
        it(operation, async () => {
          let walked = 0;
          for (const one of casesOf(operation)) {
            const expected = await runBound(all, one);
            const narrow = await runNarrow(one);
            expect(narrow.result, one.label).toEqual(expected.result);
            if (narrow.calls > expected.calls) walked++;
          }
          expect(walked).toBeGreaterThan(0);
        });

    it("in the order that the whole shape decides", async () => {
      for (const one of ORDERED) {
        const [expected, narrow] = [await runBound(all, one), await runNarrow(one)];
        expect(narrow.result, `${one.operation}: ${one.label}`).toEqual(expected.result);
        expect(narrow.calls, one.operation).toBeGreaterThan(expected.calls);
      }
    });

    it("sweeps weights of which only the indices are too large", async () => {
      const stages = ["first", "second", "third"].map((name) => normal([8, 1], name));
      const swept = () =>
        onHost(engine, () => {
          const segment = { begin: 0, end: 40, stages: stages.map(up) };
          const { indices, quantized } = engine.vectorSweep(up(normal([40, 67])), up(unitUpper(40)), [segment]);
          return { quantized, ...Object.fromEntries(indices[0].entries()) };
        });
      expect((await bound(2 ** 14, swept)).result).toEqual((await bound(all, swept)).result);
    });

    it("sweeps with a feedback that cannot be bound", async () => {
      const swept = () =>
        onHost(engine, () => {
          const [weights, feedback] = [up(normal([200, 8])), up(unitUpper(200))];
          const vectors = engine.vectorSweep(weights, feedback, [
            { begin: 0, end: 200, stages: [up(normal([16, 4]))] },
          ]);
          const groupOfColumn = Int32Array.from({ length: 200 }, (_, i) => i >> 5);
          const grid = { bits: 3, symmetric: false, groups: 7, groupOfColumn };
          const { codes, quantized } = engine.affineSweep(weights, feedback, grid);
          return { vectors: vectors.quantized, codes, quantized };
        });
      expect((await bound(2 ** 16, swept)).result).toEqual((await bound(all, swept)).result);
    });

    it("searches many vectors", async () => {
      const { nearestCodeword } = manyNearestOperations(memory, 1);
      const search = () => onHost(engine, () => ({ ...nearestCodeword(up(normal([5003, 3])), up(normal([40, 3]))) }));
      const [whole, narrow] = [await bound(all, search), await bound(2 ** 13 + 12, search)];
      expect(narrow.result).toEqual(whole.result);
      expect(narrow.calls).toBeGreaterThan(whole.calls);
    });

    it("copies bytes from any place to any place", async () => {
      const data = Uint8Array.from({ length: 3001 }, (_, i) => (i * 7) % 251);
      const copied = () =>
        onHost(engine, () => {
          const from = engine.upload(data, [3001], "u8");
          const to = engine.upload(data.slice().reverse(), [3001], "u8");
          for (const [begin, size, target] of [
            [1, 2000, 2],
            [3, 701, 2200],
          ])
            engine.copyInto(to, engine.view(from, [size], begin), target);
          return { to };
        });
      expect((await bound(512, copied)).result).toEqual((await bound(all, copied)).result);
    });

    it("name indices outside by their place among all", async () => {
      const refused = async (bad: number, operate: (indices: Int32Array) => void) => {
        const indices = whole([200], 90).data;
        indices[150] = bad;
        const run = () =>
          engine.scope(async () => {
            operate(indices);
            await engine.read(engine.create([1]));
          });
        await expect(bound(1024, run)).rejects.toThrow(`got ${bad} at 150`);
      };
      const table = normal([90, 40]);
      const few = normal([200, 90]);
      for (const bad of [-1, 90, 2 ** 31 - 1, -(2 ** 31)]) {
        await refused(bad, (indices) => engine.gatherRows(up(table), engine.upload(indices, [200], "i32")));
        await refused(bad, (indices) => engine.crossEntropy(up(few), engine.upload(indices, [200], "i32")));
      }
    });

    it("refuses what has no windows", async () => {
      const refusal = (name: string) => ({
        kind: "unsupported",
        message: expect.stringMatching(new RegExp(`^${name}: a tensor of .* on the WebGPU device, which takes`)),
        remedy: expect.stringContaining("--engine wasm"),
      });
      const longRow = () => engine.scope(async () => void engine.argmax(up(normal([2, 3000]))));
      await expect(bound(4096, longRow)).rejects.toMatchObject(refusal("argmax"));
    });
  });
} else
  it("says what is missing where there is no adapter", () => {
    expect(opened.reason).toMatch(/webgpu|WebGPU/);
    console.log(`Windows were not tested: ${opened.reason}`);
  });
