import { existsSync } from "node:fs";
import { env } from "node:process";
import { afterAll, describe, expect, it } from "vitest";
import { HALF_MATMUL } from "../../../test/tolerances.js";
import { testGpu } from "../../../test/webgpu-adapter.js";
import { createRandom } from "../../random.js";
import { roundToF16 } from "../../tensor/index.js";
import { DeviceMemory } from "../device/memory.js";
import { closeDevice, openDevice } from "./adapter.js";
import { WebgpuDevice } from "./device.js";
import { halfConversion } from "./halves.js";
import { KERNEL_FILES } from "./kernels.generated.js";
import { matmulOperations, type Product, walkOf } from "./matmul.js";
import { canPack, multiplyPacked } from "./packedmatmul.js";

// What the kernels for operands in f16 compute; where the adapter has no products of matrices, with them emulated.

/** Compiles these kernels in seconds, where llvmpipe takes minutes. */
const SWIFTSHADER = "/usr/lib/chromium/vk_swiftshader_icd.json";

async function openAdapter() {
  const found = await testGpu();
  const opened = "gpu" in found ? await openDevice(found.gpu) : found;
  if (!("open" in opened) || !opened.open.software || env.VK_DRIVER_FILES !== undefined || !existsSync(SWIFTSHADER))
    return opened;
  closeDevice(opened.open);
  env.VK_DRIVER_FILES = SWIFTSHADER;
  const other = await testGpu();
  return "gpu" in other ? openDevice(other.gpu) : other;
}
const opened = await openAdapter();

describe.skipIf(!("open" in opened))("products of operands in f16", () => {
  if (!("open" in opened)) return;
  const { features } = opened.open;
  const files = features.f16 && features.subgroupMatrix ? KERNEL_FILES : emulated();
  const device = new WebgpuDevice(opened.open, files);
  const memory = new DeviceMemory(device);
  afterAll(() => memory.close());
  const half = halfConversion(memory);

  describe("by words", () => {
    /** Of the largest: f32 sums of some hundred products of numbers that f16 holds. */
    const SUMS = 2e-6;

    interface Shape {
      m: number;
      n: number;
      k: number;
      batch?: number;
      transposeA?: boolean;
      transposeB?: boolean;
      alpha?: number;
      accumulate?: boolean;
    }
    // each operand along its depth and across; matrix.test.ts has all four pairs, where they need not be emulated
    const shapes: Shape[] = [
      { m: 128, n: 256, k: 64, transposeB: true },
      { m: 131, n: 264, k: 72, transposeB: true, alpha: 0.5, accumulate: true },
      { m: 136, n: 130, k: 8, transposeB: true, alpha: -2 },
      { m: 256, n: 128, k: 48, transposeA: true },
      { m: 72, n: 152, k: 77, transposeA: true, batch: 2 },
    ];
    it.each(shapes.map((shape) => [JSON.stringify(shape), shape] as const))("%s", async (_, shape) => {
      const { m, n, k, batch = 1, transposeA = false, transposeB = false, alpha = 1, accumulate = false } = shape;
      const random = createRandom(1, `${m} ${n} ${k}`);
      const draw = (size: number) => Float32Array.from({ length: size }, () => roundToF16(random.normal()));
      const [a, b, before] = [draw(batch * m * k), draw(batch * k * n), draw(batch * m * n)];
      const up = (data: Float32Array, stride: number, stack: number) => {
        return { tensor: memory.upload(data, [data.length], "f32"), from: 0, stride, stack };
      };
      const product = (): Product => {
        return {
          a: up(a, transposeA ? m : k, m * k),
          b: up(b, transposeB ? k : n, k * n),
          y: up(before, n, m * n),
          ...{ transposeA, transposeB, batch, m, n, k, alpha, accumulate },
        };
      };
      const [walkA, walkB] = [walkOf(product().a, transposeA), walkOf(product().b, !transposeB)];
      const y = await memory.scope(() => {
        const run = product();
        expect(canPack(run, walkA, walkB)).toBe(true);
        multiplyPacked(memory, half, run, walkA, walkB);
        return memory.read(run.y.tensor);
      });
      let [error, largest] = [0, 0];
      for (let item = 0; item < batch; item++)
        for (let i = 0; i < m; i++)
          for (let j = 0; j < n; j++) {
            const [ofA, ofB] = [item * m * k + i * walkA.step, item * k * n + j * walkB.step];
            let sum = 0;
            for (let p = 0; p < k; p++) sum += a[ofA + p * walkA.depth] * b[ofB + p * walkB.depth];
            const at = (item * m + i) * n + j;
            const want = alpha * sum + (accumulate ? before[at] : 0);
            largest = Math.max(largest, Math.abs(want));
            error = Math.max(error, Number.isNaN(y[at]) ? Number.POSITIVE_INFINITY : Math.abs(y[at] - want));
          }
      expect(error / largest).toBeLessThan(SUMS);
    });
  });

  describe("by operations", () => {
    const [m, n] = [6 * 128, 8 * 128]; // as many tiles as are worth it
    const limits = { bindingBytes: device.bindingBytes };
    const { matmul } = matmulOperations(memory, { ...limits, half });
    const draw = (size: number) => {
      const random = createRandom(2, size);
      return Float32Array.from({ length: size }, () => random.normal());
    };

    it.each([
      ["packed", 8],
      ["rounded on the way", 9],
    ])("%s: close to f32, exact where asked for; what f16 cannot hold is told of, once", async (_, k) => {
      const [a, b] = [draw(m * k), draw(n * k)];
      const product = (by: typeof matmul, exact = false) =>
        memory.scope(() => {
          const [left, right] = [memory.upload(a, [m, k], "f32"), memory.upload(b, [n, k], "f32")];
          return memory.read(by(left, right, { transposeB: true, exact }));
        });
      // the first of a row; none of them is finite and too large
      a[0] = Number.POSITIVE_INFINITY;
      a[k] = Number.NaN;
      a[2 * k] = 65519;
      const got = await product(matmul);
      expect(await half.overflowed()).toBe(false);
      const exact = await product(matmul, true);
      expect(exact).toEqual(await product(matmulOperations(memory, limits).matmul));
      let [error, largest] = [0, 0];
      for (let at = 3 * n; at < m * n; at++) {
        largest = Math.max(largest, Math.abs(exact[at]));
        error = Math.max(error, Math.abs(exact[at] - got[at]));
      }
      expect(error / largest).toBeGreaterThan(0);
      expect(error / largest).toBeLessThan(HALF_MATMUL.ofLargest ?? 0);

      a[3 * k] = -65520;
      const large = await product(matmul);
      expect([await half.overflowed(), await half.overflowed()]).toEqual([true, false]);
      const infinite = b.filter((_, at) => at % k === 0).map((x) => x * Number.POSITIVE_INFINITY);
      const row = (at: number) => large.subarray(at * n, (at + 1) * n);
      expect(row(0)).toEqual(infinite);
      expect(row(1)).toEqual(new Float32Array(n).fill(Number.NaN));
      expect(row(2).every(Number.isFinite)).toBe(true);
      expect(row(3)).toEqual(infinite.map((x) => -x));
      expect(large.subarray(4 * n)).toEqual(got.subarray(4 * n));
    });
  });
});

/** The kernels with functions in the place of the extension's. */
function emulated(): typeof KERNEL_FILES {
  const { packedmatmul, matmul } = KERNEL_FILES;
  const begin = matmul.indexOf("//# matmulHalf");
  const matmulHalf = emulate(matmul.slice(begin), {
    loads: { halfA: 1, halfB: 1 },
    stores: { stage: "stage[i] = value" },
    left: "unpack2x16float(atomicLoad(&halfA[i / 2]))[i % 2]",
    right: "unpack2x16float(atomicLoad(&halfB[i / 2]))[i % 2]",
  });
  const numberOfWord = "unpack2x16float(tile[block][i / 8][i % 8 / 2])[i % 2]";
  return {
    ...KERNEL_FILES,
    matmul: matmul.slice(0, begin) + matmulHalf,
    packedmatmul: emulate(packedmatmul, {
      loads: { tile: 8 },
      stores: { tile: "tile[block][i / 4][i % 4] = bitcast<u32>(value)", y: "y[i] = value" },
      left: numberOfWord,
      right: numberOfWord,
    }),
  };
}

interface Emulation {
  /** Arrays that operands are loaded from, and f16 of an element. */
  loads: Record<string, number>;
  /** Arrays that sums are stored to, and how. */
  stores: Record<string, string>;
  /** The so manieth number of an operand. */
  left: string;
  right: string;
}

/**
 * Every 32 threads are a subgroup. An operand is where it lies, and is read when it is multiplied: what it was loaded from does
 * not change before. Of a sum a thread has the elements t, t + 32 .. of 256.
 */
function emulate(section: string, { loads, stores, left, right }: Emulation): string {
  const functions = `
/** Block, whether lines are rows, first number, numbers from a line to the next. */
alias Left = vec4u;
alias Right = vec4u;
alias Sum = array<f32, 8>;

var<private> thread: u32;

fn cell(k: u32) -> vec2u {
  let e = 32 * k + thread % 32;
  return vec2u(e / 16, e % 16);
}
fn numberOf(lines: vec4u, row: u32, column: u32) -> u32 {
  return lines.z + select(column * lines.w + row, row * lines.w + column, lines.y == 1);
}
fn asHalves(x: vec2u) -> vec4f {
  return vec4f(unpack2x16float(x.x), unpack2x16float(x.y));
}
fn ofLeft(block: u32, i: u32) -> f32 {
  return ${left};
}
fn ofRight(block: u32, i: u32) -> f32 {
  return ${right};
}
fn multiplied(left: vec4u, right: vec4u, sum: Sum) -> Sum {
  var result = sum;
  for (var k = 0u; k < 8; k++) {
    let at = cell(k);
    for (var p = 0u; p < 16; p++) {
      result[k] += ofLeft(left.x, numberOf(left, at.x, p)) * ofRight(right.x, numberOf(right, p, at.y));
    }
  }
  return result;
}
`;
  const loading = Object.entries(loads).map(
    ([array, halves]) => `
fn Load_${array}(block: u32, rows: bool, offset: u32, stride: u32) -> vec4u {
  return vec4u(block, select(0u, 1u, rows), ${halves} * offset, ${halves} * stride);
}
`,
  );
  const storing = Object.entries(stores).map(
    ([array, assignment]) => `
fn Store_${array}(block: u32, rows: bool, offset: u32, matrix: Sum, stride: u32) {
  let lines = vec4u(block, 1, offset, stride)${array === "tile" ? " * vec4u(1, 1, 4, 4)" : ""};
  for (var k = 0u; k < 8; k++) {
    let i = numberOf(lines, cell(k).x, cell(k).y);
    let value = matrix[k];
    ${assignment};
  }
}
`,
  );
  const text = section
    .replace(/^(?:enable|diagnostic)\b.*;$/gm, "")
    .replace(/^alias .*subgroup_matrix.*$/gm, "")
    .replace(/array<f16, (\d+)>/g, "array<atomic<u32>, $1 / 2>")
    .replace(/^( *)(half[AB])\[(.*)\] = (.*);$/gm, (_, indent: string, array: string, place: string, value: string) => {
      const word = `${array}[(${place}) / 2]`;
      const shift = `(${place}) % 2 * 16`;
      const half = `halfOfBits(bitcast<u32>(${value}))`;
      return `${indent}atomicAnd(&${word}, 0xffff0000u >> (${shift})); atomicOr(&${word}, ${half} << (${shift}));`;
    })
    .replaceAll("bitcast<vec4h>", "asHalves")
    .replaceAll("vec4h", "vec4f")
    .replace(
      /subgroupMatrix(Load|Store)<(?:\w+, )?(row|col)_major>\(&(\w+)(?:\[([^\]]*)\])?, /g,
      (_, action: string, major: string, array: string, block = "0u") =>
        `${action}_${array}(${block}, ${major === "row"}, `,
    )
    .replaceAll("subgroupMatrixMultiplyAccumulate", "multiplied")
    .replace(/local_invocation_index\) t: u32\) \{/g, "$&\n  thread = t;");
  return [text, functions, ...loading, ...storing].join("");
}
