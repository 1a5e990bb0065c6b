import fc from "fast-check";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { type FakeCuda, fakeCuda, missingFakes, NOTHING_ALIVE } from "../../../test/fake-cuda/card.js";
import type { F32, Tensor } from "../../tensor/index.js";
import type { Engine } from "../engine.js";
import { createCudaEngine } from "./engine.js";

// Memory and launches on a card that is not there (test/fake-cuda): what the driver gets, and that all of it is given back.

const MEGA = 2 ** 20;
const made = await fakeCuda();

const counting = (length: number, step = 1): Float32Array => Float32Array.from({ length }, (_, i) => i * step);

function tests(fake: FakeCuda, late: "work" | "uploads"): void {
  let engine: Engine;
  const open = async (options = {}): Promise<Engine> => {
    const found = await createCudaEngine(options);
    if ("reason" in found) throw new Error(found.reason);
    return found.engine;
  };
  beforeEach(async () => {
    fake.reset({ late });
    engine = await open();
  });
  afterEach(async () => {
    await engine.close();
    expect(fake.alive()).toEqual(NOTHING_ALIVE);
    expect(fake.races()).toBe(0);
  });
  const values = async (tensor: Tensor) => [...(await engine.read(tensor))];

  it("names the card and the libraries", () => {
    expect(engine.description).toBe("Small Card, CUDA 12.8, NVRTC 12.9, products in f32");
    expect(engine.arithmetic).toBe("cuda Small Card, NVRTC 12.9, f32, cuBLAS 120902");
  });

  it("uploads and downloads", async () => {
    const data = counting(1000, 0.5);
    const tensor = engine.upload(data, [10, 100], "f32");
    data.fill(-1); // is ours again
    expect(await values(tensor)).toEqual([...counting(1000, 0.5)]);
  });

  it("uploads and downloads more than all pinned memory holds, which ends in the middle of a slot", async () => {
    const data = new Uint8Array(41 * MEGA + 4);
    for (let i = 0; i < data.length; i += 997) data[i] = i % 251;
    const copies = fake.count("cuMemcpyHtoDAsync_v2");
    const tensor = engine.upload(data, [data.length], "u8");
    expect(copies()).toBe(11);
    expect(Buffer.compare(await engine.read(tensor), data)).toBe(0);
  });

  it("uploads beside the work enqueued before, but not into memory that this still uses", async () => {
    const waits = fake.count("cuStreamWaitEvent");
    const first = engine.upload(counting(1000), [1000], "f32");
    expect(waits()).toBe(1); // into memory that nobody had: by the stream of uploads, which the work waits for
    const copied = engine.copy(first);
    first.dispose();
    const second = engine.upload(counting(1000, 2), [1000], "f32");
    expect(waits()).toBe(1); // into the same memory, which the copy reads
    expect(await values(copied)).toEqual([...counting(1000)]);
    expect(await values(second)).toEqual([...counting(1000, 2)]);
    second.dispose();
    const third = engine.upload(counting(1000, 3), [1000], "f32");
    expect(waits()).toBe(1); // freed after that wait: nobody knows that the work on it is done
    await values(third);
    third.dispose();
    await values(copied);
    const fourth = engine.upload(counting(1000, 4), [1000], "f32");
    expect(waits()).toBe(2);
    engine.write(fourth, Float32Array.of(-1), 0); // behind it
    expect((await values(engine.copy(fourth))).slice(0, 3)).toEqual([-1, 4, 8]);
    const large = engine.upload(counting(2 ** 21), [2 ** 21], "f32");
    const copy = engine.copy(large);
    large.dispose();
    const other = engine.upload(counting(2 ** 21, 2), [2 ** 21], "f32");
    expect(waits()).toBe(4); // into new memory instead
    const isCounting = async (tensor: F32, step = 1) => {
      const expected = counting(2 ** 21, step);
      return (await engine.read(tensor)).every((value, i) => value === expected[i]);
    };
    expect([await isCounting(copy), await isCounting(other, 2)]).toEqual([true, true]);
  });

  it("gives every read what the calls before it made, whatever came in between", async () => {
    const kinds = ["upload", "copy", "scale", "write", "copyInto", "read", "dispose"] as const;
    const call = fc.record({ kind: fc.constantFrom(...kinds), a: fc.nat(4), b: fc.nat(4), large: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(fc.array(call, { minLength: 30, maxLength: 60 }), async (calls) => {
        /** A tensor, and the number that it is full of: unknown once a kernel has written it, for none is run here. */
        let tensors: { tensor: F32; value: number | undefined }[] = [];
        for (const [step, { kind, a, b, large }] of calls.entries()) {
          const size = large ? 1_200_000 : 1000; // more than a slot of pinned memory, and less
          const [one, two] = [a, b].map((index) => tensors[index % Math.max(1, tensors.length)]);
          if (kind === "upload") {
            const tensor = engine.upload(new Float32Array(size).fill(step), [size], "f32");
            tensors.push({ tensor, value: step });
          } else if (!one) continue;
          else if (kind === "copy") tensors.push({ tensor: engine.copy(one.tensor), value: one.value });
          else if (kind === "scale") tensors.push({ tensor: engine.scale(one.tensor, 2), value: undefined });
          else if (kind === "write") {
            engine.write(one.tensor, new Float32Array(one.tensor.size).fill(step));
            one.value = step;
          } else if (kind === "copyInto" && one !== two && one.tensor.size === two.tensor.size) {
            engine.copyInto(one.tensor, two.tensor);
            one.value = two.value;
          } else if (kind === "read") {
            const values = await engine.read(one.tensor);
            if (one.value !== undefined) expect(values.every((value) => value === one.value)).toBe(true);
          } else if (kind === "dispose") {
            one.tensor.dispose();
            tensors = tensors.filter((other) => other !== one);
          }
        }
        for (const { tensor, value } of tensors) {
          const values = await engine.read(tensor);
          if (value !== undefined) expect(values.every((found) => found === value)).toBe(true);
          tensor.dispose();
        }
        expect(fake.races()).toBe(0);
      }),
      { numRuns: 40 },
    );
  });

  it("reads at once what is asked for together, as it was when it was asked for", async () => {
    const tensor = engine.upload(counting(8), [8], "f32");
    const reads: Promise<Float32Array>[] = [];
    const waits = fake.count("cuEventSynchronize");
    for (let round = 0; round < 3; round++) {
      engine.write(tensor, Float32Array.of(10 + round), round);
      reads.push(engine.read(tensor));
    }
    expect(waits()).toBe(0);
    // more than there are slots: what lies there is taken out first
    const large = engine.upload(new Uint8Array(5 * MEGA).fill(7), [5 * MEGA], "u8");
    const whole = Array.from({ length: 6 }, () => engine.read(large));
    for (let round = 3; round < 8; round++) {
      engine.write(tensor, Float32Array.of(10 + round), round);
      reads.push(engine.read(tensor));
    }
    for (const [round, read] of (await Promise.all(reads)).entries())
      expect([...read]).toEqual([...counting(8)].map((value) => (value <= round ? value + 10 : value)));
    for (const read of await Promise.all(whole)) expect(Buffer.compare(read, new Uint8Array(5 * MEGA).fill(7))).toBe(0);
  });

  it("reads and writes at odd places of views", async () => {
    const tensor = engine.upload(Uint8Array.of(1, 2, 3, 4, 5, 6, 7), [7], "u8");
    const view = engine.view(tensor, [3], 3);
    expect(await values(view)).toEqual([4, 5, 6]);
    engine.write(view, Uint8Array.of(50, 60), 1);
    expect(await values(tensor)).toEqual([1, 2, 3, 4, 50, 60, 7]);
    const halves = engine.view(engine.upload(Uint16Array.of(1, 2, 3, 4, 5), [5], "f16"), [2], 3);
    expect(await values(engine.copy(halves))).toEqual([4, 5]);
  });

  it("creates zeros where something else was", async () => {
    engine.upload(counting(300), [300], "f32").dispose();
    expect(await values(engine.create([300]))).toEqual(new Array(300).fill(0));
    expect(await values(engine.create([0, 3]))).toEqual([]);
  });

  it("copies over itself in both directions", async () => {
    const tensor = engine.upload(counting(10), [10], "f32");
    engine.copyInto(tensor, engine.view(tensor, [7], 0), 2);
    expect(await values(tensor)).toEqual([0, 1, 0, 1, 2, 3, 4, 5, 6, 9]);
    engine.copyInto(tensor, engine.view(tensor, [7], 3), 1);
    expect(await values(tensor)).toEqual([0, 1, 2, 3, 4, 5, 6, 9, 6, 9]);
    engine.copyInto(tensor, engine.view(tensor, [5], 0), 5); // side by side
    expect(await values(tensor)).toEqual([0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
  });

  it("asks the driver for memory once for tensors that follow each other", async () => {
    const allocations = fake.count("cuMemAlloc_v2");
    engine.create([3000]).dispose();
    expect(allocations()).toBe(1);
    for (const size of [3000, 2999, 2600, 3000]) engine.create([size]).dispose();
    expect(allocations()).toBe(1);
    const [a, b] = [engine.create([3000]), engine.create([3000])];
    expect(allocations()).toBe(2);
    engine.write(a, counting(3000));
    engine.write(b, counting(3000, 2));
    expect((await engine.read(a))[2999]).toBe(2999);
  });

  describe("launches", () => {
    const addresses = ({ arguments: given }: { arguments: DataView }, count: number) =>
      Array.from({ length: count }, (_, at) => Number(given.getBigUint64(8 * at, true)));

    it("get the addresses of the tensors, views included, and the numbers by their types", () => {
      const a = engine.create([5000]);
      const view = engine.view(a, [4097], 3);
      engine.scale(a, 0.3);
      const result = engine.scale(view, -1.5);
      expect(result.shape).toEqual([4097]);
      const [whole, part, ...none] = fake.launches();
      expect(none).toEqual([]);
      for (const { kernel, grid, block, sharedBytes } of [whole, part])
        expect({ kernel, grid, block, sharedBytes }).toEqual({
          kernel: "scale",
          grid: [5, 1, 1],
          block: [256, 1, 1],
          sharedBytes: 0,
        });
      expect(part.arguments.byteLength).toBe(2 * 8 + 4 + 4);
      const [[first, target], [shifted, otherTarget]] = [addresses(whole, 2), addresses(part, 2)];
      expect(shifted).toBe(first + 12);
      expect(new Set([first, target, otherTarget]).size).toBe(3);
      for (const address of [first, target, shifted, otherTarget]) {
        expect(address).toBeGreaterThan(2 ** 32);
        expect(fake.holds(address)).toBe(true);
      }
      expect(part.arguments.getUint32(16, true)).toBe(4097);
      expect(part.arguments.getFloat32(20, true)).toBe(-1.5);
      expect(whole.arguments.getFloat32(20, true)).toBe(Math.fround(0.3));
    });

    it("pass tensors that are read before those that are written, and whole numbers behind", async () => {
      const [table, indices] = [engine.create([7, 3]), engine.upload(Int32Array.of(1, 0), [2], "i32")];
      const rows = engine.gatherRows(table, indices);
      expect(rows.shape).toEqual([2, 3]);
      const [{ kernel, arguments: given }] = fake.launches();
      expect([kernel, given.byteLength]).toEqual(["gatherRows", 4 * 8 + 6 * 4]);
      const [ofTable, ofIndices, ofRows, fault] = addresses({ arguments: given }, 4);
      expect(new Set([ofTable, ofIndices, ofRows, fault]).size).toBe(4);
      expect([32, 36, 40, 44, 48, 52].map((at) => given.getInt32(at, true))).toEqual([7, 0, 7, 3, 6, 1]);
      await engine.read(rows); // takes the check off the list: the next has number 1 again
      engine.gatherRows(table, indices);
      expect(fake.launches()[1].arguments.getInt32(52, true)).toBe(1);
    });

    it("compile and load a kernel at its first use, once for each set of constants", () => {
      const [loads, x, w] = [fake.count("cuModuleLoadData"), engine.create([2, 64]), engine.create([64])];
      for (const _ of [1, 2, 3]) engine.rmsNorm(x, w, 1e-5);
      expect(loads()).toBe(1);
      engine.rmsNorm(engine.create([2, 2048]), engine.create([2048]), 1e-5); // the other number of lanes
      expect(loads()).toBe(2);
      expect(fake.launches().map(({ kernel }) => kernel)).toEqual(["rmsNorm", "rmsNorm", "rmsNorm", "rmsNorm"]);
    });

    it("are none for empty tensors", () => {
      engine.add(engine.create([0, 4]), engine.create([0, 4]));
      expect(fake.launches()).toEqual([]);
    });
  });

  it("refuses tensors of another engine, and everything after its end", async () => {
    const other = await open();
    const foreign: F32 = other.create([3]);
    expect(() => engine.scale(foreign, 2)).toThrow(/belongs to another engine/);
    await other.close();
    expect(() => other.create([3])).toThrow(/engine was closed/);
    expect(() => other.scale(foreign, 2)).toThrow(/disposed|after its end|engine was closed/);
    await expect(other.read(foreign)).rejects.toMatchObject({ kind: "usage" });
  });

  it("gives everything back at its end, whatever is still alive", async () => {
    const tensors = [engine.create([1000]), engine.upload(counting(9), [9], "f32")];
    engine.scale(tensors[0], 2);
    engine.rmsNorm(engine.create([2, 64]), engine.create([64]), 1e-5);
    engine.create([50]).dispose();
    await engine.read(tensors[1]);
    const alive = fake.alive();
    expect(Object.values(alive).filter((count) => count === 0)).toHaveLength(1); // programs of NVRTC
    await engine.close();
    expect(fake.alive()).toEqual(NOTHING_ALIVE);
    for (const tensor of tensors) tensor.dispose(); // too late, and no harm
    expect(fake.alive()).toEqual(NOTHING_ALIVE);
    engine = await open();
  });
}

if ("fake" in made) {
  afterAll(made.fake.remove);
  describe.each(["work", "uploads"] as const)("a card that is not there, whose %s come as late as they may", (late) =>
    tests(made.fake, late),
  );
} else
  it("says why there is no card to pretend", () => {
    expect(made.reason).toMatch(missingFakes);
    console.log(`The CUDA device was not tested without a card: ${made.reason}`);
  });
