import type { KernelDeclaration } from "../device/device.js";

// WebGPU copies and clears whole words only. These kernels do the rest; they are no operations of an engine, so other devices
// have none of these names.

/** Threads of a group, and words of the target that it copies. */
const THREADS = 256;

export const COPY_BYTES: KernelDeclaration = {
  name: "copyBytes",
  file: "bytes",
  reads: [{ name: "a", dtype: "u8" }],
  writes: [{ name: "y", dtype: "u8" }],
  numbers: [{ name: "size", type: "u32" }],
  constants: [],
  samples: [[]],
  threads: THREADS,
};

export const copyGroups = (byteOffset: number, bytes: number): number =>
  Math.ceil(((byteOffset % 4) + bytes) / 4 / THREADS);

/** Replaces the bits of a mask in one word. */
export const PATCH_WORD: KernelDeclaration = {
  name: "patchWord",
  file: "bytes",
  reads: [],
  writes: [{ name: "y", dtype: "u32" }],
  numbers: [
    { name: "mask", type: "u32" },
    { name: "value", type: "u32" },
  ],
  constants: [],
  samples: [[]],
  threads: 64,
};

export interface WordPatch {
  /** Byte offset of the word. */
  at: number;
  mask: number;
  value: number;
}

/** A range of bytes as whole words [begin, end) and what is left of it at both ends. */
export function splitBytes(
  byteOffset: number,
  bytes: number,
  data?: Uint8Array,
): { begin: number; end: number; patches: WordPatch[] } {
  const last = byteOffset + bytes;
  const begin = Math.ceil(byteOffset / 4) * 4;
  const end = Math.max(begin, Math.floor(last / 4) * 4);
  const patches = new Map<number, WordPatch>();
  const patch = (from: number, to: number) => {
    for (let place = from; place < to; place++) {
      const at = place - (place % 4);
      const word = patches.get(at) ?? { at, mask: 0, value: 0 };
      const shift = 8 * (place % 4);
      word.mask |= 0xff << shift;
      word.value |= (data?.[place - byteOffset] ?? 0) << shift;
      patches.set(at, word);
    }
  };
  patch(byteOffset, Math.min(begin, last));
  patch(Math.max(end, Math.min(begin, last)), last);
  return { begin, end, patches: [...patches.values()] };
}
