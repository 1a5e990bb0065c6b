// Nearest codewords of many vectors. Codewords pass through workgroup memory and are compared by scores x.c - |c|^2 / 2, of which a
// run of codewords has one; the best run is searched again exactly. Why that is enough: cuda/kernels/codebook.cu, whose bound holds
// for products that are fused with sums and for those that are not.
const LOWEST = -0x1.fffffep+127;
const INFINITE = 0x7f800000u;

/** Distance of the contract of vector i to a codeword. */
fn contractDistance(i: u32, codeword: u32) -> f32 {
  var sum = 0.0;
  for (var k = 0u; k < LENGTH; k++) {
    let difference = vectors[n.vectors_at + i * LENGTH + k] - codebook[n.codebook_at + codeword * LENGTH + k];
    sum += opaque(difference * difference);
  }
  return sum;
}

/** Searches the best run of vector i, `length` codewords from `place` on. False: another run may have a codeword as near. */
fn settleRun(i: u32, place: u32, length: u32, best: f32, second: f32) -> bool {
  var least = INFINITE;
  var index = 0u;
  for (var codeword = place; codeword < min(place + length, n.codewords); codeword++) {
    let distance = bitcast<u32>(contractDistance(i, codeword));
    if (distance < least) {
      least = distance;
      index = codeword;
    }
  }
  indices[n.indices_at + i] = i32(index);
  distances[n.distances_at + i] = bitcast<f32>(least);
  var norm = 0.0;
  for (var k = 0u; k < LENGTH; k++) {
    let x = vectors[n.vectors_at + i * LENGTH + k];
    norm += x * x;
  }
  let size = norm + bitcast<f32>(least);
  let bound = f32(LENGTH + 1) * 0x1p-20 * size + 1e-30;
  return least < INFINITE && !isNan(size) && size < 1e36 && second < best - bound;
}

/** All codewords, for a vector of each `lanes` neighboring threads, or none where it is not `there`. Barriers inside. */
fn searchAll(i: u32, there: bool, t: u32, lanes: u32) {
  var least = INFINITE;
  var index = 0xffffffffu;
  if (there) {
    for (var codeword = t % lanes; codeword < n.codewords; codeword += lanes) {
      let distance = bitcast<u32>(contractDistance(i, codeword));
      if (distance < least) {
        least = distance;
        index = codeword;
      }
    }
  }
  let nearest = laneLeastWord(least, t, lanes);
  index = laneLeastWord(select(0xffffffffu, index, least == nearest), t, lanes);
  if (there && t % lanes == 0) {
    index = select(0u, index, index < n.codewords);
    indices[n.indices_at + i] = i32(index);
    distances[n.distances_at + i] = contractDistance(i, index);
  }
}

//# nearestTiled
// HELD vectors a thread, 256 apart, against all codewords, TILE of which are in workgroup memory at a time.
const RUN = 16u;
const TILE = select(128u, 256u, LENGTH <= 8);

var<workgroup> tile: array<f32, TILE * LENGTH>;
var<workgroup> starts: array<f32, TILE>; // -|c|^2 / 2
var<workgroup> open: atomic<u32>;
var<workgroup> opened: u32;
var<workgroup> list: array<u32, HELD * THREADS>; // vectors that fail the test

@compute @workgroup_size(THREADS)
fn nearestTiled(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let first = group * HELD * THREADS;
  var x: array<f32, HELD * LENGTH>;
  var best: array<f32, HELD>;
  var second: array<f32, HELD>;
  var place: array<u32, HELD>;
  for (var h = 0u; h < HELD; h++) {
    let i = first + h * THREADS + t;
    for (var k = 0u; k < LENGTH; k++) {
      x[h * LENGTH + k] = 0.0;
      if (i < n.count) {
        x[h * LENGTH + k] = vectors[n.vectors_at + i * LENGTH + k];
      }
    }
    best[h] = LOWEST;
    second[h] = LOWEST;
    place[h] = 0u;
  }

  for (var base = 0u; base < n.codewords; base += TILE) {
    workgroupBarrier();
    let own = base + t;
    if (t < TILE) {
      var norm = 0.0;
      for (var k = 0u; k < LENGTH; k++) {
        var value = 0.0;
        if (own < n.codewords) {
          value = codebook[n.codebook_at + own * LENGTH + k];
        }
        tile[t * LENGTH + k] = value;
        norm += value * value;
      }
      starts[t] = select(LOWEST, -0.5 * norm, own < n.codewords);
    }
    workgroupBarrier();
    let have = min(TILE, n.codewords - base);
    for (var run = 0u; run < have; run += RUN) {
      var most: array<f32, HELD>;
      for (var h = 0u; h < HELD; h++) {
        most[h] = LOWEST;
      }
      for (var j = run; j < run + RUN; j++) {
        var codeword: array<f32, LENGTH>;
        for (var k = 0u; k < LENGTH; k++) {
          codeword[k] = tile[j * LENGTH + k];
        }
        let start = starts[j];
        for (var h = 0u; h < HELD; h++) {
          var score = start;
          for (var k = 0u; k < LENGTH; k++) {
            score = fma(x[h * LENGTH + k], codeword[k], score);
          }
          most[h] = max(most[h], score);
        }
      }
      for (var h = 0u; h < HELD; h++) {
        second[h] = max(second[h], min(best[h], most[h]));
        if (most[h] > best[h]) {
          best[h] = most[h];
          place[h] = base + run;
        }
      }
    }
  }

  for (var h = 0u; h < HELD; h++) {
    let i = first + h * THREADS + t;
    if (i < n.count && !settleRun(i, place[h], RUN, best[h], second[h])) {
      list[atomicAdd(&open, 1u)] = i - first;
    }
  }
  workgroupBarrier();
  if (t == 0) {
    opened = atomicLoad(&open);
  }
  let count = workgroupUniformLoad(&opened);

  // 32 threads search through all codewords
  for (var round = 0u; round < count; round += THREADS / 32) {
    let at = round + t / 32;
    var i = first;
    if (at < count) {
      i += list[at];
    }
    searchAll(i, at < count, t, 32);
  }
}

//# nearestMany
// Very many vectors of up to 8 elements: 8 of them a thread, so that a codeword out of workgroup memory serves more of them. Elements
// behind LENGTH are 0 and change no sum.
const QUADS = (LENGTH + 3) / 4;
const HELD = 8u; // vectors a thread, THREADS apart
const RUN = 32u;
// behind the last codeword, whole runs have the score LOWEST: with constant bounds an index needs no check
const TILE = 128u;

var<workgroup> tile: array<vec4f, TILE * QUADS>;
var<workgroup> starts: array<f32, TILE>; // -|c|^2 / 2
var<workgroup> failed: array<atomic<u32>, HELD * THREADS / 32>; // a bit for each vector
var<workgroup> word: u32;

/** Of the scores of runs: the best, the best of the others, and the first codeword of the best. */
struct Found {
  best: f32,
  second: f32,
  place: u32,
}

const NOTHING = Found(LOWEST, LOWEST, 0u);

fn better(found: Found, most: f32, place: u32) -> Found {
  let second = max(found.second, min(found.best, most));
  if (most > found.best) {
    return Found(most, second, place);
  }
  return Found(found.best, second, found.place);
}

/** Four elements of vector i, 0 outside. */
fn vectorQuad(i: u32, quad: u32) -> vec4f {
  var x = vec4f();
  for (var k = 0u; k < 4; k++) {
    if (i < n.count && 4 * quad + k < LENGTH) {
      x[k] = vectors[n.vectors_at + i * LENGTH + 4 * quad + k];
    }
  }
  return x;
}

/** TILE codewords from `base` on go to workgroup memory. Barriers inside. */
fn fillTile(base: u32, t: u32) {
  workgroupBarrier();
  if (t < TILE) {
    let own = base + t;
    var norm = 0.0;
    for (var q = 0u; q < QUADS; q++) {
      var quad = vec4f();
      for (var k = 0u; k < 4; k++) {
        if (own < n.codewords && 4 * q + k < LENGTH) {
          quad[k] = codebook[n.codebook_at + own * LENGTH + 4 * q + k];
        }
        norm += quad[k] * quad[k];
      }
      tile[t * QUADS + q] = quad;
    }
    starts[t] = select(LOWEST, -0.5 * norm, own < n.codewords);
  }
  workgroupBarrier();
}

/** Searches the best run exactly, and notes whether another one may be as near. */
fn settle(first: u32, offset: u32, found: Found) {
  let i = first + offset;
  if (i < n.count && !settleRun(i, found.place, RUN, found.best, found.second)) {
    atomicOr(&failed[offset / 32], 1u << (offset % 32));
  }
}

/** The vectors that are noted, by all threads of the group: each looks through its share of the codewords. */
fn searchFailed(first: u32, t: u32) {
  for (var at = 0u; at < HELD * THREADS / 32; at++) {
    workgroupBarrier();
    if (t == 0) {
      word = atomicLoad(&failed[at]);
    }
    var bits = workgroupUniformLoad(&word);
    while (bits != 0) {
      searchAll(first + 32 * at + firstTrailingBit(bits), true, t, THREADS);
      bits &= bits - 1;
    }
  }
}

fn scoreOf(a: vec4f, b: vec4f, c: vec4f, d: vec4f, start: f32) -> f32 {
  let low = fma(a.w, c.w, fma(a.z, c.z, fma(a.y, c.y, fma(a.x, c.x, start))));
  return fma(b.w, d.w, fma(b.z, d.z, fma(b.y, d.y, fma(b.x, d.x, low))));
}

/** A name for each vector: nothing that a driver might leave in memory. */
@compute @workgroup_size(THREADS)
fn nearestMany(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let first = group * HELD * THREADS;
  let i = first + t;
  let a0 = vectorQuad(i, 0); let b0 = vectorQuad(i, 1);
  let a1 = vectorQuad(i + THREADS, 0); let b1 = vectorQuad(i + THREADS, 1);
  let a2 = vectorQuad(i + 2 * THREADS, 0); let b2 = vectorQuad(i + 2 * THREADS, 1);
  let a3 = vectorQuad(i + 3 * THREADS, 0); let b3 = vectorQuad(i + 3 * THREADS, 1);
  let a4 = vectorQuad(i + 4 * THREADS, 0); let b4 = vectorQuad(i + 4 * THREADS, 1);
  let a5 = vectorQuad(i + 5 * THREADS, 0); let b5 = vectorQuad(i + 5 * THREADS, 1);
  let a6 = vectorQuad(i + 6 * THREADS, 0); let b6 = vectorQuad(i + 6 * THREADS, 1);
  let a7 = vectorQuad(i + 7 * THREADS, 0); let b7 = vectorQuad(i + 7 * THREADS, 1);
  var f0 = NOTHING; var f1 = NOTHING; var f2 = NOTHING; var f3 = NOTHING;
  var f4 = NOTHING; var f5 = NOTHING; var f6 = NOTHING; var f7 = NOTHING;
  for (var base = 0u; base < n.codewords; base += TILE) {
    fillTile(base, t);
    for (var run = 0u; run < TILE / RUN; run++) {
      var m0 = LOWEST; var m1 = LOWEST; var m2 = LOWEST; var m3 = LOWEST;
      var m4 = LOWEST; var m5 = LOWEST; var m6 = LOWEST; var m7 = LOWEST;
      for (var j = 0u; j < RUN; j++) {
        let at = run * RUN + j;
        let left = tile[at * QUADS];
        var right = vec4f();
        if (QUADS == 2) {
          right = tile[at * QUADS + QUADS - 1];
        }
        let start = starts[at];
        m0 = max(m0, scoreOf(a0, b0, left, right, start));
        m1 = max(m1, scoreOf(a1, b1, left, right, start));
        m2 = max(m2, scoreOf(a2, b2, left, right, start));
        m3 = max(m3, scoreOf(a3, b3, left, right, start));
        m4 = max(m4, scoreOf(a4, b4, left, right, start));
        m5 = max(m5, scoreOf(a5, b5, left, right, start));
        m6 = max(m6, scoreOf(a6, b6, left, right, start));
        m7 = max(m7, scoreOf(a7, b7, left, right, start));
      }
      let place = base + run * RUN;
      f0 = better(f0, m0, place); f1 = better(f1, m1, place); f2 = better(f2, m2, place); f3 = better(f3, m3, place);
      f4 = better(f4, m4, place); f5 = better(f5, m5, place); f6 = better(f6, m6, place); f7 = better(f7, m7, place);
    }
  }
  settle(first, t, f0); settle(first, t + THREADS, f1);
  settle(first, t + 2 * THREADS, f2); settle(first, t + 3 * THREADS, f3);
  settle(first, t + 4 * THREADS, f4); settle(first, t + 5 * THREADS, f5);
  settle(first, t + 6 * THREADS, f6); settle(first, t + 7 * THREADS, f7);
  searchFailed(first, t);
}
