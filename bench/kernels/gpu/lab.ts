import { CudaDevice } from "../../../src/engine/cuda/device.js";
import { openToolkitLibrary } from "../../../src/engine/cuda/libraries.js";
import { DeviceMemory } from "../../../src/engine/device/memory.js";
import type { Engine, Precision } from "../../../src/engine/engine.js";
import { createReferenceEngine } from "../../../src/engine/reference/index.js";
import { createEngine } from "../../../src/node/engines.js";
import { createRandom } from "../../../src/random.js";
import { type F32, type HostArray, sizeOf, type Tensor } from "../../../src/tensor/index.js";
import type { Work } from "./cards.js";
import { type Clock, CudaClock, HostClock } from "./clock.js";
import { BareCublas } from "./cublas.js";
import type { TorchRequest } from "./torch.js";

/** Sizes of a model, and of the k-means of one of its linears. */
export interface Extents {
  name: string;
  tokens: number;
  hidden: number;
  mlp: number;
  heads: number;
  keyValueHeads: number;
  /** v, and codewords of the codebook. */
  vectorLength: number;
  codewords: number;
}

export interface Version {
  name: string;
  /** Enqueues one call, or waits for it where the operation does. What it makes is freed by the caller. */
  run: () => unknown;
}

/** One kernel at one size. */
export interface Case {
  shape: string;
  work: Work;
  /** In the order in which they were made; the last is the product's. */
  versions: Version[];
  /** Runs a version and gives how far it is from the reference on a slice; in words in the README. */
  check: (run: () => unknown) => Promise<number>;
  /** Most that `check` may give. */
  tolerance: number;
  /** The same by a library through bare calls. */
  library?: Version;
  torch?: TorchRequest;
}

export type MakeCase = (bench: Bench, extents: Extents) => Case | undefined | Promise<Case | undefined>;

/** An engine with all that a case needs. */
export interface Bench {
  kind: "cuda" | "webgpu";
  engine: Engine & DeviceMemory;
  reference: Engine;
  clock: Clock;
  cublas: BareCublas | undefined;
  /** Normal numbers; after a million of them they come again, out of step with rows and vectors. */
  draw: (shape: readonly number[], spread?: number) => F32;
  close: () => Promise<void>;
}

const TILE = 2 ** 20 + 7;
const random = createRandom(0, "kernels");
let tile: Float32Array | undefined;
let drawn = 0;

/** Numbers as `Bench.draw` gives them. */
export function normal(size: number, spread = 1): Float32Array {
  tile ??= Float32Array.from({ length: TILE }, () => random.normal());
  const result = new Float32Array(size);
  for (let at = 0; at < size; ) {
    const piece = tile.subarray(drawn, drawn + size - at);
    result.set(piece, at);
    at += piece.length;
    drawn = (drawn + piece.length) % TILE;
  }
  return spread === 1 ? result : result.map((value) => value * spread);
}

export async function openBench(kind: "cuda" | "webgpu", precision: Precision): Promise<Bench> {
  const { engine } = await createEngine(kind, { precision });
  if (!(engine instanceof DeviceMemory)) throw new Error(`${kind} is not an engine on a device`);
  const { device } = engine;
  let cublas: BareCublas | undefined;
  let clock: Clock = new HostClock(engine);
  if (device instanceof CudaDevice) {
    clock = new CudaClock(engine, device);
    const found = openToolkitLibrary(device.driver.koffi, "cublas");
    if ("library" in found) cublas = new BareCublas(engine, device, found.library);
  }
  return {
    kind,
    engine,
    reference: createReferenceEngine(),
    clock,
    cublas,
    draw: (shape, spread) => engine.upload(normal(sizeOf(shape), spread), shape, "f32"),
    async close() {
      clock.close();
      cublas?.close();
      await engine.close();
    },
  };
}

// ---- slices, and the same on the reference engine

/** Rows [begin, begin + count) of [R, ..]. */
export function rowsOf<D extends "f32" | "i32">(bench: Bench, tensor: Tensor<D>, begin: number, count: number) {
  const rest = tensor.shape.slice(1);
  const width = sizeOf(rest);
  return bench.engine.read(bench.engine.view(tensor, [count, ...rest], begin * width));
}

/** The corner [0 .. rows, 0 .. columns) of a matrix. */
export async function cornerOf(bench: Bench, tensor: F32, rows: number, columns: number): Promise<Float32Array> {
  const width = tensor.shape[1];
  const all = await rowsOf(bench, tensor, 0, rows);
  const corner = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row++) corner.set(all.subarray(row * width, row * width + columns), row * columns);
  return corner;
}

/** What the reference makes of host arrays: operations in a scope, their result on the host. */
export async function expected<D extends "f32" | "i32" | "f16" | "u8">(
  { reference }: Bench,
  body: (on: Engine, f32: (data: Float32Array, shape: readonly number[]) => F32) => Tensor<D> | Promise<Tensor<D>>,
): Promise<HostArray<D>> {
  return reference.scope(async () =>
    reference.read(await body(reference, (data, shape) => reference.upload(data, shape, "f32"))),
  );
}

/** Where only zeros are expected, a kernel that does nothing would agree. */
const NOTHING = Number.POSITIVE_INFINITY;

/** The largest difference as a share of the largest expected number. */
export function largestError(got: ArrayLike<number>, want: ArrayLike<number>): number {
  if (got.length !== want.length) throw new Error(`expected ${want.length} numbers, got ${got.length}`);
  let [difference, largest] = [0, 0];
  for (let i = 0; i < want.length; i++) {
    const distance = Math.abs(got[i] - want[i]);
    if (Number.isNaN(distance)) return Number.POSITIVE_INFINITY;
    difference = Math.max(difference, distance);
    largest = Math.max(largest, Math.abs(want[i]));
  }
  return largest === 0 ? NOTHING : difference / largest;
}

/** Share of numbers that differ by more than 1e-5 of the largest: of rounded numbers a few may fall to the other side. */
export function shareOff(got: ArrayLike<number>, want: ArrayLike<number>): number {
  if (got.length !== want.length) throw new Error(`expected ${want.length} numbers, got ${got.length}`);
  let largest = 0;
  for (let i = 0; i < want.length; i++) largest = Math.max(largest, Math.abs(want[i]));
  if (largest === 0) return NOTHING;
  let off = 0;
  for (let i = 0; i < want.length; i++) if (!(Math.abs(got[i] - want[i]) <= 1e-5 * largest)) off++;
  return off / want.length;
}
