// Error feedback of the column sweeps on a slab of rows: w_j -= e_i u_ij, product and difference rounded to f32 (never
// fused), in order of i. What a block of columns owes to those behind it is paid at once, in the same order for each element.

/** Columns of a block. */
export const BLOCK: i32 = 64;
/** Columns of packed feedback at a time; the slab has as many columns of padding. */
export const TILE: i32 = 16;

/** target -= error * factor over `rows` (a multiple of 8) rows. */
// @ts-ignore: decorator
@inline
export function payOne(target: usize, error: usize, factor: f32, rows: i32): void {
  const u = f32x4.splat(factor);
  const end = target + (<usize>rows << 2);
  for (; target < end; target += 32) {
    v128.store(target, f32x4.sub(v128.load(target), f32x4.mul(v128.load(error), u)));
    v128.store(target, f32x4.sub(v128.load(target, 16), f32x4.mul(v128.load(error, 16), u)), 16);
    error += 32;
  }
}

/**
 * What the columns [begin, end) owe to [from, to), one after the other. slab [.., rows] holds w, errors [BLOCK][rows] those of the
 * columns from `begin` on; feedback [columns, columns].
 */
export function payWithin(
  slab: usize, rows: i32, errors: usize, feedback: usize, columns: i32, begin: i32, end: i32, from: i32, to: i32,
): void {
  const bytes = <usize>rows << 2;
  for (let j = from; j < to; j++)
    for (let i = begin; i < end; i++)
      payOne(
        slab + <usize>j * bytes, errors + <usize>(i - begin) * bytes,
        load<f32>(feedback + ((<usize>i * <usize>columns + <usize>j) << 2)), rows,
      );
}

/** What columns [begin, end) owe to the TILE columns from j on (those that exist). `packed`: BLOCK * TILE floats. */
export function payTile(
  slab: usize, rows: i32, errors: usize, feedback: usize, columns: i32, begin: i32, end: i32, j: i32, packed: usize,
): void {
  const bytes = <usize>rows << 2;
  const have = min(TILE, columns - j);
  let to = packed;
  for (let i = begin; i < end; i++) {
    const from = feedback + ((<usize>i * <usize>columns + <usize>j) << 2);
    if (have == TILE) {
      v128.store(to, v128.load(from));
      v128.store(to, v128.load(from, 16), 16);
      v128.store(to, v128.load(from, 32), 32);
      v128.store(to, v128.load(from, 48), 48);
    } else {
      for (let t = 0; t < TILE; t++) store<f32>(to + (<usize>t << 2), t < have ? load<f32>(from + (<usize>t << 2)) : 0);
    }
    to += TILE << 2;
  }
  const stop = packed + (<usize>(end - begin) * TILE << 2);
  for (let t = 0; t < have; t += 4) {
    const column = slab + <usize>(j + t) * bytes;
    for (let row: usize = 0; row < bytes; row += 32)
      payFour(column + row, bytes, errors + row, packed + (<usize>t << 2), stop);
  }
}

/** Four columns by eight rows in registers. */
// @ts-ignore: decorator
@inline
function payFour(column: usize, bytes: usize, error: usize, packed: usize, stop: usize): void {
  const column1 = column + bytes, column2 = column1 + bytes, column3 = column2 + bytes;
  let a0 = v128.load(column), b0 = v128.load(column, 16);
  let a1 = v128.load(column1), b1 = v128.load(column1, 16);
  let a2 = v128.load(column2), b2 = v128.load(column2, 16);
  let a3 = v128.load(column3), b3 = v128.load(column3, 16);
  for (; packed < stop; packed += TILE << 2) {
    const x = v128.load(error), y = v128.load(error, 16);
    let u = v128.load_splat<f32>(packed);
    a0 = f32x4.sub(a0, f32x4.mul(x, u));
    b0 = f32x4.sub(b0, f32x4.mul(y, u));
    u = v128.load_splat<f32>(packed, 4);
    a1 = f32x4.sub(a1, f32x4.mul(x, u));
    b1 = f32x4.sub(b1, f32x4.mul(y, u));
    u = v128.load_splat<f32>(packed, 8);
    a2 = f32x4.sub(a2, f32x4.mul(x, u));
    b2 = f32x4.sub(b2, f32x4.mul(y, u));
    u = v128.load_splat<f32>(packed, 12);
    a3 = f32x4.sub(a3, f32x4.mul(x, u));
    b3 = f32x4.sub(b3, f32x4.mul(y, u));
    error += bytes;
  }
  v128.store(column, a0);
  v128.store(column, b0, 16);
  v128.store(column1, a1);
  v128.store(column1, b1, 16);
  v128.store(column2, a2);
  v128.store(column2, b2, 16);
  v128.store(column3, a3);
  v128.store(column3, b3, 16);
}

/** Rows [first, first + rows) of weights [columns, P] to a slab [columns + TILE][padded]; padding is zeros. */
export function loadSlab(weights: usize, P: i32, columns: i32, first: i32, rows: i32, slab: usize, padded: i32): void {
  for (let i = 0; i < columns; i++) {
    const to = slab + (<usize>i * <usize>padded << 2);
    memory.copy(to, weights + ((<usize>i * <usize>P + <usize>first) << 2), <usize>rows << 2);
    memory.fill(to + (<usize>rows << 2), 0, <usize>(padded - rows) << 2);
  }
  memory.fill(slab + (<usize>columns * <usize>padded << 2), 0, <usize>(TILE * padded) << 2);
}
