import { afterEach, describe, expect, it } from "vitest";
import { nodeWorkers } from "../../node/threads.js";
import { WasmRuntime } from "./runtime.js";
import type { WorkerSpawner } from "./worker.js";

/** On a busy machine a worker may sleep through many jobs: milliseconds to go on trying. */
const PATIENCE = 30_000;

const open: WasmRuntime[] = [];
async function runtimeOf(threads: number, spawnWorker: WorkerSpawner = nodeWorkers()): Promise<WasmRuntime> {
  const runtime = await WasmRuntime.create({ threads, spawnWorker });
  open.push(runtime);
  return runtime;
}
afterEach(async () => {
  for (const runtime of open.splice(0)) await runtime.close();
});

/** Doubles `size` numbers on the runtime. */
function double(runtime: WasmRuntime, size: number, target?: number): Float32Array {
  const a = runtime.allocate(4 * size);
  const values = runtime.view("f32", a, size);
  for (let i = 0; i < size; i++) values[i] = i;
  runtime.run("scale", Math.ceil(size / 4096), 1, [target ?? a, a, size, { f32: 2 }]);
  const result = runtime.view("f32", a, size).slice();
  runtime.release(a);
  return result;
}

/** Workers whose kernels throw: `failure` is the code of each. */
const failing = (failure: string): WorkerSpawner => {
  const spawn = nodeWorkers();
  return (source) =>
    spawn(`
      const Real = WebAssembly.Instance;
      WebAssembly.Instance = function (module, imports) {
        const { exports } = new Real(module, imports);
        return { exports: new Proxy({}, { get: (_, name) => (...args) => { ${failure} } }) };
      };
      ${source}`);
};

describe("WasmRuntime", () => {
  it("spreads the units of a job over its threads, each done once", async () => {
    for (const threads of [1, 2, 3]) {
      const runtime = await runtimeOf(threads);
      expect(runtime.threads).toBe(threads);
      for (const size of [1, 4095, 4097, 300_001]) {
        const doubled = double(runtime, size);
        expect(doubled.every((value, i) => value === 2 * i)).toBe(true);
      }
      expect(runtime.liveBytes).toBe(0);
    }
  });

  it("gives the workers a share", async () => {
    // the workers' kernel writes nothing, so some blocks must be left alone
    const runtime = await runtimeOf(2, failing("return"));
    let untouched = 0;
    for (const end = Date.now() + PATIENCE; untouched === 0 && Date.now() < end; )
      untouched = double(runtime, 4_000_000).filter((value, i) => value !== 2 * i).length;
    expect(untouched).toBeGreaterThan(0);
  });

  it("turns a failure in a worker into an error and goes on", async () => {
    const runtime = await runtimeOf(2, failing("throw new Error('out of luck')"));
    let message = "";
    for (const end = Date.now() + PATIENCE; message === "" && Date.now() < end; ) {
      try {
        double(runtime, 4_000_000);
      } catch (error) {
        message = String(error);
      }
    }
    expect(message).toMatch(/wasm kernel 'scale' failed: Error: out of luck/);
    expect(double(runtime, 100)[99]).toBe(198);
  });

  it("turns a trap on the calling thread into an error and goes on", async () => {
    for (const threads of [1, 2]) {
      const runtime = await runtimeOf(threads);
      expect(() => double(runtime, 100_000, 0xfff00000)).toThrow(/wasm kernel 'scale' failed: .*memory access/);
      expect(double(runtime, 100_000)[99_999]).toBe(199_998);
    }
  });

  it("does not wait for a worker that died", async () => {
    const spawn = nodeWorkers();
    let die = (_reason: string): void => {};
    const mortal: WorkerSpawner = (source) => {
      const handle = spawn(source);
      const onFailure = (listener: (reason: string) => void) => {
        die = listener;
        handle.onFailure(listener);
      };
      return { ...handle, onFailure };
    };
    const runtime = await runtimeOf(2, mortal);
    die("it ended with code 1");
    expect(() => double(runtime, 10)).toThrow(/a wasm thread died: worker 1: it ended with code 1/);
  });

  it("reports a worker that does not start", async () => {
    const spawn = nodeWorkers();
    const broken: WorkerSpawner = (source) => spawn(`throw new Error('no threads today');${source}`);
    await expect(runtimeOf(2, broken)).rejects.toThrow(/wasm thread 1 did not start: Error: no threads today/);
  });

  it("grows its memory and keeps what is in it", async () => {
    const runtime = await runtimeOf(2);
    const first = runtime.allocate(16);
    runtime.view("i32", first, 4).set([1, 2, 3, 4]);
    const second = runtime.allocate(50 * 2 ** 20);
    expect(double(runtime, 1_000_000)[999_999]).toBe(1_999_998);
    expect([...runtime.view("i32", first, 4)]).toEqual([1, 2, 3, 4]);
    runtime.release(first);
    runtime.release(second);
    expect(runtime.liveBytes).toBe(0);
  });

  it("makes do with the address space that there is", async () => {
    const { Memory } = WebAssembly;
    const within = (pages: number) =>
      function (this: unknown, descriptor: WebAssembly.MemoryDescriptor) {
        if ((descriptor.maximum ?? 0) > pages) throw new RangeError("no room");
        return new Memory(descriptor);
      } as unknown as typeof Memory;
    try {
      WebAssembly.Memory = within(16384);
      const runtime = await runtimeOf(2);
      expect(double(runtime, 10_000)[9_999]).toBe(19_998);
      expect(() => runtime.allocate(2 ** 30)).toThrow(/of 1024 MB/);
      WebAssembly.Memory = within(2048);
      await expect(runtimeOf(1)).rejects.toThrow(/no WebAssembly memory with threads: RangeError: no room/);
    } finally {
      WebAssembly.Memory = Memory;
    }
  });

  it("refuses work after its end", async () => {
    const runtime = await runtimeOf(2);
    const address = runtime.allocate(64);
    await runtime.close();
    await runtime.close();
    expect(() => runtime.allocate(64)).toThrow(/was closed/);
    expect(() => runtime.run("scale", 1, 1, [address, address, 1, { f32: 1 }])).toThrow(/was closed/);
    runtime.release(address);
  });

  it("says what to do when 4 GiB do not suffice", async () => {
    const runtime = await runtimeOf(1);
    expect(() => runtime.allocate(2 ** 32)).toThrow(/4096 MB .*are in use/);
  });
});
