// Searches by a group: its VECTORS vectors of LENGTH elements against all codewords of a stage, every 256th of which is a
// thread's. Distances are those of the contract, each step rounded; they are compared by their bits, which order the numbers
// from 0 on and put NaN last. `books` is the C of each stage, then the stages' codebooks as columns, [LENGTH][C] (codebookColumns).

const SLAB = VECTORS * LENGTH;
const INFINITE = 0x7f800000u;
const NONE = 0xffffffffu;
// Rows behind the last one are 0: what `select` leaves out may lie outside the tensor, which WebGPU allows to read.

// Codewords found: { bits of the distance, index }.
alias Nearest = array<vec2u, VECTORS>;
/** What `nearestOf` searches for, and what it finds. */
var<workgroup> searched: array<f32, SLAB>;
var<workgroup> found: Nearest;
/** The candidate of the first stage that is continued, and the codeword behind it among those of its thread. */
var<workgroup> last: Nearest;
var<workgroup> behind: Nearest;
/** Of each thread, then of each sixteenth of them. */
var<workgroup> foundBy: array<vec2u, THREADS + 16>;
/** What `chooseStages` chooses for, what it tries, and its choice. */
var<workgroup> wanted: array<f32, SLAB>;
var<workgroup> trial: array<u32, STAGES * VECTORS>;
var<workgroup> chosen: array<u32, STAGES * VECTORS>;
var<workgroup> total: array<u32, VECTORS>;
var<workgroup> least: array<u32, VECTORS>;
var<workgroup> decoded: array<f32, SLAB>;

fn addSquare(sum: f32, x: f32, c: f32) -> f32 {
  let difference = x - c;
  return sum + opaque(difference * difference);
}

fn comesFirst(a: vec2u, b: vec2u) -> bool {
  return a.x < b.x || (a.x == b.x && a.y < b.y);
}

fn firstOf(begin: u32, end: u32, step: u32) -> vec2u {
  var first = vec2u(INFINITE, NONE);
  for (var j = begin; j < end; j += step) {
    if (comesFirst(foundBy[j], first)) {
      first = foundBy[j];
    }
  }
  return first;
}

/** Each thread's own nearest of `count` codewords, from books[at] on, to each vector of `searched`, the lowest of equals. */
fn searchOwn(at: u32, count: u32, t: u32) -> Nearest {
  var own: array<f32, SLAB>;
  for (var k = 0u; k < SLAB; k++) {
    own[k] = searched[k];
  }
  var nearest: Nearest;
  for (var m = 0u; m < VECTORS; m++) {
    nearest[m] = vec2u(INFINITE, NONE);
  }
  for (var c = t; c < count; c += THREADS) {
    var codeword: array<f32, LENGTH>;
    for (var k = 0u; k < LENGTH; k++) {
      codeword[k] = books[n.books_at + at + k * count + c];
    }
    for (var m = 0u; m < VECTORS; m++) {
      var sum = 0.0;
      for (var k = 0u; k < LENGTH; k++) {
        sum = addSquare(sum, own[m * LENGTH + k], codeword[k]);
      }
      let distance = bitcast<u32>(sum);
      if (distance < nearest[m].x) {
        nearest[m] = vec2u(distance, c);
      }
    }
  }
  return nearest;
}

/** The nearest of all threads' own, in `found`. Codeword 0 at an infinite distance where there is none. */
fn settle(nearest: Nearest, count: u32, t: u32) {
  for (var m = 0u; m < VECTORS; m++) {
    foundBy[t] = nearest[m];
    workgroupBarrier();
    if (t < 16) {
      foundBy[THREADS + t] = firstOf(t, THREADS, 16);
    }
    workgroupBarrier();
    if (t == 0) {
      let first = firstOf(THREADS, THREADS + 16, 1);
      found[m] = vec2u(first.x, select(0u, first.y, first.y < count));
    }
  }
  workgroupBarrier();
}

/** The nearest of `count` codewords, from books[at] on, to each vector of `searched`, the lowest of equals, in `found`. */
fn nearestOf(at: u32, count: u32, t: u32) {
  settle(searchOwn(at, count, t), count, t);
}

/** Threads that a vector of the group has to itself, and so many parts in which they look through what they found. */
const SHARE = THREADS / VECTORS;
const PARTS = 8;

/**
 * For each vector of `wanted` the nearest behind `last`, in order of (distance, index), of the codewords of the thread that found
 * this, in `behind`.
 */
fn searchBehind(at: u32, count: u32, t: u32) {
  let m = t / SHARE;
  let before = last[m];
  var nearest = vec2u(INFINITE, NONE);
  for (var c = before.y % THREADS + t % SHARE * THREADS; c < count; c += SHARE * THREADS) {
    var sum = 0.0;
    for (var k = 0u; k < LENGTH; k++) {
      sum = addSquare(sum, wanted[m * LENGTH + k], books[n.books_at + at + k * count + c]);
    }
    let one = vec2u(bitcast<u32>(sum), c);
    if (one.x < nearest.x && comesFirst(before, one)) {
      nearest = one;
    }
  }
  foundBy[t] = nearest;
  workgroupBarrier();
  if (t % SHARE < PARTS) {
    foundBy[t] = firstOf(t, (m + 1) * SHARE, PARTS); // reads and writes no other's
  }
  workgroupBarrier();
  if (t % SHARE == 0) {
    behind[m] = firstOf(t, t + PARTS, 1);
  }
  workgroupBarrier();
}

/** The later stages behind `found` of the first, greedily; leaves what they take in `trial` and the last distance in `total`. */
fn continueStages(t: u32) {
  var at = u32(STAGES);
  var count = u32(books[n.books_at]);
  for (var stage = 1u; stage < STAGES; stage++) {
    for (var e = t; e < SLAB; e += THREADS) {
      let rest = select(searched[e], wanted[e], stage == 1);
      searched[e] = rest - books[n.books_at + at + e % LENGTH * count + found[e / LENGTH].y];
    }
    at += LENGTH * count;
    count = u32(books[n.books_at + stage]);
    workgroupBarrier();
    nearestOf(at, count, t);
    if (t < VECTORS) {
      trial[stage * VECTORS + t] = found[t].y;
      total[t] = found[t].x;
    }
  }
}

/**
 * One codeword a stage for each vector of `wanted`: the `width` nearest of the first stage are continued greedily, nearest
 * first; the least distance after the last stage wins. Leaves `chosen` [STAGES][VECTORS] and their sum in `decoded`. All threads
 * search the first codebook once: the codeword behind a candidate is another thread's nearest, or behind it among its own.
 */
fn chooseStages(width: u32, t: u32) {
  let count = u32(books[n.books_at]);
  for (var e = t; e < SLAB; e += THREADS) {
    searched[e] = wanted[e];
  }
  workgroupBarrier();
  var own = searchOwn(u32(STAGES), count, t);
  // the bound is known where there is no beam, and `own` not held through the later stages
  for (var candidate = 0u; candidate < select(1u, width, BEAM == 1); candidate++) {
    settle(own, count, t);
    if (t < VECTORS) {
      trial[t] = found[t].y;
      total[t] = found[t].x;
      last[t] = found[t];
    }
    continueStages(t);
    if (t < VECTORS && (candidate == 0 || total[t] < least[t])) {
      least[t] = total[t];
      for (var stage = 0u; stage < STAGES; stage++) {
        chosen[stage * VECTORS + t] = trial[stage * VECTORS + t];
      }
    }
    if (BEAM == 1 && candidate + 1 < width) {
      searchBehind(u32(STAGES), count, t);
      for (var m = 0u; m < VECTORS; m++) {
        if (last[m].y % THREADS == t) {
          own[m] = behind[m];
        }
      }
    }
  }
  workgroupBarrier();
  for (var e = t; e < SLAB; e += THREADS) {
    var at = u32(STAGES);
    var sum = 0.0;
    for (var stage = 0u; stage < STAGES; stage++) {
      let codewords = u32(books[n.books_at + stage]);
      sum += books[n.books_at + at + e % LENGTH * codewords + chosen[stage * VECTORS + e / LENGTH]];
      at += LENGTH * codewords;
    }
    decoded[e] = sum;
  }
  workgroupBarrier();
}

//# nearestGroups
// VECTORS vectors a group.
@compute @workgroup_size(THREADS)
fn nearestGroups(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let first = group * VECTORS;
  for (var e = t; e < SLAB; e += THREADS) {
    searched[e] = select(0.0, vectors[n.vectors_at + first * LENGTH + e], first + e / LENGTH < n.count);
  }
  workgroupBarrier();
  nearestOf(1, n.codewords, t);
  if (t >= VECTORS || first + t >= n.count) {
    return;
  }
  let index = found[t].y;
  var distance = bitcast<f32>(found[t].x);
  if (found[t].x >= INFINITE) {
    distance = 0.0;
    for (var k = 0u; k < LENGTH; k++) {
      distance = addSquare(distance, searched[t * LENGTH + k], books[n.books_at + 1 + k * n.codewords + index]);
    }
  }
  indices[n.indices_at + first + t] = i32(index);
  distances[n.distances_at + first + t] = distance;
}

//# sweepBlock
// Columns [start, stop) of the segment [begin, end), one after the other, in the rows of the group's vectors. What a column left
// goes to the block's later columns here, and to `errors` [stop - start, P] for those after the block.
var<workgroup> tile: array<f32, COLUMNS * SLAB>; // [stop - start][SLAB]
var<workgroup> factors: array<f32, COLUMNS>;
var<workgroup> error: array<f32, SLAB>;

@compute @workgroup_size(THREADS)
fn sweepBlock(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let first = group * SLAB;
  let own = min(u32(SLAB), n.rows - first);
  let columns = n.stop - n.start;
  for (var k = t; k < columns * SLAB; k += THREADS) {
    let e = k % SLAB;
    tile[k] = select(0.0, running[n.running_at + (n.start + k / SLAB) * n.rows + first + e], e < own);
  }
  workgroupBarrier();
  for (var i = n.start; i < n.stop; i++) {
    let column = i - n.start;
    for (var k = column + 1 + t; k < columns; k += THREADS) {
      factors[k] = feedback[n.feedback_at + column * n.columns + n.start + k];
    }
    for (var e = t; e < SLAB; e += THREADS) {
      wanted[e] = tile[column * SLAB + e];
    }
    workgroupBarrier();
    chooseStages(n.width, t);
    for (var e = t; e < SLAB; e += THREADS) {
      error[e] = wanted[e] - decoded[e];
      if (e < own) {
        let at = i * n.rows + first + e;
        quantized[n.quantized_at + at] = decoded[e];
        running[n.running_at + at] = wanted[e];
        errors[n.errors_at + column * n.rows + first + e] = error[e];
      }
    }
    for (var k = t; k < STAGES * VECTORS; k += THREADS) {
      let m = k % VECTORS;
      if (m * LENGTH < own) {
        let row = k / VECTORS * (n.end - n.begin) + i - n.begin;
        indices[n.indices_at + row * (n.rows / LENGTH) + first / LENGTH + m] = i32(chosen[k]);
      }
    }
    workgroupBarrier();
    for (var k = (column + 1) * SLAB + t; k < columns * SLAB; k += THREADS) {
      tile[k] -= error[k % SLAB] * factors[k / SLAB];
    }
    workgroupBarrier();
  }
}

//# coordinateBlock
// As sweepBlock, for coordinate descent: gradient [stop - start, P] holds H E of the block's columns before it; a change of E goes
// to the block's later columns here, and to `error`.
var<workgroup> tile: array<f32, COLUMNS * SLAB>; // [stop - start][SLAB]
var<workgroup> factors: array<f32, COLUMNS>;
var<workgroup> now: array<f32, SLAB>;
var<workgroup> change: array<f32, SLAB>;
var<workgroup> adopted: array<u32, VECTORS>;

@compute @workgroup_size(THREADS)
fn coordinateBlock(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let first = group * SLAB;
  let own = min(u32(SLAB), n.rows - first);
  let columns = n.stop - n.start;
  for (var k = t; k < columns * SLAB; k += THREADS) {
    let e = k % SLAB;
    tile[k] = select(0.0, gradient[n.gradient_at + k / SLAB * n.rows + first + e], e < own);
  }
  workgroupBarrier();
  for (var i = n.start; i < n.stop; i++) {
    let column = i - n.start;
    let curvature = hessian[n.hessian_at + column * n.columns + i];
    if (!(curvature > 0.0)) {
      continue;
    }
    for (var k = column + 1 + t; k < columns; k += THREADS) {
      factors[k] = hessian[n.hessian_at + column * n.columns + n.start + k];
    }
    for (var e = t; e < SLAB; e += THREADS) {
      now[e] = select(0.0, quantized[n.quantized_at + i * n.rows + first + e], e < own);
      wanted[e] = now[e] + tile[column * SLAB + e] / curvature;
    }
    workgroupBarrier();
    chooseStages(n.width, t);
    if (t < VECTORS) {
      var there = 0.0;
      var here = 0.0;
      for (var e = t * LENGTH; e < (t + 1) * LENGTH; e++) {
        there = addSquare(there, wanted[e], now[e]);
        here = addSquare(here, wanted[e], decoded[e]);
      }
      adopted[t] = select(0u, 1u, t * LENGTH < own && here < there);
    }
    workgroupBarrier();
    for (var e = t; e < SLAB; e += THREADS) {
      change[e] = 0.0;
      if (adopted[e / LENGTH] == 1) {
        let at = i * n.rows + first + e;
        let after = weights[n.weights_at + at] - decoded[e];
        change[e] = after - error[n.error_at + at];
        error[n.error_at + at] = after;
        quantized[n.quantized_at + at] = decoded[e];
      }
    }
    for (var k = t; k < STAGES * VECTORS; k += THREADS) {
      let m = k % VECTORS;
      if (adopted[m] == 1) {
        let row = k / VECTORS * (n.end - n.begin) + i - n.begin;
        indices[n.indices_at + row * (n.rows / LENGTH) + first / LENGTH + m] = i32(chosen[k]);
      }
    }
    workgroupBarrier();
    for (var k = (column + 1) * SLAB + t; k < columns * SLAB; k += THREADS) {
      tile[k] += change[k % SLAB] * factors[k / SLAB];
    }
    workgroupBarrier();
  }
}
