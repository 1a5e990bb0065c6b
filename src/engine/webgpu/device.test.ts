import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { testGpu } from "../../../test/webgpu-adapter.js";
import { createRandom } from "../../random.js";
import type { KernelDeclaration } from "../device/device.js";
import { type OpenDevice, openDevice } from "./adapter.js";
import { splitBytes } from "./bytes.js";
import { WebgpuDevice } from "./device.js";
import { createWebgpuEngine } from "./engine.js";
import { KERNEL_FILES } from "./kernels.generated.js";

const HEAD = "@compute @workgroup_size(THREADS)\nfn ";
const INDICES =
  "(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32)";

/** Kernels of these tests: y += factor a, 64 elements a group; one that counts its groups; one that does not compile. */
const FILES = {
  ...KERNEL_FILES,
  probe: `
//# probe
${HEAD}probe${INDICES} {
  let i = groupOf(w, c) * THREADS + t;
  if (i < n.size) { y[n.y_at + i] += n.factor * a[n.a_at + i]; }
}
//# count
${HEAD}count${INDICES} {
  let group = groupOf(w, c);
  if (group < n.groups && t == 0) { y[n.y_at + group] += STEP; }
}
//# broken
${HEAD}broken${INDICES} { y[0] = nothing; }
//# swap
${HEAD}swap${INDICES} {
  if (t == 0) { let old = y[n.y_at]; y[n.y_at] = z[n.z_at]; z[n.z_at] = old; }
}`,
};
const declare = (name: string, part: Partial<KernelDeclaration>): KernelDeclaration => ({
  name,
  file: "probe",
  reads: [],
  writes: [{ name: "y", dtype: "f32" }],
  numbers: [],
  constants: [],
  samples: [],
  threads: 64,
  ...part,
});
const PROBE = declare("probe", {
  reads: [{ name: "a", dtype: "f32" }],
  numbers: [
    { name: "size", type: "u32" },
    { name: "factor", type: "f32" },
  ],
});
const COUNT = declare("count", { writes: [{ name: "y", dtype: "u32" }], constants: ["STEP"] });
const BROKEN = declare("broken", {});
const SWAP = declare("swap", {
  writes: [
    { name: "y", dtype: "f32" },
    { name: "z", dtype: "f32" },
  ],
});

describe("ranges of bytes", () => {
  it("are whole words and what is left at both ends", () => {
    const data = Uint8Array.from({ length: 24 }, (_, i) => 100 + i);
    for (let offset = 0; offset < 9; offset++)
      for (let bytes = 0; bytes <= 24 - offset; bytes++) {
        const seen = new Uint8Array(40);
        const { begin, end, patches } = splitBytes(offset, bytes, data);
        for (let at = begin; at < end; at++) seen[at] = data[at - offset];
        const words = new DataView(seen.buffer);
        for (const { at, mask, value } of patches) {
          expect([at % 4, value & ~mask]).toEqual([0, 0]);
          words.setUint32(at, (words.getUint32(at, true) & ~mask) | value, true);
        }
        const expected = new Uint8Array(40);
        expected.set(data.subarray(0, bytes), offset);
        expect(seen).toEqual(expected);
      }
  });
});

const found = await testGpu();
if ("gpu" in found) {
  const { gpu } = found;
  describe("the WebGPU device", () => {
    let open: OpenDevice;
    let device: WebgpuDevice;
    beforeEach(async () => {
      const opened = await openDevice(gpu);
      if ("reason" in opened) throw new Error(opened.reason);
      open = opened.open;
      device = new WebgpuDevice(open, FILES);
    });
    afterEach(() => device.close());

    const floats = async (block: ReturnType<typeof device.allocate>, at: number, count: number) => [
      ...new Float32Array((await device.download(block, 4 * at, 4 * count)).buffer),
    ];
    const place = (values: number[]) => {
      const block = device.allocate(4 * values.length);
      device.upload(block, 0, new Uint8Array(Float32Array.from(values).buffer));
      return block;
    };
    const add = (from: object, a: number, to: object, y: number, size: number, factor = 1) =>
      device.run(PROBE, {
        groups: Math.ceil(size / 64),
        bindings: [
          { block: from as typeof to & { bytes: number }, byteOffset: 4 * a, bytes: 4 * size },
          { block: to as typeof to & { bytes: number }, byteOffset: 4 * y, bytes: 4 * size },
        ],
        numbers: [size, factor],
        constants: [],
      });

    it("moves bytes from any place to any place", async () => {
      const random = createRandom(1, "bytes");
      const bytes = (length: number) => Uint8Array.from({ length }, () => random.integer(256));
      const [left, right] = [bytes(4099), bytes(4099)];
      const [one, other] = [device.allocate(4099), device.allocate(4099)];
      device.upload(one, 0, left);
      device.upload(other, 0, right);
      for (let turn = 0; turn < 60; turn++) {
        const [from, to] = [random.integer(2000), random.integer(2000)];
        const count = random.integer(turn % 2 === 0 ? 12 : 2000);
        const kind = random.integer(4);
        if (kind === 0) {
          device.copy(one, from, other, to, count);
          right.set(left.subarray(from, from + count), to);
        } else if (kind === 1) {
          device.copy(one, from, one, to, count);
          left.copyWithin(to, from, from + count);
        } else if (kind === 2) {
          device.zero(one, to, count);
          left.fill(0, to, to + count);
        } else {
          const fresh = bytes(count);
          device.upload(other, to, fresh);
          right.set(fresh, to);
          fresh.fill(0); // what was handed over may be changed
        }
      }
      expect(await device.download(one, 0, 4099)).toEqual(left);
      expect(await device.download(other, 0, 4099)).toEqual(right);
      for (const from of [0, 1, 2, 3, 2047])
        for (const count of [0, 1, 4, 7, 1000])
          expect(await device.download(one, from, count)).toEqual(left.slice(from, from + count));
    });

    it("runs in the order of the calls", async () => {
      const [a, y] = [place([1, 1]), place([0, 0])];
      add(a, 0, y, 0, 2);
      device.upload(a, 0, new Uint8Array(Float32Array.of(10, 20).buffer));
      add(a, 0, y, 0, 2);
      device.zero(a, 0, 4);
      add(a, 0, y, 0, 2);
      const before = floats(y, 0, 2);
      add(a, 0, y, 0, 2, 1000);
      expect(await before).toEqual([11, 41]);
      expect(await floats(y, 0, 2)).toEqual([11, 20041]);
    });

    it("runs more kernels than one submission takes", async () => {
      const [a, y] = [place([1]), place([0])];
      for (let turn = 0; turn < 1000; turn++) add(a, 0, y, 0, 1);
      expect(await floats(y, 0, 1)).toEqual([1000]);
    });

    it("frees a block while kernels that use it wait", async () => {
      const [a, y] = [place([5]), place([1])];
      add(a, 0, y, 0, 1);
      device.release(a);
      expect(await floats(y, 0, 1)).toEqual([6]);
    });

    it("reads and writes one block, wherever the tensors lie", async () => {
      for (const [a, y] of [
        [0, 3],
        [3, 0],
        [0, 128],
        [65, 7],
      ]) {
        const host = Array.from({ length: 192 }, (_, i) => i);
        const block = place(host);
        add(block, a, block, y, 60, 2);
        const expected = [...host];
        for (let i = 0; i < 60; i++) expected[y + i] += 2 * host[a + i];
        expect(await floats(block, 0, 192)).toEqual(expected);
      }
    });

    it("writes two tensors that lie side by side", async () => {
      const block = place([1, 2, 3, 4, 5, 6]);
      const at = (element: number) => ({ block, byteOffset: 4 * element, bytes: 4 });
      device.run(SWAP, { groups: 1, bindings: [at(1), at(4)], numbers: [], constants: [] });
      expect(await floats(block, 0, 6)).toEqual([1, 5, 3, 4, 2, 6]);
    });

    it("runs every group once, also more than one dimension takes", async () => {
      for (const groups of [1, 65535, 65536, 200001]) {
        const y = device.allocate(4 * groups);
        device.zero(y, 0, 4 * groups);
        const bindings = [{ block: y, byteOffset: 0, bytes: 4 * groups }];
        device.run(COUNT, { groups, bindings, numbers: [], constants: [1] });
        device.run(COUNT, { groups, bindings, numbers: [], constants: [30] });
        const counts = new Uint32Array((await device.download(y, 0, 4 * groups)).buffer);
        expect(counts.every((count) => count === 31)).toBe(true);
      }
    });

    it("tells which kernel does not compile, and gives no data out", async () => {
      const y = place([1]);
      device.run(BROKEN, {
        groups: 1,
        bindings: [{ block: y, byteOffset: 0, bytes: 4 }],
        numbers: [],
        constants: [],
      });
      await expect(device.download(y, 0, 4)).rejects.toMatchObject({
        kind: "unsupported",
        message: expect.stringMatching(/kernel broken: .*nothing/s),
      });
    });

    it("refuses what is larger than the device takes", () => {
      expect(() => device.allocate(open.device.limits.maxBufferSize + 4)).toThrow(/MB on the WebGPU device/);
    });

    it("tells of its loss at every call from then on", async () => {
      const y = place([1]);
      open.device.destroy();
      await open.device.lost;
      for (const call of [() => device.allocate(4), () => device.zero(y, 0, 4), () => add(y, 0, y, 0, 1)])
        expect(call).toThrow(/was lost/);
      await expect(device.download(y, 0, 4)).rejects.toMatchObject({ kind: "unsupported" });
      device.release(y);
    });

    it("tells of its loss to those that wait", async () => {
      const reading = device.download(place([1]), 0, 4);
      open.device.destroy();
      await expect(reading).rejects.toThrow(/was lost/);
    });

    it("says nothing of what comes after its end", async () => {
      const engine = await createWebgpuEngine({ gpu });
      if ("reason" in engine) throw new Error(engine.reason);
      await engine.engine.close();
      expect(() => engine.engine.create([1])).toThrow(/closed/);
    });
  });
} else
  it("says what is missing where there is no adapter", () => {
    expect(found.reason).toMatch(/webgpu|WebGPU/);
    console.log(`the WebGPU device was not tested: ${found.reason}`);
  });

it("says where there is no WebGPU at all", async () => {
  expect(await createWebgpuEngine()).toMatchObject({ reason: expect.stringMatching(/no WebGPU/) });
  const none = { requestAdapter: async () => null } as unknown as GPU;
  expect(await createWebgpuEngine({ gpu: none })).toMatchObject({ reason: expect.stringMatching(/no adapter/) });
});
