import { NoRoom } from "../engine/device/pool.js";
import type { Engine } from "../engine/engine.js";
import { type F32, type HostArray, Tensor } from "../tensor/index.js";

/** Where activations go when memory is short: a scratch file on disk. */
export interface SpillFile {
  write(offset: number, bytes: Uint8Array): Promise<void>;
  read(offset: number, length: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

/**
 * Memory that all stores of a job may take together: first the engine's own where that is not the host's (a card's), then the
 * host's; beyond both they spill.
 */
export class ActivationBudget {
  private held = 0;
  private heldByEngine = 0;
  private peak = 0;
  private spilled = 0;

  constructor(
    readonly limit: number,
    private readonly createSpill?: () => Promise<SpillFile>,
    private readonly onSpill?: (bytes: number) => void,
    /** Bytes of the engine's own memory. */
    private engineLimit = 0,
  ) {}

  /** Stores that may hold some of it. */
  readonly stores = new Set<ActivationStore>();

  /** Takes the engine's memory back: what the stores hold there goes to the host, and nothing comes there any more. */
  async leaveEngine(): Promise<void> {
    this.engineLimit = 0;
    for (const store of this.stores) await store.leaveEngine();
  }

  get engineBytes(): number {
    return this.heldByEngine;
  }

  /** True when `bytes` more fit in the engine's own memory; they are then counted. */
  takeOfEngine(bytes: number): boolean {
    if (this.heldByEngine + bytes > this.engineLimit) return false;
    this.heldByEngine += bytes;
    return true;
  }

  giveToEngine(bytes: number): void {
    this.heldByEngine -= bytes;
  }

  /** True when `bytes` more fit in memory; they are then counted. */
  take(bytes: number): boolean {
    if (this.createSpill !== undefined && this.held + bytes > this.limit) return false;
    this.held += bytes;
    this.peak = Math.max(this.peak, this.held);
    return true;
  }

  give(bytes: number): void {
    this.held -= bytes;
  }

  async spill(): Promise<SpillFile> {
    if (!this.createSpill) throw new Error("no spill file: take() never refuses without one");
    return this.createSpill();
  }

  noteSpilled(bytes: number): void {
    if (this.spilled === 0) this.onSpill?.(bytes);
    this.spilled += bytes;
  }

  get peakBytes(): number {
    return this.peak;
  }

  get spilledBytes(): number {
    return this.spilled;
  }
}

interface Entry {
  shape: readonly number[];
  dtype: "f16" | "f32";
  /** In the engine, in the host's memory, or at this offset of the spill file. */
  data: Tensor<"f16" | "f32"> | HostArray<"f16" | "f32"> | { offset: number; bytes: number };
}

/**
 * One activation tensor a calibration window, outside the engine's scopes. f16 stores fall back to f32 for a window that f16 cannot
 * hold (a value above 65504). What goes in first stays in memory; what does not fit spills.
 */
export class ActivationStore {
  private readonly entries: (Entry | undefined)[];
  private spillFile: SpillFile | undefined;
  private spillEnd = 0;

  constructor(
    private readonly engine: Engine,
    windows: number,
    private readonly dtype: "f16" | "f32",
    private readonly budget: ActivationBudget,
  ) {
    this.entries = new Array(windows);
    budget.stores.add(this);
  }

  async put(window: number, tensor: F32): Promise<void> {
    const { engine, budget } = this;
    const { shape } = tensor;
    await engine.scope(async () => {
      const half = this.dtype === "f16" ? engine.cast(tensor, "f16") : undefined;
      const stored = half && (await engine.allFinite(engine.cast(half, "f32"))) ? half : tensor;
      const dtype = stored.dtype as Entry["dtype"];
      const old = this.entries[window];
      this.forget(old);
      this.entries[window] = undefined;
      if (budget.takeOfEngine(stored.bytes)) {
        try {
          // a copy where the tensor is the caller's
          const own = engine.keep(stored === tensor ? engine.copy(tensor) : stored);
          this.entries[window] = { shape, dtype, data: own };
          return;
        } catch (error) {
          budget.giveToEngine(stored.bytes);
          // where others are there, all of them leave, and it is tried again
          if (!(error instanceof NoRoom) || budget.engineBytes > 0) throw error;
        }
      }
      this.entries[window] = await this.outside({ shape, dtype, data: await engine.read(stored) }, old);
    });
  }

  /** In the host's memory or, beyond its budget, in the spill file: in the place of the window's `old` entry where that fits. */
  private async outside(entry: Entry & { data: HostArray<"f16" | "f32"> }, old?: Entry): Promise<Entry> {
    const { budget } = this;
    const { shape, dtype, data } = entry;
    if (budget.take(data.byteLength)) return entry;
    this.spillFile ??= await budget.spill();
    const before = old && isSpilled(old.data) && old.data.bytes >= data.byteLength ? old.data.offset : undefined;
    const offset = before ?? this.spillEnd;
    if (before === undefined) this.spillEnd += data.byteLength;
    await this.spillFile.write(offset, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    budget.noteSpilled(data.byteLength);
    return { shape, dtype, data: { offset, bytes: data.byteLength } };
  }

  /** Moves what is in the engine's memory to the host. */
  async leaveEngine(): Promise<void> {
    for (const [window, entry] of this.entries.entries()) {
      if (!(entry?.data instanceof Tensor)) continue;
      const data = await this.engine.read(entry.data);
      this.forget(entry);
      this.entries[window] = undefined; // not to be forgotten twice, should the disk be full
      this.entries[window] = await this.outside({ ...entry, data });
    }
  }

  /** Gives back what an entry takes in memory. */
  private forget(entry: Entry | undefined): void {
    if (!entry || isSpilled(entry.data)) return;
    if (!(entry.data instanceof Tensor)) {
      this.budget.give(entry.data.byteLength);
      return;
    }
    this.budget.giveToEngine(entry.data.bytes);
    entry.data.dispose();
  }

  async get(window: number): Promise<F32> {
    const entry = this.entries[window];
    if (!entry) throw new Error(`no activation stored for window ${window}`);
    const { engine } = this;
    let { data } = entry;
    if (data instanceof Tensor) return data.dtype === "f16" ? engine.cast(data, "f32") : engine.copy(data as F32);
    if (isSpilled(data)) {
      if (!this.spillFile) throw new Error("spilled activation without a spill file");
      const bytes = await this.spillFile.read(data.offset, data.bytes);
      const copy = bytes.slice().buffer;
      data = entry.dtype === "f16" ? new Uint16Array(copy) : new Float32Array(copy);
    }
    const { shape } = entry;
    if (entry.dtype === "f32") return engine.upload(data as Float32Array, shape, "f32");
    return engine.scope(() => engine.cast(engine.upload(data as Uint16Array, shape, "f16"), "f32"));
  }

  async close(): Promise<void> {
    for (const entry of this.entries) this.forget(entry);
    this.entries.fill(undefined);
    this.budget.stores.delete(this);
    await this.spillFile?.close();
    this.spillFile = undefined;
  }
}

const isSpilled = (data: Entry["data"]): data is { offset: number; bytes: number } =>
  !(data instanceof Tensor) && !ArrayBuffer.isView(data);
