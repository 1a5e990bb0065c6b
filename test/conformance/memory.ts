import { beforeEach, expect, it } from "vitest";
import type { Engine } from "../../src/engine/engine.js";
import { BYTES_PER_ELEMENT, type DType, type F32, hostArray, type Tensor } from "../../src/tensor/index.js";

const DTYPES = Object.keys(BYTES_PER_ELEMENT) as DType[];
const counting = (length: number): Float32Array => Float32Array.from({ length }, (_, i) => i);

/** What engine.ts says under "memory", but for casts. */
export function memoryTests(getEngine: () => Engine): void {
  let engine: Engine;
  let before: number;
  beforeEach(() => {
    engine = getEngine();
    before = engine.liveBytes();
  });
  const live = () => engine.liveBytes() - before;
  const values = async (tensor: Tensor) => [...(await engine.read(tensor))];

  it("names itself", () => {
    for (const text of [engine.name, engine.description, engine.arithmetic]) expect(text).toMatch(/\w/);
    expect(engine.threads).toBeGreaterThanOrEqual(1);
  });

  it("creates zeros, also where something else was before", async () => {
    for (const dtype of DTYPES) {
      const used = engine.upload(hostArray(dtype, 37).fill(77), [37], dtype);
      used.dispose();
      const tensor = engine.create([37], dtype);
      expect(tensor.dtype).toBe(dtype);
      expect(await values(tensor)).toEqual(new Array(37).fill(0));
      expect(live()).toBe(37 * BYTES_PER_ELEMENT[dtype]);
      tensor.dispose();
      expect(live()).toBe(0);
    }
    engine.scope(() => expect(engine.create([2, 3]).dtype).toBe("f32"));
  });

  it("copies what it uploads and reads", () =>
    engine.scope(async () => {
      for (const dtype of DTYPES) {
        const data = hostArray(dtype, 6);
        for (let i = 0; i < 6; i++) data[i] = i + 1;
        const tensor = engine.upload(data, [2, 3], dtype);
        data[0] = 99;
        const back = await engine.read(tensor);
        expect([...back]).toEqual([1, 2, 3, 4, 5, 6]);
        expect(back.constructor).toBe(data.constructor);
        back[1] = 99;
        expect(await values(tensor)).toEqual([1, 2, 3, 4, 5, 6]);
      }
    }));

  it("keeps the bits of NaN and of -0", () =>
    engine.scope(async () => {
      const bits = Uint32Array.of(0x7fc12345, 0xffc00001, 0x80000000, 0x00000001);
      const back = await engine.read(engine.upload(new Float32Array(bits.buffer), [4], "f32"));
      expect([...new Uint32Array(back.buffer, back.byteOffset, 4)]).toEqual([...bits]);
    }));

  it("writes a range in place", () =>
    engine.scope(async () => {
      const tensor = engine.create([5]);
      engine.write(tensor, Float32Array.of(1, 2), 3);
      engine.write(tensor, Float32Array.of(7));
      engine.write(tensor, new Float32Array(0), 5);
      expect(await values(tensor)).toEqual([7, 0, 0, 1, 2]);
    }));

  it("shares memory with views and with views of views", () =>
    engine.scope(async () => {
      const tensor = engine.upload(counting(24), [4, 6], "f32");
      const bytes = live();
      const middle = engine.view(tensor, [3, 4], 6);
      const inner = engine.view(middle, [2], 5);
      expect(live()).toBe(bytes);
      expect(await values(inner)).toEqual([11, 12]);
      engine.write(inner, Float32Array.of(-1), 1);
      expect((await values(tensor))[12]).toBe(-1);
      engine.write(tensor, Float32Array.of(-2), 11);
      expect(await values(inner)).toEqual([-2, -1]);
      expect(await values(engine.view(tensor, [0], 24))).toEqual([]);
      const halves = engine.upload(Uint16Array.of(1, 2, 3, 4, 5), [5], "f16");
      expect(await values(engine.view(halves, [2], 3))).toEqual([4, 5]);
    }));

  it("frees memory with the last of its views", async () => {
    const tensor = engine.keep(engine.upload(counting(6), [6], "f32"));
    const view = engine.keep(engine.view(tensor, [2], 4));
    tensor.dispose();
    expect(live()).toBe(24);
    expect(await values(view)).toEqual([4, 5]);
    view.dispose();
    view.dispose();
    expect(live()).toBe(0);
  });

  it("copies into new and into old memory", () =>
    engine.scope(async () => {
      const tensor = engine.upload(counting(6), [2, 3], "f32");
      const copy = engine.copy(engine.view(tensor, [4], 1));
      engine.write(tensor, Float32Array.of(-1), 1);
      expect(copy.shape).toEqual([4]);
      expect(await values(copy)).toEqual([1, 2, 3, 4]);
      engine.copyInto(tensor, engine.view(copy, [2], 2), 4);
      expect(await values(tensor)).toEqual([0, -1, 2, 3, 3, 4]);
      engine.copyInto(tensor, engine.upload(counting(6), [6], "f32"));
      engine.copyInto(tensor, engine.view(tensor, [4], 0), 1); // over itself
      expect(await values(tensor)).toEqual([0, 0, 1, 2, 3, 5]);
      const bytes = engine.upload(Uint8Array.of(1, 2, 3), [3], "u8");
      engine.copyInto(bytes, engine.upload(Uint8Array.of(9), [1], "u8"), 2);
      expect(await values(bytes)).toEqual([1, 2, 9]);
    }));

  it("frees what a scope does not return", async () => {
    const kept: F32[] = [];
    const result = engine.scope(() => {
      engine.create([100]);
      const inner = engine.scope(() => {
        engine.create([200]);
        return { list: [engine.create([3])], number: 4 };
      });
      kept.push(engine.keep(engine.create([7])));
      return { inner, map: new Map([["a", engine.create([5])]]) };
    });
    expect(live()).toBe(4 * (3 + 5 + 7));
    expect(result.inner.number).toBe(4);
    expect(await values(result.inner.list[0])).toEqual([0, 0, 0]);
    for (const tensor of [...result.inner.list, ...result.map.values(), ...kept]) tensor.dispose();
    expect(live()).toBe(0);
  });

  it("frees what an operation or a body leaves behind when it throws", async () => {
    const fail = () =>
      engine.scope(() => {
        engine.add(engine.create([3]), engine.create([3]));
        throw new Error("on purpose");
      });
    expect(fail).toThrow("on purpose");
    await expect(engine.scope(async () => engine.cholesky(engine.create([33, 33])))).rejects.toMatchObject({
      kind: "numeric",
    });
    expect(live()).toBe(0);
  });

  it("holds tensors until an asynchronous scope ends", async () => {
    const result = await engine.scope(async () => {
      const a = engine.create([10]);
      await Promise.resolve();
      const read = await engine.read(a);
      expect(read.length).toBe(10);
      return engine.scale(a, 2);
    });
    expect(live()).toBe(40);
    result.dispose();
    expect(live()).toBe(0);
  });

  it("counts the peak", () => {
    engine.resetPeak();
    expect(engine.peakBytes() - before).toBe(0);
    engine.scope(() => {
      engine.scope(() => engine.create([1000])).dispose();
      engine.create([10]);
    });
    expect(engine.peakBytes() - before).toBe(4000);
    engine.resetPeak();
    expect(engine.peakBytes() - before).toBe(0);
  });
}
