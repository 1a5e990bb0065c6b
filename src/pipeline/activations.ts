import type { Engine } from "../engine/engine.js";
import type { F32, HostArray } from "../tensor/index.js";

/** Where activations go when memory is short: a scratch file on disk. */
export interface SpillFile {
  write(offset: number, bytes: Uint8Array): Promise<void>;
  read(offset: number, length: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** Memory that all stores of a job may take together; beyond it they spill. */
export class ActivationBudget {
  private held = 0;
  private peak = 0;
  private spilled = 0;

  constructor(
    readonly limit: number,
    private readonly createSpill?: () => Promise<SpillFile>,
    private readonly onSpill?: (bytes: number) => void,
  ) {}

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
  /** In memory, or at this offset of the spill file. */
  data: HostArray<"f16" | "f32"> | { offset: number; bytes: number };
}

/**
 * One activation tensor a calibration window, outside the engine. f16 stores fall back to f32 for a window that f16 cannot
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
  }

  async put(window: number, tensor: F32): Promise<void> {
    const { data, dtype } = await this.engine.scope(async () => {
      if (this.dtype === "f16") {
        const half = this.engine.cast(tensor, "f16");
        if (await this.engine.allFinite(this.engine.cast(half, "f32")))
          return { data: await this.engine.read(half), dtype: "f16" as const };
      }
      return { data: await this.engine.read(tensor), dtype: "f32" as const };
    });
    const old = this.entries[window];
    if (old && ArrayBuffer.isView(old.data)) this.budget.give(old.data.byteLength);
    if (this.budget.take(data.byteLength)) {
      this.entries[window] = { shape: tensor.shape, dtype, data };
      return;
    }
    this.spillFile ??= await this.budget.spill();
    const reuse = old && !ArrayBuffer.isView(old.data) && old.data.bytes >= data.byteLength;
    const offset = reuse ? (old.data as { offset: number }).offset : this.spillEnd;
    if (!reuse) this.spillEnd += data.byteLength;
    await this.spillFile.write(offset, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    this.budget.noteSpilled(data.byteLength);
    this.entries[window] = { shape: tensor.shape, dtype, data: { offset, bytes: data.byteLength } };
  }

  async get(window: number): Promise<F32> {
    const entry = this.entries[window];
    if (!entry) throw new Error(`no activation stored for window ${window}`);
    let data = entry.data;
    if (!ArrayBuffer.isView(data)) {
      if (!this.spillFile) throw new Error("spilled activation without a spill file");
      const bytes = await this.spillFile.read(data.offset, data.bytes);
      const copy = bytes.slice().buffer;
      data = entry.dtype === "f16" ? new Uint16Array(copy) : new Float32Array(copy);
    }
    if (entry.dtype === "f32") return this.engine.upload(data as Float32Array, entry.shape, "f32");
    return this.engine.scope(() =>
      this.engine.cast(this.engine.upload(data as Uint16Array, entry.shape, "f16"), "f32"),
    );
  }

  async close(): Promise<void> {
    for (const entry of this.entries)
      if (entry && ArrayBuffer.isView(entry.data)) this.budget.give(entry.data.byteLength);
    this.entries.fill(undefined);
    await this.spillFile?.close();
    this.spillFile = undefined;
  }
}
