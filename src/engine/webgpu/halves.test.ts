import { afterAll, describe, expect, it } from "vitest";
import { testGpu } from "../../../test/webgpu-adapter.js";
import { createRandom } from "../../random.js";
import { f32ToF16 } from "../../tensor/index.js";
import { DeviceMemory } from "../device/memory.js";
import { openDevice } from "./adapter.js";
import { WebgpuDevice } from "./device.js";
import { halfConversion } from "./halves.js";
import { KERNEL_FILES } from "./kernels.generated.js";

const found = await testGpu();
const opened = "gpu" in found ? await openDevice(found.gpu) : found;

describe.skipIf(!("open" in opened))("operands of products in f16", () => {
  if (!("open" in opened)) return;
  const memory = new DeviceMemory(new WebgpuDevice(opened.open, KERNEL_FILES));
  afterAll(() => memory.close());
  const { packedOf, lookThrough, overflowed } = halfConversion(memory);

  const up = (data: Float32Array) => memory.upload(data, [data.length], "f32");
  const packed = async (tensor: ReturnType<typeof up>) => {
    const { block, byteOffset, bytes } = packedOf(tensor);
    return new Uint16Array((await memory.device.download(block, byteOffset, bytes)).buffer);
  };
  /** In whole words of 8 numbers. */
  const expected = (data: Float32Array) => f32ToF16(data, new Uint16Array(8 * Math.ceil(data.length / 8)));

  it("are rounded to the nearest, subnormal, infinite and NaN too, and zeros fill their last word", () =>
    memory.scope(async () => {
      const random = createRandom(1);
      for (const size of [1, 7, 8, 2047, 2048, 20011]) {
        const data = Float32Array.from({ length: size }, () => random.normal() * 2 ** (random.integer(50) - 28));
        data.set([Number.NaN, Number.NEGATIVE_INFINITY, 1e5, 2 ** -24, 1 + 2 ** -11, -(2 ** -25)].slice(0, size));
        expect(await packed(up(data)), `${size}`).toEqual(expected(data));
      }
      await overflowed();
    }));

  it("are converted again when they were written", () =>
    memory.scope(async () => {
      const [before, after] = [Float32Array.of(1, 2, 3), Float32Array.of(4, 5, 6)];
      const tensor = up(before);
      expect(await packed(tensor)).toEqual(expected(before));
      memory.write(tensor, after);
      expect(await packed(tensor)).toEqual(expected(after));
    }));

  it.each([
    [65504, false],
    [-65519.996, false],
    [65520, true],
    [-65520, true],
    [3e38, true],
    [Number.NEGATIVE_INFINITY, false],
    [Number.NaN, false],
  ])("%s among them is noted: %s", (value, noted) =>
    memory.scope(async () => {
      for (const [size, at] of [
        [1, 0],
        [5001, 0],
        [5001, 4999],
        [5001, 5000],
      ])
        for (const look of [packedOf, lookThrough]) {
          look(up(new Float32Array(size).fill(value, at, at + 1)));
          expect([await overflowed(), await overflowed()]).toEqual([noted, false]);
        }
    }),
  );

  it("are noted where they are looked at, not where they lie beside", () =>
    memory.scope(async () => {
      const all = up(Float32Array.of(1e6, 1, 2, 3, 4, 5, 6, 7, 8, 1e6));
      for (const look of [packedOf, lookThrough]) look(memory.view(all, [8], 1));
      expect(await overflowed()).toBe(false);
    }));
});
