// The nearest codeword from a guess (the assignment of the iteration before): a codeword c with |c - c_a| > 2 |x - c_a| is
// farther from x than c_a (triangle inequality; Elkan 2003), so a vector meets only the codewords near its own. Vectors with
// the same guess are handled together: the list of neighbors is made once for them, from near to far, and stays in the cache.

import { int, pointer } from "./lib/job";
import { accumulate, blockCount, GROUP, nearestRun, searchScratch, toLanes } from "./lib/nearest";
import { equals, lowestOfEquals, neighborList, scanList4, scanList8, sortByBound } from "./lib/neighbors";

/** Vectors that share a list at most; more of them make it again, with a radius of their own. */
const BATCH: i32 = 1024;

// @ts-ignore: decorator
@inline
function guessOf(guesses: usize, i: usize, codewords: i32): usize {
  const guess = load<i32>(guesses + (i << 2));
  return <u32>guess < <u32>codewords ? <usize>guess : 0; // any codeword will do as a guess
}

/**
 * How often each guess occurs in a chunk. Slots: guesses i32 [n], n, C, vectors a chunk, chunks, counts i32 [chunks, C].
 * Units: chunks.
 */
export function guessCount(begin: i32, end: i32, args: usize, scratch: usize): void {
  const codewords = int(args, 2);
  const size = int(args, 3);
  for (let chunk = begin; chunk < end; chunk++) {
    const counts = pointer(args, 5) + ((<usize>chunk * <usize>codewords) << 2);
    memory.fill(counts, 0, <usize>codewords << 2);
    const last = <usize>min(int(args, 1), (chunk + 1) * size);
    for (let i = <usize>(chunk * size); i < last; i++) {
      const at = counts + (guessOf(pointer(args, 0), i, codewords) << 2);
      store<i32>(at, load<i32>(at) + 1);
    }
  }
}

/** Turns counts into first places, by guess and then by chunk. Slots as `guessCount`, then firsts i32 [C + 1]. One unit. */
export function guessPlace(begin: i32, end: i32, args: usize, scratch: usize): void {
  const codewords = <usize>int(args, 2);
  const chunks = int(args, 4);
  const firsts = pointer(args, 6);
  let place = 0;
  for (let a: usize = 0; a < codewords; a++) {
    store<i32>(firsts + (a << 2), place);
    let at = pointer(args, 5) + (a << 2);
    for (let chunk = 0; chunk < chunks; chunk++) {
      const count = load<i32>(at);
      store<i32>(at, place);
      place += count;
      at += codewords << 2;
    }
  }
  store<i32>(firsts + (codewords << 2), place);
}

/** Numbers of the vectors in order of their guess. Slots as `guessPlace`, then order i32 [n]. Units: chunks. */
export function guessScatter(begin: i32, end: i32, args: usize, scratch: usize): void {
  const codewords = int(args, 2);
  const size = int(args, 3);
  const order = pointer(args, 7);
  for (let chunk = begin; chunk < end; chunk++) {
    const places = pointer(args, 5) + ((<usize>chunk * <usize>codewords) << 2);
    const last = <usize>min(int(args, 1), (chunk + 1) * size);
    for (let i = <usize>(chunk * size); i < last; i++) {
      const at = places + (guessOf(pointer(args, 0), i, codewords) << 2);
      const place = load<i32>(at);
      store<i32>(at, place + 1);
      store<i32>(order + (<usize>place << 2), <i32>i);
    }
  }
}

/**
 * `nearestCodeword` for vectors in order of their guess. Slots: vectors [n, v], codebook [C, v], blocks, v, C, firsts [C + 1],
 * order [n], indices, distances. Units: guesses. Scratch: see `neighborScratch` in ../codebook.ts.
 */
export function nearestNeighbor(begin: i32, end: i32, args: usize, scratch: usize): void {
  const v = int(args, 3);
  const firsts = pointer(args, 5);
  for (let a = begin; a < end; a++) {
    const last = load<i32>(firsts + (<usize>a << 2), 4);
    for (let first = load<i32>(firsts + (<usize>a << 2)); first < last; first += BATCH) {
      const count = min(BATCH, last - first);
      if (v == 2) neighborBatch(2, v, a, first, count, args, scratch);
      else if (v == 4) neighborBatch(4, v, a, first, count, args, scratch);
      else if (v == 6) neighborBatch(6, v, a, first, count, args, scratch);
      else if (v == 8) neighborBatch(8, v, a, first, count, args, scratch);
      else neighborBatch(0, v, a, first, count, args, scratch);
    }
  }
}

// @ts-ignore: decorator
@inline
function neighborBatch(V: i32, v: i32, a: i32, first: i32, count: i32, args: usize, scratch: usize): void {
  const vectors = pointer(args, 0);
  const codebook = pointer(args, 1);
  const blocks = pointer(args, 2);
  const codewords = int(args, 4);
  const order = pointer(args, 6) + (<usize>first << 2);
  const indices = pointer(args, 7);
  const distances = pointer(args, 8);
  const center = codebook + ((<usize>a * <usize>v) << 2);
  const groups = <usize>((count + GROUP - 1) / GROUP);

  // scratch: lanes [v][8], choices, bounds [1024], sorted order [1024], the list, then single searches and work
  const lanes = scratch;
  const best = lanes + (<usize>v << 5);
  const bounds = best + 96;
  const sorted = bounds + (BATCH << 2);
  const single = sorted + (BATCH << 2);
  const list = single + searchScratch(v);
  const members = list + ((<usize>blockCount(codewords) * <usize>v) << 4);
  const thresholds = members + (<usize>blockCount(codewords) << 4);
  const work = thresholds + (<usize>(blockCount(codewords) + 1) << 2);

  for (let group: usize = 0; group < groups; group++) {
    gather(v, vectors, order + (group << 5), min(GROUP, count - (<i32>group << 3)), lanes);
    groupBounds(v, lanes, center, bounds + (group << 5));
  }
  // vectors of like bounds go together: a group visits what its farthest member needs
  const radius = sortByBound(bounds, order, count, sorted, work);
  const listed = neighborList(v, center, codebook, blocks, codewords, radius, list, members, thresholds, work);

  for (let group: usize = 0; group < groups; group++) {
    const names = sorted + (group << 5);
    gather(v, vectors, names, min(GROUP, count - (<i32>group << 3)), lanes);
    groupBounds(v, lanes, center, bounds);
    const bound = largest(bounds);
    let visited = 0;
    if (V == 2 || V == 4) visited = scanList8(V, lanes, list, thresholds, listed, bound, best);
    else {
      visited = scanList4(V, v, lanes, list, thresholds, listed, bound, best);
      scanList4(V, v, lanes + 16, list, thresholds, listed, bound, best + 16);
    }
    const have = <usize>min(GROUP, count - (<i32>group << 3));
    for (let lane: usize = 0; lane < have; lane++) {
      const i = <usize>load<i32>(names + (lane << 2));
      const x = vectors + ((i * <usize>v) << 2);
      const least = load<f32>(best + (lane << 2));
      if (least < Infinity) {
        const block = <usize>load<i32>(best + (lane << 2), 32);
        const mask = equals(V, v, x, list, block, least);
        const tie = load<i32>(best + (lane << 2), 64) | (mask & (mask - 1));
        const chosen = tie
          ? lowestOfEquals(v, x, list, members, visited, least)
          : load<i32>(members + (block << 4) + (<usize>ctz(mask) << 2));
        store<i32>(indices + (i << 2), chosen);
        store<f32>(distances + (i << 2), least);
      } else nearestRun(v, x, 1, codebook, blocks, codewords, indices + (i << 2), distances + (i << 2), single);
    }
  }
}

/** Vectors order[0 .. have - 1] to lanes [v][8]; the last one fills up. */
// @ts-ignore: decorator
@inline
function gather(v: i32, vectors: usize, order: usize, have: i32, lanes: usize): void {
  const last = have - 1;
  for (let k = 0; k < GROUP; k += 4)
    toLanes(
      v, vectorAt(v, vectors, order, min(k, last)), vectorAt(v, vectors, order, min(k + 1, last)),
      vectorAt(v, vectors, order, min(k + 2, last)), vectorAt(v, vectors, order, min(k + 3, last)), lanes + (<usize>k << 2),
    );
}

// @ts-ignore: decorator
@inline
function vectorAt(v: i32, vectors: usize, order: usize, k: i32): usize {
  return vectors + ((<usize>load<i32>(order + (<usize>k << 2)) * <usize>v) << 2);
}

/** Squared distances to the center within which a codeword can be nearer than it, of eight vectors; infinite for NaN. */
// @ts-ignore: decorator
@inline
function groupBounds(v: i32, lanes: usize, center: usize, bounds: usize): void {
  let s = f32x4.splat(0), t = s;
  for (let k: usize = 0; k < <usize>v; k++) {
    const c = v128.load_splat<f32>(center + (k << 2));
    s = accumulate(s, v128.load(lanes + (k << 5)), c);
    t = accumulate(t, v128.load(lanes + (k << 5), 16), c);
  }
  v128.store(bounds, boundOf(s));
  v128.store(bounds, boundOf(t), 16);
}

/** 4 d: twice the distance. 1e-4 is room for the rounding of the distances, 1e-30 for their underflow. */
// @ts-ignore: decorator
@inline
function boundOf(d: v128): v128 {
  const bound = f32x4.add(f32x4.mul(d, f32x4.splat(4.0 * (1.0 + 1e-4))), f32x4.splat(1e-30));
  return f32x4.pmin(f32x4.splat(Infinity), bound);
}

// @ts-ignore: decorator
@inline
function largest(bounds: usize): f32 {
  let m = f32x4.max(v128.load(bounds), v128.load(bounds, 16));
  m = f32x4.max(m, v128.shuffle<f32>(m, m, 2, 3, 0, 1));
  m = f32x4.max(m, v128.shuffle<f32>(m, m, 1, 0, 3, 2));
  return f32x4.extract_lane(m, 0);
}
