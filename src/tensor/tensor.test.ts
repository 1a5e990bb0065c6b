import { describe, expect, it } from "vitest";
import { BYTES_PER_ELEMENT, type DType, hostArray, hostView } from "./dtype.js";
import { sameShape, sizeOf, Tensor } from "./tensor.js";

describe("Tensor", () => {
  it("holds a reference until it is disposed, once", () => {
    let freed = 0;
    const buffer = { bytes: 24, references: 0, free: () => freed++ };
    const whole = new Tensor(buffer, 0, "f32", [2, 3]);
    const part = new Tensor(buffer, 8, "f32", [2]);
    expect(buffer.references).toBe(2);
    expect([whole.size, whole.bytes, part.size, part.bytes]).toEqual([6, 24, 2, 8]);
    whole.dispose();
    whole.dispose();
    expect([whole.disposed, part.disposed, buffer.references, freed]).toEqual([true, false, 1, 0]);
    part.dispose();
    expect([buffer.references, freed]).toEqual([0, 1]);
  });

  it("counts elements", () => {
    expect(sizeOf([])).toBe(1);
    expect(sizeOf([3, 0, 5])).toBe(0);
    expect(sizeOf([3, 4, 5])).toBe(60);
  });

  it("compares shapes", () => {
    expect(sameShape([2, 3], [2, 3])).toBe(true);
    expect(sameShape([], [])).toBe(true);
    expect(sameShape([2, 3], [3, 2])).toBe(false);
    expect(sameShape([2, 3], [2, 3, 1])).toBe(false);
    expect(sameShape([2], [])).toBe(false);
  });
});

describe("host arrays", () => {
  it("have as many bytes as the type says", () => {
    for (const dtype of Object.keys(BYTES_PER_ELEMENT) as DType[]) {
      const array = hostArray(dtype, 5);
      expect([...array]).toEqual([0, 0, 0, 0, 0]);
      expect(array.byteLength).toBe(5 * BYTES_PER_ELEMENT[dtype]);
      const view = hostView(dtype, new SharedArrayBuffer(64), 8, 3);
      expect([view.constructor, view.byteOffset, view.length]).toEqual([array.constructor, 8, 3]);
    }
  });
});
