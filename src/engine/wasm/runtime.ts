import { BitwrightError, unsupportedError } from "../../errors.js";
import { type DType, type HostArray, hostView } from "../../tensor/index.js";
import { Allocator } from "./allocator.js";
import { PLAIN_KERNELS, RELAXED_KERNELS } from "./kernels.generated.js";
import { CONTROL, OPEN, SPINS, WORKER_SOURCE, type WorkerHandle, type WorkerSpawner } from "./worker.js";

// Map of the memory: constants of the modules from 1024 on, the control block and the arguments, then the heap.
const CONTROL_ADDRESS = 32 * 1024;
const ARGUMENTS_ADDRESS = CONTROL_ADDRESS + 4 * CONTROL.words;
const HEAP_ADDRESS = 64 * 1024;
const ARGUMENT_SLOTS = 256;
const PAGE = 64 * 1024;
const MAXIMUM_PAGES = 65536;
/** 256 MiB: below this an engine is of no use. */
const LEAST_PAGES = 4096;
/** Chunks a thread gets on average: enough for balance when one of them is disturbed. */
const CHUNKS_PER_THREAD = 8;
/** Scratch above this is given back after its job. */
const KEPT_SCRATCH_BYTES = 16 * 2 ** 20;

/** One 8-byte slot: an i32, or an address; floating-point numbers say their width. */
export type Argument = number | { f32: number } | { f64: number };

export type Kernel = (begin: number, end: number, args: number, scratch: number) => void;

export interface RuntimeOptions {
  /** Threads that compute, the calling one included. Default 1. */
  threads?: number;
  /** Needed for more than one thread. */
  spawnWorker?: WorkerSpawner;
  /** Relaxed SIMD (fused multiply-add, whose rounding depends on the machine). Default: where the machine has it. */
  relaxed?: boolean;
}

/** The memory, the kernels and the threads of one wasm engine. */
export class WasmRuntime {
  readonly threads: number;
  private readonly words: Int32Array;
  private readonly argumentView: DataView;
  private readonly allocator: Allocator;
  private readonly names: ReadonlyMap<string, number>;
  private readonly table: readonly Kernel[];
  private readonly deadWorkers: string[] = [];
  private scratchAddress = 0;
  private scratchBytes = 0;
  private closed = false;

  private constructor(
    module: WebAssembly.Module,
    private readonly memory: WebAssembly.Memory,
    private readonly maximumPages: number,
    private readonly workers: readonly WorkerHandle[],
    readonly relaxed: boolean,
  ) {
    this.threads = workers.length + 1;
    this.words = new Int32Array(memory.buffer, CONTROL_ADDRESS, CONTROL.words);
    this.argumentView = new DataView(memory.buffer, ARGUMENTS_ADDRESS, 8 * ARGUMENT_SLOTS);
    this.allocator = new Allocator(HEAP_ADDRESS, maximumPages * PAGE, (end) => this.grow(end));
    const names = kernelNames(module);
    this.names = new Map(names.map((name, index) => [name, index]));
    const { exports } = new WebAssembly.Instance(module, { env: { memory } });
    this.table = names.map((name) => exports[name] as Kernel);
  }

  /** Compiles the kernels and starts the threads. Throws "unsupported" when the machine lacks SIMD or shared memory. */
  static async create(options: RuntimeOptions = {}): Promise<WasmRuntime> {
    const relaxed = options.relaxed ?? hasRelaxedSimd();
    const bytes = fromBase64(relaxed ? RELAXED_KERNELS : PLAIN_KERNELS);
    if (!WebAssembly.validate(bytes))
      throw unsupportedError(
        `this JavaScript engine does not run WebAssembly with ${relaxed ? "relaxed " : ""}SIMD and threads`,
        relaxed ? "ask for the reproducible build, which needs plain SIMD only" : "use a newer browser or Node >= 20",
      );
    const module = await WebAssembly.compile(bytes);
    const { memory, maximumPages } = sharedMemory();
    const extra = options.spawnWorker ? Math.max(0, Math.floor(options.threads ?? 1) - 1) : 0;
    const workers: WorkerHandle[] = [];
    try {
      for (let index = 0; index < extra; index++) workers.push((options.spawnWorker as WorkerSpawner)(WORKER_SOURCE));
      const runtime = new WasmRuntime(module, memory, maximumPages, workers, relaxed);
      const kernels = kernelNames(module);
      const start = { module, memory, kernels, control: CONTROL_ADDRESS };
      await Promise.all(
        workers.map(
          (worker, index) =>
            new Promise<void>((resolve, reject) => {
              worker.onMessage((reply) => {
                if ("ready" in reply) resolve();
                else reject(workerError(index + 1, reply.failed));
              });
              worker.onFailure((reason) => {
                if (!runtime.closed) runtime.deadWorkers.push(`worker ${index + 1}: ${reason}`);
                reject(workerError(index + 1, reason));
              });
              worker.send({ ...start, thread: index + 1 });
            }),
        ),
      );
      for (const worker of workers) worker.release();
      return runtime;
    } catch (error) {
      await Promise.allSettled(workers.map((worker) => worker.terminate()));
      if (error instanceof BitwrightError) throw error;
      throw unsupportedError(`the wasm threads did not start: ${error}`, "use one thread"); // memory that cannot be shared
    }
  }

  // ---- memory

  /** Address of `bytes` new bytes, 64-byte aligned, contents undefined. Throws "unsupported" when 4 GiB do not suffice. */
  allocate(bytes: number): number {
    if (this.closed) throw new BitwrightError("usage", "the wasm engine was closed");
    return this.allocator.allocate(bytes);
  }

  release(address: number): void {
    if (!this.closed) this.allocator.release(address);
  }

  /** Bytes handed out and not given back, scratch not counted. */
  get liveBytes(): number {
    return this.allocator.liveBytes - this.scratchBytes;
  }

  /** The memory as it is now. Views of it stay valid when the memory grows (it is shared). */
  get buffer(): ArrayBufferLike {
    return this.memory.buffer;
  }

  view<D extends DType>(dtype: D, address: number, length: number): HostArray<D> {
    return hostView(dtype, this.memory.buffer, address, length);
  }

  /** Runs `body` with `bytes` bytes that are given back at its end. */
  withTemporary<T>(bytes: number, body: (address: number) => T): T {
    const address = this.allocate(bytes);
    try {
      return body(address);
    } finally {
      this.release(address);
    }
  }

  private grow(end: number): void {
    const have = this.memory.buffer.byteLength;
    if (end <= have) return;
    // ahead of need by an eighth, so that growth stays rare; untouched pages cost nothing
    const ahead = Math.min(this.maximumPages, Math.ceil((end + end / 8) / PAGE));
    try {
      this.memory.grow(ahead - have / PAGE);
    } catch {
      try {
        this.memory.grow(Math.ceil(end / PAGE) - have / PAGE);
      } catch (cause) {
        throw new BitwrightError(
          "unsupported",
          `the machine refused to grow the wasm engine's memory from ${have} to ${end} bytes`,
          "close other programs, or use shorter windows or fewer calibration samples",
          { cause },
        );
      }
    }
  }

  // ---- work

  hasKernel(name: string): boolean {
    return this.names.has(name);
  }

  /**
   * Does units 0 .. units - 1 of a kernel and returns when all are done. `grain`: the least number of units worth giving to
   * another thread; a job of one grain runs on the calling thread alone. `scratchBytes`: private memory of each thread.
   */
  run(kernel: string, units: number, grain: number, args: readonly Argument[], scratchBytes = 0): void {
    if (this.closed) throw new BitwrightError("usage", "the wasm engine was closed");
    if (units <= 0) return;
    const index = this.names.get(kernel);
    if (index === undefined) throw new Error(`there is no wasm kernel '${kernel}'`);
    if (this.deadWorkers.length > 0)
      throw new BitwrightError("unsupported", `a wasm thread died: ${this.deadWorkers[0]}`);
    this.writeArguments(args);
    const scratch = this.reserveScratch(scratchBytes);
    const run = this.table[index];
    try {
      if (this.threads === 1 || units <= grain) runAlone(run, units, scratch);
      else this.runOnAll(index, run, units, grain, scratch);
    } catch (error) {
      if (error instanceof BitwrightError) throw error;
      throw new BitwrightError("unsupported", `the wasm kernel '${kernel}' failed: ${error}`, undefined, {
        cause: error,
      });
    } finally {
      if (this.scratchBytes > KEPT_SCRATCH_BYTES * this.threads) this.dropScratch();
    }
  }

  private runOnAll(index: number, run: Kernel, units: number, grain: number, scratch: number): void {
    const { words } = this;
    const chunk = Math.max(1, Math.floor(grain), Math.ceil(units / (this.threads * CHUNKS_PER_THREAD)));
    words[CONTROL.kernel] = index;
    words[CONTROL.units] = units;
    words[CONTROL.chunk] = chunk;
    words[CONTROL.arguments] = ARGUMENTS_ADDRESS;
    words[CONTROL.scratch] = scratch;
    words[CONTROL.scratchBytes] = this.scratchBytes / this.threads;
    words[CONTROL.failed] = 0;
    Atomics.store(words, CONTROL.next, 0);
    Atomics.store(words, CONTROL.gate, OPEN);
    Atomics.add(words, CONTROL.generation, 1);
    Atomics.notify(words, CONTROL.generation);
    try {
      for (;;) {
        const begin = Atomics.add(words, CONTROL.next, chunk);
        if (begin >= units) break;
        run(begin, Math.min(begin + chunk, units), ARGUMENTS_ADDRESS, scratch);
      }
    } finally {
      Atomics.store(words, CONTROL.next, units);
      this.closeGate();
    }
    const failed = words[CONTROL.failed];
    if (failed !== 0) {
      const length = words[CONTROL.message];
      const text = String.fromCharCode(...words.subarray(CONTROL.message + 1, CONTROL.message + 1 + length));
      throw new BitwrightError("unsupported", `the wasm kernel '${kernelOf(this.names, index)}' failed: ${text}`);
    }
  }

  /** Lets no more workers in and waits until the last has left. A worker that wakes too late finds the gate closed. */
  private closeGate(): void {
    const { words } = this;
    Atomics.and(words, CONTROL.gate, ~OPEN);
    for (let spins = SPINS; spins > 0; spins--) if (Atomics.load(words, CONTROL.gate) === 0) return;
    for (;;) {
      const inside = Atomics.load(words, CONTROL.gate);
      if (inside === 0) return;
      if (canWait()) Atomics.wait(words, CONTROL.gate, inside);
    }
  }

  private writeArguments(args: readonly Argument[]): void {
    if (args.length > ARGUMENT_SLOTS) throw new Error(`a kernel takes at most ${ARGUMENT_SLOTS} arguments`);
    const view = this.argumentView;
    for (let slot = 0; slot < args.length; slot++) {
      const value = args[slot];
      if (typeof value === "number") view.setInt32(8 * slot, value, true);
      else if ("f32" in value) view.setFloat32(8 * slot, value.f32, true);
      else view.setFloat64(8 * slot, value.f64, true);
    }
  }

  private reserveScratch(bytes: number): number {
    const each = Math.ceil(bytes / 64) * 64;
    if (each * this.threads > this.scratchBytes) {
      this.dropScratch();
      this.scratchAddress = this.allocator.allocate(each * this.threads);
      this.scratchBytes = each * this.threads;
    }
    return this.scratchAddress;
  }

  private dropScratch(): void {
    if (this.scratchBytes > 0) this.allocator.release(this.scratchAddress);
    this.scratchAddress = 0;
    this.scratchBytes = 0;
  }

  /** Stops the threads. The memory goes when nothing refers to it. */
  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    Atomics.store(this.words, CONTROL.stop, 1);
    Atomics.add(this.words, CONTROL.generation, 1);
    Atomics.notify(this.words, CONTROL.generation);
    await Promise.all(this.workers.map((worker) => worker.terminate()));
  }
}

/** Room for 4 GiB, or for as much as the machine lets us reserve. Nothing is used before it is needed. */
function sharedMemory(): { memory: WebAssembly.Memory; maximumPages: number } {
  for (let maximumPages = MAXIMUM_PAGES; ; maximumPages /= 2) {
    try {
      const memory = new WebAssembly.Memory({ initial: 2, maximum: maximumPages, shared: true });
      return { memory, maximumPages };
    } catch (error) {
      if (maximumPages <= LEAST_PAGES)
        throw unsupportedError(
          `no WebAssembly memory with threads: ${error}`,
          "free address space, or use a newer browser",
        );
    }
  }
}

/** In several calls too: V8's optimized code of a kernel takes over at the next call, not within one. */
function runAlone(run: Kernel, units: number, scratch: number): void {
  const chunk = Math.ceil(units / CHUNKS_PER_THREAD);
  for (let begin = 0; begin < units; begin += chunk)
    run(begin, Math.min(begin + chunk, units), ARGUMENTS_ADDRESS, scratch);
}

const kernelNames = (module: WebAssembly.Module): string[] =>
  WebAssembly.Module.exports(module)
    .filter(({ kind }) => kind === "function")
    .map(({ name }) => name);

const kernelOf = (names: ReadonlyMap<string, number>, index: number): string =>
  [...names].find(([, number]) => number === index)?.[0] ?? "?";

const workerError = (thread: number, reason: string) =>
  unsupportedError(`wasm thread ${thread} did not start: ${reason}`, "use one thread");

const fromBase64 = (text: string): Uint8Array<ArrayBuffer> => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));

/** Browsers forbid their main thread to sleep. */
let waits: boolean | undefined;
function canWait(): boolean {
  if (waits === undefined) {
    try {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 1);
      waits = true;
    } catch {
      waits = false;
    }
  }
  return waits;
}

/** (func (result v128) (f32x4.relaxed_madd z z z)) with z = i32x4.splat(0) */
const RELAXED_PROBE = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 19, 1, 17, 0, 65, 0, 253, 17, 65, 0, 253, 17, 65,
  0, 253, 17, 253, 133, 2, 11,
]);

export const hasRelaxedSimd = (): boolean => WebAssembly.validate(RELAXED_PROBE);
