import { beforeEach, describe, expect, it } from "vitest";
import { usageError } from "../../errors.js";
import { type Device, type DeviceBlock, declareKernel } from "./device.js";
import { DeviceMemory } from "./memory.js";

// What a kernel refuses, on a device in the host's memory whose only kernel refuses what it is told to.

const REFUSE = declareKernel("test", "refuse", {
  writes: { fault: "i32" },
  numbers: { check: "i32", value: "i32" },
});

class HostBlock implements DeviceBlock {
  readonly data: Uint8Array<ArrayBuffer>;
  constructor(readonly bytes: number) {
    this.data = new Uint8Array(bytes);
  }
}

const dataOf = (block: DeviceBlock): Uint8Array<ArrayBuffer> => (block as HostBlock).data;

const hostDevice = (): Device => ({
  name: "cuda",
  description: "",
  arithmetic: "",
  freeBytes: () => undefined,
  allocate: (bytes) => new HostBlock(bytes),
  release: () => {},
  zero: (block, byteOffset, bytes) => dataOf(block).fill(0, byteOffset, byteOffset + bytes),
  upload: (block, byteOffset, data) => dataOf(block).set(data, byteOffset),
  copy: () => {},
  async download(block, byteOffset, bytes) {
    const taken = dataOf(block).slice(byteOffset, byteOffset + bytes);
    await Promise.resolve();
    return taken;
  },
  run(_kernel, { bindings: [fault], numbers }) {
    const word = new Int32Array(dataOf(fault.block).buffer);
    if (word[0] === 0 && numbers[1] !== 0) word.set([...numbers, 5]);
  },
  close: async () => {},
});

describe("faults", () => {
  let memory: DeviceMemory;
  beforeEach(() => {
    memory = new DeviceMemory(hostDevice());
  });
  /** A call that refuses `value`; 0 passes. */
  const refuse = (name: string, value: number) => {
    const { word, number } = memory.fault((found, at) => usageError(`${name} refused ${found} at ${at}`));
    memory.run(REFUSE, { groups: 1, tensors: [word], numbers: [number, value] });
  };

  it("are thrown by the next call that waits, once", async () => {
    const tensor = memory.upload(Float32Array.of(1), [1], "f32");
    refuse("one", 0);
    refuse("two", -3);
    refuse("three", 9);
    await expect(memory.read(tensor)).rejects.toThrow("two refused -3 at 5");
    expect(await memory.read(tensor)).toEqual(Float32Array.of(1));
    refuse("four", 4);
    await expect(memory.read(tensor)).rejects.toThrow("four refused 4 at 5");
  });

  it("are thrown by one of the reads that wait together", async () => {
    const tensor = memory.upload(Float32Array.of(1), [1], "f32");
    refuse("one", 7);
    const first = memory.read(tensor);
    refuse("two", 0);
    const second = memory.read(tensor);
    const third = memory.read(tensor);
    refuse("three", 0);
    await expect(first).rejects.toThrow("one refused 7 at 5");
    expect(await second).toEqual(Float32Array.of(1));
    expect(await third).toEqual(Float32Array.of(1));
    expect(await memory.read(tensor)).toEqual(Float32Array.of(1));
  });
});
