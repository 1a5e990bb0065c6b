import { float, int, pointer } from "./lib/job";

/** Columns of the source that one unit of `transpose` moves: a cache line of each row. */
const BAND: i32 = 16;

// @ts-ignore: decorator
@inline
function transpose4x4(source: usize, sourceStride: usize, target: usize, targetStride: usize): void {
  const r0 = v128.load(source);
  const r1 = v128.load(source + sourceStride);
  const r2 = v128.load(source + 2 * sourceStride);
  const r3 = v128.load(source + 3 * sourceStride);
  const low01 = v128.shuffle<f32>(r0, r1, 0, 4, 1, 5);
  const low23 = v128.shuffle<f32>(r2, r3, 0, 4, 1, 5);
  const high01 = v128.shuffle<f32>(r0, r1, 2, 6, 3, 7);
  const high23 = v128.shuffle<f32>(r2, r3, 2, 6, 3, 7);
  v128.store(target, v128.shuffle<f64>(low01, low23, 0, 2));
  v128.store(target + targetStride, v128.shuffle<f64>(low01, low23, 1, 3));
  v128.store(target + 2 * targetStride, v128.shuffle<f64>(high01, high23, 0, 2));
  v128.store(target + 3 * targetStride, v128.shuffle<f64>(high01, high23, 1, 3));
}

/** [rows, columns] -> [columns, rows]. Slots: 0 target, 1 source, 2 rows, 3 columns. Units: bands of 16 columns. */
export function transpose(begin: i32, end: i32, args: usize, scratch: usize): void {
  const target = pointer(args, 0);
  const source = pointer(args, 1);
  const rows = int(args, 2);
  const columns = int(args, 3);
  const sourceStride = <usize>columns << 2;
  const targetStride = <usize>rows << 2;
  const wholeRows = rows & ~3;
  for (let band = begin; band < end; band++) {
    const first = band * BAND;
    const last = min(first + BAND, columns);
    const wholeColumns = first + ((last - first) & ~3);
    for (let row = 0; row < rows; row += 4) {
      const whole = row < wholeRows;
      let column = first;
      if (whole)
        for (; column < wholeColumns; column += 4) {
          const from = source + <usize>row * sourceStride + (<usize>column << 2);
          transpose4x4(from, sourceStride, target + <usize>column * targetStride + (<usize>row << 2), targetStride);
        }
      const lastRow = min(row + 4, rows);
      for (; column < last; column++)
        for (let r = row; r < lastRow; r++) {
          const value = load<f32>(source + <usize>r * sourceStride + (<usize>column << 2));
          store<f32>(target + <usize>column * targetStride + (<usize>r << 2), value);
        }
    }
  }
}

/** target[m] = table[indices[m]]. Slots: 0 target, 1 table, 2 indices, 3 bytes of a row. Units: rows of the target. */
export function gatherRows(begin: i32, end: i32, args: usize, scratch: usize): void {
  const bytes = <usize>int(args, 3);
  for (let row = begin; row < end; row++) {
    const index = load<u32>(pointer(args, 2) + (<usize>row << 2));
    memory.copy(pointer(args, 0) + <usize>row * bytes, pointer(args, 1) + <usize>index * bytes, bytes);
  }
}

/** Copies `bytes` at least 64 kB at a time. Slots: 0 target, 1 source, 2 bytes. Units: 64 kB. */
export function copyBytes(begin: i32, end: i32, args: usize, scratch: usize): void {
  const first = <usize>begin << 16;
  const last = min(<usize>end << 16, pointer(args, 2));
  memory.copy(pointer(args, 0) + first, pointer(args, 1) + first, last - first);
}

/** target[i] = a[i][i]. Slots: 0 target, 1 a, 2 N. Units: rows. */
export function diagonal(begin: i32, end: i32, args: usize, scratch: usize): void {
  const stride = (<usize>int(args, 2) + 1) << 2;
  for (let i = <usize>begin; i < <usize>end; i++)
    store<f32>(pointer(args, 0) + (i << 2), load<f32>(pointer(args, 1) + i * stride));
}

/** a[i][i] += value. Slots: 0 a, 1 N, 2 value (f32). Units: rows. */
export function addDiagonal(begin: i32, end: i32, args: usize, scratch: usize): void {
  const stride = (<usize>int(args, 1) + 1) << 2;
  for (let i = <usize>begin; i < <usize>end; i++) {
    const at = pointer(args, 0) + i * stride;
    store<f32>(at, load<f32>(at) + float(args, 2));
  }
}

/** Copies the upper triangle over the lower one: a[i][j] = a[j][i] for j < i. Slots: 0 a, 1 N. Units: bands of 16 rows. */
export function mirrorUpper(begin: i32, end: i32, args: usize, scratch: usize): void {
  const a = pointer(args, 0);
  const n = int(args, 1);
  const stride = <usize>n << 2;
  for (let band = begin; band < end; band++) {
    const first = band * BAND;
    const last = min(first + BAND, n);
    // whole 4 x 4 blocks left of the band, then what remains element by element
    const wholeRows = first + ((last - first) & ~3);
    for (let column = 0; column < first; column += 4)
      for (let row = first; row < wholeRows; row += 4)
        transpose4x4(a + <usize>column * stride + (<usize>row << 2), stride, a + <usize>row * stride + (<usize>column << 2), stride);
    for (let row = first; row < last; row++)
      for (let column = row < wholeRows ? first : 0; column < row; column++)
        store<f32>(a + <usize>row * stride + (<usize>column << 2), load<f32>(a + <usize>column * stride + (<usize>row << 2)));
  }
}
