import { float, int, pointer } from "./lib/job";
import { COLUMNS, multiplyPanels, packColumns, packRows, ROWS } from "./lib/product";

/** Rows of A, or columns of B, that one unit packs. */
const PACK: i32 = 64;

/** Packs rows [first, last) of op(A), k long, into panels of `width`; `transposed` when the memory holds [k, rows]. */
function pack(
  source: usize,
  stride: usize,
  transposed: bool,
  first: i32,
  last: i32,
  k: i32,
  width: i32,
  target: usize,
  weights: usize,
): void {
  const panelBytes = <usize>width * (<usize>k << 2);
  target += <usize>(first / width) * panelBytes;
  if (transposed) {
    packColumns(source + (<usize>first << 2), stride, last - first, k, width, target, panelBytes, weights);
    return;
  }
  const step = <usize>width << 2;
  for (let row = first; row < last; row += width) {
    for (let part = 0; part < width; part += 4) {
      const rows = min(4, last - row - part);
      const to = target + (<usize>part << 2);
      if (rows > 0) packRows(source + <usize>(row + part) * stride, stride, rows, k, to, step);
      else for (let i = 0; i < k; i++) v128.store(to + <usize>i * step, i32x4.splat(0));
    }
    target += panelBytes;
  }
}

/**
 * Packs A and B. Slots: 0 a, 1 its row stride in bytes, 2 stored as [k, m], 3 m, 4 packed A, 5 k, 6 units of A; 8 b, 9 its
 * row stride, 10 stored as [k, n], 11 n, 12 packed B; 13 weights of k for A, or 0.
 * Units: 64 rows of A each, then 64 columns of B each.
 */
export function packPanels(begin: i32, end: i32, args: usize, scratch: usize): void {
  const k = int(args, 5);
  const unitsOfA = int(args, 6);
  for (let unit = begin; unit < end; unit++) {
    if (unit < unitsOfA) {
      const first = unit * PACK;
      const last = min(first + PACK, int(args, 3));
      const weights = pointer(args, 13);
      pack(pointer(args, 0), pointer(args, 1), int(args, 2) != 0, first, last, k, ROWS, pointer(args, 4), weights);
    } else {
      const first = (unit - unitsOfA) * PACK;
      const last = min(first + PACK, int(args, 11));
      pack(pointer(args, 8), pointer(args, 9), int(args, 10) != 0, first, last, k, COLUMNS, pointer(args, 12), 0);
    }
  }
}

/**
 * C from packed panels. Slots: 0 packed A, 1 packed B, 2 c, 3 its row stride in bytes, 4 m, 5 n, 6 k, 7 alpha (f32),
 * 8 accumulate, 9 rows that the diagonal is moved down (see `multiplyPanels`; 2^30 for all), 10 rows and 11 columns of a tile (multiples of 8). Units: tiles, row by row.
 * Scratch: 128 bytes.
 */
export function multiplyTiles(begin: i32, end: i32, args: usize, scratch: usize): void {
  const m = int(args, 4);
  const n = int(args, 5);
  const tileRows = int(args, 10);
  const tileColumns = int(args, 11);
  const across = (n + tileColumns - 1) / tileColumns;
  for (let unit = begin; unit < end; unit++) {
    const row = (unit / across) * tileRows;
    const column = (unit % across) * tileColumns;
    multiplyPanels(
      pointer(args, 0),
      pointer(args, 1),
      pointer(args, 2),
      pointer(args, 3),
      int(args, 6),
      row,
      min(row + tileRows, m),
      column,
      min(column + tileColumns, n),
      float(args, 7),
      int(args, 8) != 0,
      int(args, 9),
      scratch,
    );
  }
}

/**
 * A stack of small products, each on one thread. Slots: 0 a, 1 its row stride, 2 stored as [k, m], 3 bytes of one; 4 b, 5 its row
 * stride, 6 stored as [k, n], 7 bytes of one; 8 c, 9 m, 10 n, 11 k, 12 alpha (f32), 13 accumulate. Units: products.
 * Scratch: 128 + 4 k (m rounded up to 4 + n rounded up to 8) bytes.
 */
export function multiplyStack(begin: i32, end: i32, args: usize, scratch: usize): void {
  const m = int(args, 9);
  const n = int(args, 10);
  const k = int(args, 11);
  const packedA = scratch + 128;
  const packedB = packedA + (<usize>((m + 3) & ~3) * <usize>k << 2);
  const stride = <usize>n << 2;
  const alpha = float(args, 12);
  const accumulate = int(args, 13) != 0;
  for (let unit = <usize>begin; unit < <usize>end; unit++) {
    const a = pointer(args, 0) + unit * pointer(args, 3);
    const b = pointer(args, 4) + unit * pointer(args, 7);
    const c = pointer(args, 8) + unit * <usize>m * stride;
    pack(a, pointer(args, 1), int(args, 2) != 0, 0, m, k, ROWS, packedA, 0);
    pack(b, pointer(args, 5), int(args, 6) != 0, 0, n, k, COLUMNS, packedB, 0);
    multiplyPanels(packedA, packedB, c, stride, k, 0, m, 0, n, alpha, accumulate, 1 << 30, scratch);
  }
}
