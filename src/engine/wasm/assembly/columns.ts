import { int, pointer } from "./lib/job";

// Reductions of matrices [R, C] to their columns: a unit makes the partial result of a block of rows for 1024 columns, so that
// the order of the sum is the same on any number of threads.

/** Columns of a unit: their f64 sums (8 kB) stay in L1. */
const CHUNK: i32 = 1024;

/**
 * partial[block][c] = sum of a[r][c] over a block of rows, in f64. Slots: 0 partial (f64), 1 a, 2 R, 3 C, 4 rows of a block.
 * Units: chunks of the columns of the first block, then of the second, ..
 */
export function sumColumns(begin: i32, end: i32, args: usize, scratch: usize): void {
  const rows = int(args, 2);
  const width = int(args, 3);
  const rowsOfBlock = int(args, 4);
  const chunks = (width + CHUNK - 1) / CHUNK;
  for (let unit = begin; unit < end; unit++) {
    const block = unit / chunks;
    const first = (unit % chunks) * CHUNK;
    const bytes = <usize>min(CHUNK, width - first) << 2;
    const sums = pointer(args, 0) + ((<usize>block * <usize>width + <usize>first) << 3);
    memory.fill(sums, 0, bytes << 1);
    for (let row = block * rowsOfBlock; row < min(rows, (block + 1) * rowsOfBlock); row++) {
      const a = pointer(args, 1) + ((<usize>row * <usize>width + <usize>first) << 2);
      let at: usize = 0;
      for (; at + 16 <= bytes; at += 16) {
        const x = v128.load(a + at);
        const sum = sums + (at << 1);
        v128.store(sum, f64x2.add(v128.load(sum), f64x2.promote_low_f32x4(x)));
        const high = f64x2.promote_low_f32x4(v128.shuffle<f32>(x, x, 2, 3, 2, 3));
        v128.store(sum, f64x2.add(v128.load(sum, 16), high), 16);
      }
      for (; at < bytes; at += 4) {
        const sum = sums + (at << 1);
        store<f64>(sum, load<f64>(sum) + <f64>load<f32>(a + at));
      }
    }
  }
}

/** target[c] = sum of partial[p][c]. Slots: 0 target, 1 partial (f64), 2 number of partials, 3 C. Units: 1024 columns. */
export function addPartials(begin: i32, end: i32, args: usize, scratch: usize): void {
  const width = int(args, 3);
  for (let column = begin * CHUNK; column < min(width, end * CHUNK); column++) {
    let sum: f64 = 0;
    for (let p = 0; p < int(args, 2); p++) sum += load<f64>(pointer(args, 1) + ((<usize>p * <usize>width + <usize>column) << 3));
    store<f32>(pointer(args, 0) + (<usize>column << 2), <f32>sum);
  }
}

/** partial[block][c] = max |a[r][c]| over a block of rows. Slots and units: as `sumColumns`, but f32. */
export function absMaxColumns(begin: i32, end: i32, args: usize, scratch: usize): void {
  const rows = int(args, 2);
  const width = int(args, 3);
  const rowsOfBlock = int(args, 4);
  const chunks = (width + CHUNK - 1) / CHUNK;
  for (let unit = begin; unit < end; unit++) {
    const block = unit / chunks;
    const first = (unit % chunks) * CHUNK;
    const bytes = <usize>min(CHUNK, width - first) << 2;
    const tops = pointer(args, 0) + ((<usize>block * <usize>width + <usize>first) << 2);
    memory.fill(tops, 0, bytes);
    for (let row = block * rowsOfBlock; row < min(rows, (block + 1) * rowsOfBlock); row++) {
      const a = pointer(args, 1) + ((<usize>row * <usize>width + <usize>first) << 2);
      let at: usize = 0;
      for (; at + 16 <= bytes; at += 16)
        v128.store(tops + at, f32x4.max(v128.load(tops + at), f32x4.abs(v128.load(a + at))));
      for (; at < bytes; at += 4)
        store<f32>(tops + at, max<f32>(load<f32>(tops + at), abs<f32>(load<f32>(a + at))));
    }
  }
}

/** target[r] = sum of a[r][i] b[r][i], in f64. Slots: 0 target, 1 a, 2 b, 3 width. Units: rows. */
export function rowDots(begin: i32, end: i32, args: usize, scratch: usize): void {
  const bytes = <usize>int(args, 3) << 2;
  for (let row = begin; row < end; row++) {
    const a = pointer(args, 1) + <usize>row * bytes;
    const b = pointer(args, 2) + <usize>row * bytes;
    let sum0 = f64x2.splat(0);
    let sum1 = f64x2.splat(0);
    let at: usize = 0;
    for (; at + 16 <= bytes; at += 16) {
      const x = v128.load(a + at);
      const y = v128.load(b + at);
      sum0 = f64x2.add(sum0, f64x2.mul(f64x2.promote_low_f32x4(x), f64x2.promote_low_f32x4(y)));
      const highX = f64x2.promote_low_f32x4(v128.shuffle<f32>(x, x, 2, 3, 2, 3));
      const highY = f64x2.promote_low_f32x4(v128.shuffle<f32>(y, y, 2, 3, 2, 3));
      sum1 = f64x2.add(sum1, f64x2.mul(highX, highY));
    }
    const pair = f64x2.add(sum0, sum1);
    let sum = f64x2.extract_lane(pair, 0) + f64x2.extract_lane(pair, 1);
    for (; at < bytes; at += 4) sum += <f64>load<f32>(a + at) * <f64>load<f32>(b + at);
    store<f32>(pointer(args, 0) + (<usize>row << 2), <f32>sum);
  }
}
