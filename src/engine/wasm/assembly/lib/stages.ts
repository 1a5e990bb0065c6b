// The choice of one codeword a stage for a run of vectors, as `createStageSearch` of the reference specifies it.

import { blockCount, blockDistances, nearestRun, searchScratch } from "./nearest";

// A segment in memory, in words of 4 bytes: begin, end, v, stages, and for each stage codebook, blocks, C, indices.
const HEADER: usize = 16;
const STAGE: usize = 16;

// @ts-ignore: decorator
@inline
export function segmentEnd(segment: usize): i32 {
  return load<i32>(segment, 4);
}

// @ts-ignore: decorator
@inline
export function nextSegment(segment: usize): usize {
  return segment + HEADER + <usize>load<i32>(segment, 12) * STAGE;
}

/** Candidates that a vector of the segment has at a time. */
// @ts-ignore: decorator
@inline
function widthOf(segment: usize, beam: i32): i32 {
  return load<i32>(segment, 12) > 1 ? min(beam, load<i32>(segment + HEADER, 8)) : 1;
}

/**
 * Chooses for `count` vectors at `x`: `chosen` i32 [stages][count], and their decoded sums in `decoded` [count * v].
 * Scratch: `stageScratch` in ../sweep.ts.
 */
export function chooseStages(
  segment: usize, beam: i32, x: usize, count: i32, chosen: usize, decoded: usize, scratch: usize,
): void {
  const v = load<i32>(segment, 8);
  const stages = load<i32>(segment, 12);
  const width = widthOf(segment, beam);
  const search = scratch;
  const distances = search + searchScratch(v);
  const tried = <usize>(count * width);
  if (width > 1) {
    beamSearch(segment, width, v, stages, x, count, chosen, search, distances, tried);
  } else {
    const rest = distances + (tried << 2);
    if (stages > 1) memory.copy(rest, x, (<usize>count * <usize>v) << 2);
    for (let s = 0; s < stages; s++) {
      const stage = segment + HEADER + <usize>s * STAGE;
      const codebook = load<usize>(stage);
      const from = stages > 1 ? rest : x;
      const indices = chosen + ((<usize>s * <usize>count) << 2);
      nearestRun(v, from, count, codebook, load<usize>(stage, 4), load<i32>(stage, 8), indices, distances, search);
      if (s + 1 < stages) subtractCodewords(rest, codebook, indices, count, v);
    }
  }
  const bytes = <usize>v << 2;
  memory.fill(decoded, 0, <usize>count * bytes);
  for (let s = 0; s < stages; s++) {
    const codebook = load<usize>(segment + HEADER + <usize>s * STAGE);
    let to = decoded;
    for (let k = 0; k < count; k++) {
      const codeword = codebook + <usize>load<i32>(chosen + (<usize>(s * count + k) << 2)) * bytes;
      for (let t: usize = 0; t < bytes; t += 4) store<f32>(to + t, load<f32>(to + t) + load<f32>(codeword + t));
      to += bytes;
    }
  }
}

/** rest -= codebook[indices], [count, v]. */
function subtractCodewords(rest: usize, codebook: usize, indices: usize, count: i32, v: i32): void {
  const bytes = <usize>v << 2;
  for (let k: usize = 0; k < <usize>count; k++) {
    const codeword = codebook + <usize>load<i32>(indices + (k << 2)) * bytes;
    for (let t: usize = 0; t < bytes; t += 4) store<f32>(rest + t, load<f32>(rest + t) - load<f32>(codeword + t));
    rest += bytes;
  }
}

/** The `width` nearest codewords of the first stage are continued through the later ones; the least final distance wins. */
function beamSearch(
  segment: usize, width: i32, v: i32, stages: i32, x: usize, count: i32, chosen: usize, search: usize, distances: usize, tried: usize,
): void {
  const bytes = <usize>v << 2;
  const rest = distances + (tried << 2); // [count * width, v]
  const trials = rest + tried * bytes; // [stages][count * width]
  const first = segment + HEADER;
  const codebook = load<usize>(first);
  let candidate = trials;
  let to = rest;
  for (let k: usize = 0; k < <usize>count; k++) {
    const from = x + k * bytes;
    nearestFew(v, from, load<usize>(first, 4), load<i32>(first, 8), width, candidate, distances + ((k * <usize>width) << 2));
    for (let n = 0; n < width; n++) {
      memory.copy(to, from, bytes);
      to += bytes;
    }
    candidate += <usize>width << 2;
  }
  subtractCodewords(rest, codebook, trials, <i32>tried, v);
  for (let s = 1; s < stages; s++) {
    const stage = first + <usize>s * STAGE;
    const indices = trials + ((<usize>s * tried) << 2);
    nearestRun(v, rest, <i32>tried, load<usize>(stage), load<usize>(stage, 4), load<i32>(stage, 8), indices, distances, search);
    if (s + 1 < stages) subtractCodewords(rest, load<usize>(stage), indices, <i32>tried, v);
  }
  for (let k: usize = 0; k < <usize>count; k++) {
    const at = k * <usize>width;
    let best = at;
    for (let n = at + 1; n < at + <usize>width; n++)
      if (load<f32>(distances + (n << 2)) < load<f32>(distances + (best << 2))) best = n;
    for (let s: usize = 0; s < <usize>stages; s++)
      store<i32>(chosen + ((s * <usize>count + k) << 2), load<i32>(trials + ((s * tried + best) << 2)));
  }
}

/** The `width` codewords nearest to x in order of (distance, index): indices and distances. */
function nearestFew(v: i32, x: usize, blocks: usize, codewords: i32, width: i32, indices: usize, distances: usize): void {
  for (let n: usize = 0; n < <usize>width; n++) {
    store<i32>(indices + (n << 2), <i32>n);
    store<f32>(distances + (n << 2), Infinity);
  }
  const last = <usize>(width - 1) << 2;
  const total = <usize>blockCount(codewords);
  let worst = f32x4.splat(Infinity);
  for (let block: usize = 0; block < total; block++) {
    const d = blockDistances(0, v, x, blocks + ((block * <usize>v) << 4));
    let mask = i32x4.bitmask(f32x4.lt(d, worst));
    if (mask == 0) continue;
    for (; mask != 0; mask &= mask - 1) {
      const lane = ctz(mask);
      const distance = lane < 2
        ? (lane == 0 ? f32x4.extract_lane(d, 0) : f32x4.extract_lane(d, 1))
        : lane == 2 ? f32x4.extract_lane(d, 2) : f32x4.extract_lane(d, 3);
      if (!(distance < load<f32>(distances + last))) continue;
      let place = last;
      for (; place > 0 && distance < load<f32>(distances + place - 4); place -= 4) {
        store<f32>(distances + place, load<f32>(distances + place - 4));
        store<i32>(indices + place, load<i32>(indices + place - 4));
      }
      store<f32>(distances + place, distance);
      store<i32>(indices + place, <i32>(block << 2) + lane);
    }
    worst = v128.load_splat<f32>(distances + last);
  }
}
