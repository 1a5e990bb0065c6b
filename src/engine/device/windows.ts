import { BYTES_PER_ELEMENT, type Tensor } from "../../tensor/index.js";
import type { KernelDeclaration } from "./device.js";
import type { DeviceMemory, KernelCall } from "./memory.js";

// Kernels see tensors up to a bound (`DeviceMemory.windowBytes`). An operation whose tensors may be larger says here how its work
// divides; it is then done in windows, with the bytes that one call would give. Where all fits, nothing is different.

/** How work divides along one axis: elements, rows, items of a batch. */
export interface Division {
  extent: number;
  /** Windows begin at multiples of it. Default 1. */
  step?: number;
  /** Elements of each tensor that belong to `step` of the extent, in order; 0 for one that every window sees whole. */
  each: readonly number[];
}

/** A part [first, first + count) of an extent. */
export interface Window {
  first: number;
  count: number;
}

/** Is one of the tensors too large to be seen at once? */
export function exceeds(memory: DeviceMemory, tensors: readonly Tensor[]): boolean {
  const most = memory.windowBytes;
  return tensors.some(({ bytes }) => bytes > most);
}

/** Windows of which one at a time can be seen, `bytes` in `step` of the extent; a step that is too large is the device's to refuse. */
export function windowsOf(memory: DeviceMemory, extent: number, bytes: number, step = 1): Window[] {
  const together = step * Math.max(1, Math.floor(memory.windowBytes / bytes));
  if (!(together < extent)) return [{ first: 0, count: extent }];
  return Array.from({ length: Math.ceil(extent / together) }, (_, index) => {
    const first = index * together;
    return { first, count: Math.min(together, extent - first) };
  });
}

/** Calls `body` with the tensors, or with views of them, window by window. */
export function inWindows<T extends readonly Tensor[]>(
  memory: DeviceMemory,
  tensors: T,
  { extent, step = 1, each }: Division,
  body: (tensors: T, count: number, first: number) => void,
): void {
  if (!exceeds(memory, tensors)) {
    body(tensors, extent, 0);
    return;
  }
  const bytes = Math.max(...tensors.map(({ dtype }, index) => each[index] * BYTES_PER_ELEMENT[dtype]));
  for (const { first, count } of windowsOf(memory, extent, bytes, step))
    memory.scope(() => {
      const views = tensors.map((tensor, index) => {
        if (each[index] === 0) return tensor;
        const begin = (first / step) * each[index];
        const size = Math.min(Math.ceil(count / step) * each[index], tensor.size - begin);
        return memory.view(tensor, [size], begin);
      });
      body(views as unknown as T, count, first);
    });
}

/** Runs a kernel in windows; `call` is what it takes for `count` of the extent from `first` on. */
export function runWindows(
  memory: DeviceMemory,
  kernel: KernelDeclaration,
  tensors: readonly Tensor[],
  division: Division,
  call: (count: number, first: number) => Omit<KernelCall, "tensors">,
): void {
  inWindows(memory, tensors, division, (views, count, first) =>
    memory.run(kernel, { tensors: views, ...call(count, first) }),
  );
}

/** Rows within a tensor: the first begins at element `at`, the others `stride` elements apart. */
export interface Rows {
  tensor: Tensor;
  at: number;
  stride: number;
}

/** Copies `count` rows of `width` elements; no kernel has to see the tensors, which are different ones. */
export function copyRows(memory: DeviceMemory, from: Rows, to: Rows, count: number, width: number): void {
  const size = BYTES_PER_ELEMENT[from.tensor.dtype];
  const [source, target] = [memory.bindingOf(from.tensor), memory.bindingOf(to.tensor)];
  memory.noteWritten(target.block);
  const place = (binding: { byteOffset: number }, { at, stride }: Rows, row: number) =>
    binding.byteOffset + size * (at + row * stride);
  const dense = from.stride === width && to.stride === width;
  const [copies, length] = dense ? [Math.min(1, count), count * width] : [count, width];
  for (let row = 0; row < copies; row++)
    memory.device.copy(source.block, place(source, from, row), target.block, place(target, to, row), size * length);
}

/** Elements of the last axis of a tensor for one of a window's: the axis may count vectors where the window counts elements. */
function lastAxis({ shape, size }: Tensor, extent: number, { first, count }: Window) {
  const last = shape[shape.length - 1];
  const scaled = (index: number) => (index * last) / extent;
  return { rows: size / last, last, at: scaled(first), width: scaled(count) };
}

/** A copy of a window of the last axis, which stands for `extent`. */
export function takeLast<T extends Tensor>(memory: DeviceMemory, tensor: T, extent: number, window: Window): T {
  const { rows, last, at, width } = lastAxis(tensor, extent, window);
  const part = memory.empty([...tensor.shape.slice(0, -1), width], tensor.dtype);
  copyRows(memory, { tensor, at, stride: last }, { tensor: part, at: 0, stride: width }, rows, width);
  return part as T;
}

/** Puts a window back that has the shape which `takeLast` gives. */
export function putLast(memory: DeviceMemory, tensor: Tensor, part: Tensor, extent: number, window: Window): void {
  const { rows, last, at, width } = lastAxis(tensor, extent, window);
  copyRows(memory, { tensor: part, at: 0, stride: width }, { tensor, at, stride: last }, rows, width);
}
