import { exp4 } from "./exp";
import { madd } from "./simd";

// The softmax of attention over scores [keys][8 queries]; queries are at `position` .. `position` + 7.

/** Score of a key that is not seen: finite, so that differences are. */
export const UNSEEN: f32 = -3e38;

/** Four keys, from `keys`, are seen by a query at `position` up to itself and, with a window, not before its start. */
// @ts-ignore: decorator
@inline
function seen(key: i32, positions: v128, starts: v128): v128 {
  const keys = i32x4.splat(key);
  return v128.and(i32x4.le_s(keys, positions), i32x4.ge_s(keys, starts));
}

/**
 * One step of the softmax of 8 queries: `count` rows of scores become exp(score - maximum); `state` holds the maxima (8),
 * then the sums (8); `sums` [rows][8] is rescaled to the new maxima. With `masked`, positions and starts say what is seen.
 */
export function softmaxStep(
  scores: usize,
  count: i32,
  state: usize,
  sums: usize,
  rows: i32,
  masked: bool,
  key: i32,
  position: i32,
  window: i32,
): void {
  const positions0 = i32x4.add(i32x4.splat(position), i32x4(0, 1, 2, 3));
  const positions1 = i32x4.add(i32x4.splat(position), i32x4(4, 5, 6, 7));
  const starts0 = i32x4.sub(positions0, i32x4.splat(window - 1));
  const starts1 = i32x4.sub(positions1, i32x4.splat(window - 1));
  const unseen = f32x4.splat(UNSEEN);
  const end = scores + (<usize>count << 5);
  const old0 = v128.load(state);
  const old1 = v128.load(state, 16);
  let top0 = old0;
  let top1 = old1;
  if (masked) {
    let j = key;
    for (let at = scores; at < end; at += 32) {
      const s0 = v128.bitselect(v128.load(at), unseen, seen(j, positions0, starts0));
      const s1 = v128.bitselect(v128.load(at, 16), unseen, seen(j, positions1, starts1));
      v128.store(at, s0);
      v128.store(at, s1, 16);
      top0 = f32x4.pmax(top0, s0);
      top1 = f32x4.pmax(top1, s1);
      j++;
    }
  } else {
    for (let at = scores; at < end; at += 32) {
      top0 = f32x4.pmax(top0, v128.load(at));
      top1 = f32x4.pmax(top1, v128.load(at, 16));
    }
  }
  let sum0 = f32x4.splat(0);
  let sum1 = sum0;
  for (let at = scores; at < end; at += 32) {
    const e0 = exp4(f32x4.sub(v128.load(at), top0));
    v128.store(at, e0);
    sum0 = f32x4.add(sum0, e0);
    const e1 = exp4(f32x4.sub(v128.load(at, 16), top1));
    v128.store(at, e1, 16);
    sum1 = f32x4.add(sum1, e1);
  }
  if (v128.any_true(v128.or(f32x4.ne(top0, old0), f32x4.ne(top1, old1)))) {
    const factor0 = exp4(f32x4.sub(old0, top0));
    const factor1 = exp4(f32x4.sub(old1, top1));
    for (let row = 0; row < rows; row++) {
      const at = sums + (<usize>row << 5);
      v128.store(at, f32x4.mul(v128.load(at), factor0));
      v128.store(at, f32x4.mul(v128.load(at, 16), factor1), 16);
    }
    v128.store(state, top0);
    v128.store(state, top1, 16);
    v128.store(state, f32x4.mul(v128.load(state, 32), factor0), 32);
    v128.store(state, f32x4.mul(v128.load(state, 48), factor1), 48);
  }
  v128.store(state, f32x4.add(v128.load(state, 32), sum0), 32);
  v128.store(state, f32x4.add(v128.load(state, 48), sum1), 48);
}

/** Adds slope * (key - position of the query) to `count` rows of scores, of keys from `key` on. */
export function addSlope(scores: usize, count: i32, slope: f32, key: i32, position: i32): void {
  const slopes = f32x4.splat(slope);
  const end = scores + (<usize>count << 5);
  let distance0 = f32x4.convert_i32x4_s(i32x4.sub(i32x4.splat(key - position), i32x4(0, 1, 2, 3)));
  let distance1 = f32x4.sub(distance0, f32x4.splat(4));
  for (let at = scores; at < end; at += 32) {
    v128.store(at, madd(slopes, distance0, v128.load(at)));
    v128.store(at, madd(slopes, distance1, v128.load(at, 16)), 16);
    distance0 = f32x4.add(distance0, f32x4.splat(1));
    distance1 = f32x4.add(distance1, f32x4.splat(1));
  }
}
