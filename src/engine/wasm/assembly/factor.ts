// Cholesky factor and triangular inverse in f64, blocked. Each element's sum runs in ascending order, as in the reference.

import { int, pointer } from "./lib/job";

/** Side of a block. */
const SIDE: i32 = 64;
const SIDE_BYTES: usize = 512;
const BLOCK_BYTES: usize = 32768;
/** Keeps equal rows of the 16 groups of columns from falling onto the same lines of L1. */
const GROUP_PADDING: usize = 2112;

/** Address of a panel (64 columns, rows from the diagonal on) in the packed lower triangle; rows are a multiple of 4. */
// @ts-ignore: decorator
@inline
function panelAt(packed: usize, panel: i32, rows: i32): usize {
  const p = <usize>panel;
  return packed + SIDE_BYTES * (p * <usize>rows - SIDE * ((p * (p - 1)) >> 1));
}

/** c [4 rows, `stride` bytes apart][4] += (or -=) a [4 rows of 64, 512 bytes apart] times b [64][4]. */
// @ts-ignore: decorator
@inline
function multiplyBlock(subtract: bool, a: usize, b: usize, c: usize, stride: usize): void {
  const c1 = c + stride, c2 = c1 + stride, c3 = c2 + stride;
  let s0 = v128.load(c), t0 = v128.load(c, 16);
  let s1 = v128.load(c1), t1 = v128.load(c1, 16);
  let s2 = v128.load(c2), t2 = v128.load(c2, 16);
  let s3 = v128.load(c3), t3 = v128.load(c3, 16);
  for (const end = a + SIDE_BYTES; a < end; a += 8) {
    const x = v128.load(b), y = v128.load(b, 16);
    let f = v128.load_splat<f64>(a);
    s0 = step(subtract, s0, f, x);
    t0 = step(subtract, t0, f, y);
    f = v128.load_splat<f64>(a, 512);
    s1 = step(subtract, s1, f, x);
    t1 = step(subtract, t1, f, y);
    f = v128.load_splat<f64>(a, 1024);
    s2 = step(subtract, s2, f, x);
    t2 = step(subtract, t2, f, y);
    f = v128.load_splat<f64>(a, 1536);
    s3 = step(subtract, s3, f, x);
    t3 = step(subtract, t3, f, y);
    b += 32;
  }
  v128.store(c, s0);
  v128.store(c, t0, 16);
  v128.store(c1, s1);
  v128.store(c1, t1, 16);
  v128.store(c2, s2);
  v128.store(c2, t2, 16);
  v128.store(c3, s3);
  v128.store(c3, t3, 16);
}

// @ts-ignore: decorator
@inline
function step(subtract: bool, sum: v128, a: v128, b: v128): v128 {
  return subtract ? f64x2.sub(sum, f64x2.mul(a, b)) : f64x2.add(sum, f64x2.mul(a, b));
}

/**
 * The rows of panel p in the panels before it, transposed for `multiplyBlock`: [q][column of p in fours][64][4].
 * Slots of the four kernels: a f32 [N, N], N, rows (N rounded up to a multiple of 4), packed triangle f64, transposed f64, p,
 * status (f64: -1, or the pivot that failed; then its value), target f32 [N, N]. Units: q < p.
 */
export function choleskyTranspose(begin: i32, end: i32, args: usize, scratch: usize): void {
  const rows = int(args, 2);
  const p = int(args, 5);
  for (let q = begin; q < end; q++) {
    const from = panelAt(pointer(args, 3), q, rows) + <usize>(p - q) * BLOCK_BYTES;
    const to = pointer(args, 4) + <usize>q * BLOCK_BYTES;
    const have = min(SIDE, rows - p * SIDE);
    for (let r = 0; r < SIDE; r++) {
      const row = from + <usize>r * SIDE_BYTES;
      const column = to + (<usize>(r >> 2) << 11) + (<usize>(r & 3) << 3);
      for (let k: usize = 0; k < <usize>SIDE; k++)
        store<f64>(column + (k << 5), r < have ? load<f64>(row + (k << 3)) : 0);
    }
  }
}

/** Panel p of a less the products of the panels before it. Units: blocks of 64 rows, from the diagonal on. */
export function choleskyUpdate(begin: i32, end: i32, args: usize, scratch: usize): void {
  const a = pointer(args, 0);
  const n = int(args, 1);
  const rows = int(args, 2);
  const p = int(args, 5);
  const panel = panelAt(pointer(args, 3), p, rows);
  const columns = min(SIDE, n - p * SIDE);
  for (let block = begin; block < end; block++) {
    const first = (p + block) * SIDE;
    const last = min(rows, first + SIDE);
    const target = panel + <usize>block * BLOCK_BYTES;
    for (let i = first; i < last; i++) {
      const to = target + <usize>(i - first) * SIDE_BYTES;
      const from = a + ((<usize>i * <usize>n + <usize>(p * SIDE)) << 2);
      for (let j = 0; j < SIDE; j++) {
        const read = i < n && j < columns && p * SIDE + j <= i; // the upper triangle is not read
        store<f64>(to + (<usize>j << 3), read ? <f64>load<f32>(from + (<usize>j << 2)) : 0);
      }
    }
    for (let q = 0; q < p; q++) {
      const left = panelAt(pointer(args, 3), q, rows) + <usize>(p - q + block) * BLOCK_BYTES;
      const right = pointer(args, 4) + <usize>q * BLOCK_BYTES;
      for (let r: usize = 0; r < <usize>(last - first); r += 4)
        for (let j: usize = 0; j < <usize>columns; j += 4)
          multiplyBlock(
            true, left + r * SIDE_BYTES, right + (j << 9), target + r * SIDE_BYTES + (j << 3), SIDE_BYTES,
          );
    }
  }
}

/** Factors the diagonal block of panel p and leaves its transpose behind the transposed blocks. One unit. */
export function choleskyDiagonal(begin: i32, end: i32, args: usize, scratch: usize): void {
  const n = int(args, 1);
  const p = int(args, 5);
  const block = panelAt(pointer(args, 3), p, int(args, 2));
  const transposed = pointer(args, 4) + <usize>p * BLOCK_BYTES;
  memory.fill(transposed, 0, BLOCK_BYTES);
  const count = min(SIDE, n - p * SIDE);
  for (let i = 0; i < count; i++) {
    const row = block + <usize>i * SIDE_BYTES;
    for (let j = 0; j <= i; j++) {
      const other = block + <usize>j * SIDE_BYTES;
      let rest = load<f64>(row + (<usize>j << 3));
      for (let k: usize = 0; k < <usize>j << 3; k += 8) rest -= load<f64>(row + k) * load<f64>(other + k);
      if (j < i) rest /= load<f64>(other + (<usize>j << 3));
      else if (rest > 0 && rest < Infinity) rest = sqrt(rest);
      else {
        store<f64>(pointer(args, 6), <f64>(p * SIDE + i));
        store<f64>(pointer(args, 6), rest, 8);
        return;
      }
      store<f64>(row + (<usize>j << 3), rest);
      store<f64>(transposed + <usize>j * SIDE_BYTES + (<usize>i << 3), rest);
    }
  }
}

/** Solves X L^T = C for the rows of panel p below its diagonal block. Units: blocks of 64 rows below it. */
export function choleskySolve(begin: i32, end: i32, args: usize, scratch: usize): void {
  const n = int(args, 1);
  const rows = int(args, 2);
  const p = int(args, 5);
  const transposed = pointer(args, 4) + <usize>p * BLOCK_BYTES;
  const panel = panelAt(pointer(args, 3), p, rows);
  const count = <usize>min(SIDE, n - p * SIDE);
  for (let block = begin + 1; block < end + 1; block++) {
    const have = min(SIDE, rows - (p + block) * SIDE);
    for (let r = 0; r < have; r += 4) {
      const row = panel + <usize>block * BLOCK_BYTES + <usize>r * SIDE_BYTES;
      for (let j: usize = 0; j < count; j++) {
        const factors = transposed + j * SIDE_BYTES; // L_kj for all k
        const pivot = load<f64>(factors + (j << 3));
        const at = row + (j << 3);
        const x0 = load<f64>(at) / pivot, x1 = load<f64>(at, 512) / pivot;
        const x2 = load<f64>(at, 1024) / pivot, x3 = load<f64>(at, 1536) / pivot;
        store<f64>(at, x0);
        store<f64>(at, x1, 512);
        store<f64>(at, x2, 1024);
        store<f64>(at, x3, 1536);
        let k = j + 1;
        if (k & 1) {
          const f = load<f64>(factors + (k << 3)), to = row + (k << 3);
          if (k < count) {
            store<f64>(to, load<f64>(to) - x0 * f);
            store<f64>(to, load<f64>(to, 512) - x1 * f, 512);
            store<f64>(to, load<f64>(to, 1024) - x2 * f, 1024);
            store<f64>(to, load<f64>(to, 1536) - x3 * f, 1536);
          }
          k++;
        }
        const y0 = f64x2.splat(x0), y1 = f64x2.splat(x1), y2 = f64x2.splat(x2), y3 = f64x2.splat(x3);
        for (; k < count; k += 2) {
          const f = v128.load(factors + (k << 3)), to = row + (k << 3);
          v128.store(to, f64x2.sub(v128.load(to), f64x2.mul(y0, f)));
          v128.store(to, f64x2.sub(v128.load(to, 512), f64x2.mul(y1, f)), 512);
          v128.store(to, f64x2.sub(v128.load(to, 1024), f64x2.mul(y2, f)), 1024);
          v128.store(to, f64x2.sub(v128.load(to, 1536), f64x2.mul(y3, f)), 1536);
        }
      }
    }
  }
}

/** The packed triangle to f32, zeros above the diagonal. Units: rows. */
export function choleskyUnpack(begin: i32, end: i32, args: usize, scratch: usize): void {
  const n = int(args, 1);
  const rows = int(args, 2);
  for (let i = begin; i < end; i++) {
    const to = pointer(args, 7) + (<usize>i * <usize>n << 2);
    for (let p = 0; p * SIDE <= i; p++) {
      const from = panelAt(pointer(args, 3), p, rows) + <usize>(i - p * SIDE) * SIDE_BYTES;
      const last = min(SIDE, i + 1 - p * SIDE);
      for (let j = 0; j < last; j++)
        store<f32>(to + (<usize>(p * SIDE + j) << 2), <f32>load<f64>(from + (<usize>j << 3)));
    }
    memory.fill(to + (<usize>(i + 1) << 2), 0, <usize>(n - i - 1) << 2);
  }
}

/**
 * `triangularInverse`: 64 columns of X = L^-1 by forward substitution. Slots: lower f32 [N, N], N, target f32 [N, N].
 * Units: panels of 64 columns. Scratch: columns f64 [16][rows][4] with rows N rounded up to a multiple of 64 and a gap after
 * each of the 16, a block of L f64.
 */
export function triangularInverse(begin: i32, end: i32, args: usize, scratch: usize): void {
  const lower = pointer(args, 0);
  const n = int(args, 1);
  const target = pointer(args, 2);
  const groupBytes = (<usize>((n + SIDE - 1) & ~(SIDE - 1)) << 5) + GROUP_PADDING;
  const x = scratch;
  const packed = x + 16 * groupBytes;
  for (let panel = begin; panel < end; panel++) {
    const start = panel * SIDE;
    const columns = min(SIDE, n - start);
    const groups = <usize>((columns + 3) >> 2);
    memory.fill(x, 0, groups * groupBytes);
    for (let first = start; first < n; first += SIDE) {
      const last = min(n, first + SIDE);
      for (let before = start; before < first; before += SIDE) {
        packBlock(lower, n, first, last, before, packed);
        for (let r: usize = 0; r < <usize>(last - first); r += 4)
          for (let g: usize = 0; g < groups; g++) {
            const group = x + g * groupBytes;
            multiplyBlock(
              false, packed + r * SIDE_BYTES, group + (<usize>(before - start) << 5),
              group + ((<usize>(first - start) + r) << 5), 32,
            );
          }
      }
      for (let i = first; i < last; i++)
        for (let g: usize = 0; g < groups; g++)
          solveRow(lower + (<usize>i * <usize>n << 2), i, first, start, x + g * groupBytes, start + (<i32>g << 2));
    }
    for (let i = 0; i < n; i++) {
      const to = target + ((<usize>i * <usize>n + <usize>start) << 2);
      if (i < start) memory.fill(to, 0, <usize>columns << 2);
      else {
        for (let j: usize = 0; j < <usize>columns; j++)
          store<f32>(to + (j << 2), <f32>load<f64>(x + (j >> 2) * groupBytes + (<usize>(i - start) << 5) + ((j & 3) << 3)));
      }
    }
  }
}

/** L [first .. last, before .. before + 64] as f64, rows 512 bytes apart; by cache lines, whose misses then overlap. */
function packBlock(lower: usize, n: i32, first: i32, last: i32, before: i32, packed: usize): void {
  for (let line: usize = 0; line < <usize>SIDE; line += 16)
    for (let i = first; i < last; i++) {
      const from = lower + ((<usize>i * <usize>n + <usize>before + line) << 2);
      const to = packed + <usize>(i - first) * SIDE_BYTES + (line << 3);
      for (let k: usize = 0; k < 16; k += 2)
        v128.store(to + (k << 3), f64x2.promote_low_f32x4(v128.load64_zero(from + (k << 2))));
    }
}

/**
 * Row i of four columns from `column` on: x_i = (delta - sum - sum over k of L_ik x_k) / L_ii, k from `first` to i - 1; the sum of
 * earlier k is in place. group: [row from `start` on][4].
 */
// @ts-ignore: decorator
@inline
function solveRow(row: usize, i: i32, first: i32, start: i32, group: usize, column: i32): void {
  const at = group + (<usize>(i - start) << 5);
  let s = v128.load(at), t = v128.load(at, 16);
  let x = group + (<usize>(first - start) << 5);
  for (let k = first; k < i; k++) {
    const f = f64x2.splat(<f64>load<f32>(row + (<usize>k << 2)));
    s = f64x2.add(s, f64x2.mul(f, v128.load(x)));
    t = f64x2.add(t, f64x2.mul(f, v128.load(x, 16)));
    x += 32;
  }
  const pivot = <f64>load<f32>(row + (<usize>i << 2));
  const d = f64x2.splat(pivot);
  v128.store(at, f64x2.div(f64x2.neg(s), d));
  v128.store(at, f64x2.div(f64x2.neg(t), d), 16);
  // the diagonal, and zeros right of it
  for (let j = max(i, column); j < column + 4; j++) store<f64>(at + (<usize>(j - column) << 3), j == i ? 1 / pivot : 0);
}
