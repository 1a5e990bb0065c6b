// Variants of the assignment of vectors of 4 to their nearest codeword; see assign.mjs.
import { nearestRun } from "../../src/engine/wasm/assembly/lib/nearest";

// @ts-ignore: decorator
@inline
function add(sum: v128, x: v128, c: v128): v128 {
  const d = f32x4.sub(x, c);
  return f32x4.add(sum, f32x4.mul(d, d));
}

export function scalar(x: usize, n: i32, codebook: usize, blocks: usize, codewords: i32, out: usize, scratch: usize): void {
  for (let i = 0; i < n; i++, x += 16) {
    let best = 0;
    let least: f32 = Infinity;
    for (let c = 0; c < codewords; c++) {
      let sum: f32 = 0;
      for (let t: usize = 0; t < 16; t += 4) {
        const d = load<f32>(x + t) - load<f32>(codebook + (<usize>c << 4) + t);
        sum += d * d;
      }
      if (sum < least) {
        least = sum;
        best = c;
      }
    }
    store<i32>(out + (<usize>i << 2), best);
  }
}

export function codewordLanes(x: usize, n: i32, codebook: usize, blocks: usize, codewords: i32, out: usize, scratch: usize): void {
  for (let i = 0; i < n; i++, x += 16) {
    const x0 = v128.load_splat<f32>(x), x1 = v128.load_splat<f32>(x, 4);
    const x2 = v128.load_splat<f32>(x, 8), x3 = v128.load_splat<f32>(x, 12);
    let least = f32x4.splat(Infinity);
    let where = i32x4.splat(0), here = where;
    const end = blocks + (<usize>codewords << 4);
    for (let p = blocks; p < end; p += 64) {
      let s = add(f32x4.splat(0), x0, v128.load(p));
      s = add(s, x1, v128.load(p, 16));
      s = add(s, x2, v128.load(p, 32));
      s = add(s, x3, v128.load(p, 48));
      where = i32x4.max_s(where, v128.and(f32x4.lt(s, least), here));
      least = f32x4.pmin(least, s);
      here = i32x4.add(here, i32x4.splat(1));
    }
    v128.store(scratch, least);
    v128.store(scratch, where, 16);
    let best = i32.MAX_VALUE;
    let m: f32 = Infinity;
    for (let lane = 0; lane < 4; lane++) {
      const d = load<f32>(scratch + (<usize>lane << 2));
      const c = (load<i32>(scratch + (<usize>lane << 2), 16) << 2) + lane;
      if (d < m || (d == m && c < best)) {
        m = d;
        best = c;
      }
    }
    store<i32>(out + (<usize>i << 2), best);
  }
}

export function vectorLanes(x: usize, n: i32, codebook: usize, blocks: usize, codewords: i32, out: usize, scratch: usize): void {
  for (let i = 0; i < n; i += 4, x += 64) {
    for (let k: usize = 0; k < 4; k++)
      for (let t: usize = 0; t < 4; t++) store<f32>(scratch + (t << 4) + (k << 2), load<f32>(x + (k << 4) + (t << 2)));
    const x0 = v128.load(scratch), x1 = v128.load(scratch, 16), x2 = v128.load(scratch, 32), x3 = v128.load(scratch, 48);
    let least = f32x4.splat(Infinity);
    let where = i32x4.splat(0), here = where;
    const end = codebook + (<usize>codewords << 4);
    for (let p = codebook; p < end; p += 16) {
      let s = add(f32x4.splat(0), x0, v128.load_splat<f32>(p));
      s = add(s, x1, v128.load_splat<f32>(p, 4));
      s = add(s, x2, v128.load_splat<f32>(p, 8));
      s = add(s, x3, v128.load_splat<f32>(p, 12));
      where = i32x4.max_s(where, v128.and(f32x4.lt(s, least), here));
      least = f32x4.pmin(least, s);
      here = i32x4.add(here, i32x4.splat(1));
    }
    v128.store(out + (<usize>i << 2), where);
  }
}

export function runsOfEight(x: usize, n: i32, codebook: usize, blocks: usize, codewords: i32, out: usize, scratch: usize): void {
  nearestRun(4, x, n, codebook, blocks, codewords, out, scratch + 1024, scratch);
}
