// Searches by a group: its VECTORS vectors of LENGTH elements against all codewords of a stage, every 256th of which is a
// thread's. Distances are those of the contract, each step rounded; they are compared by their bits, which order the numbers
// from 0 on and put NaN last. `books` is the C of each stage, then the stages' codebooks as columns, [LENGTH][C] (codebookColumns).

const SLAB = VECTORS * LENGTH;
const INFINITE = 0x7f800000u;
const NONE = 0xffffffffu;
// Rows behind the last one are 0: what `select` leaves out may lie outside the tensor, which WebGPU allows to read.

// Codewords found: { bits of the distance, index }.
/** What `nearestOf` searches for, and what it finds. */
var<workgroup> searched: array<f32, SLAB>;
var<workgroup> found: array<vec2u, VECTORS>;
/** The candidate of the first stage that was continued last. */
var<workgroup> last: array<vec2u, VECTORS>;
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

/**
 * The nearest of `count` codewords, from books[at] on, to each vector of `searched`, the lowest of equals; with `after`, the
 * nearest behind the last candidate in order of (distance, index). Codeword 0 at an infinite distance where there is none.
 */
fn nearestOf(at: u32, count: u32, after: bool, t: u32) {
  var own: array<f32, SLAB>;
  for (var k = 0u; k < SLAB; k++) {
    own[k] = searched[k];
  }
  var nearest: array<vec2u, VECTORS>;
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
      let one = vec2u(bitcast<u32>(sum), c);
      if (one.x < nearest[m].x && (BEAM == 0 || !after || comesFirst(last[m], one))) {
        nearest[m] = one;
      }
    }
  }
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

/**
 * One codeword a stage for each vector of `wanted`: the `width` nearest of the first stage are continued greedily, nearest
 * first; the least distance after the last stage wins. Leaves `chosen` [STAGES][VECTORS] and their sum in `decoded`.
 */
fn chooseStages(width: u32, t: u32) {
  for (var candidate = 0u; candidate < width; candidate++) {
    var at = u32(STAGES);
    var count = 0u;
    for (var stage = 0u; stage < STAGES; stage++) {
      for (var e = t; e < SLAB; e += THREADS) {
        if (stage == 0) {
          searched[e] = wanted[e];
        } else {
          searched[e] -= books[n.books_at + at + e % LENGTH * count + found[e / LENGTH].y];
        }
      }
      at += LENGTH * count;
      count = u32(books[n.books_at + stage]);
      workgroupBarrier();
      nearestOf(at, count, stage == 0 && candidate > 0, t);
      if (t < VECTORS) {
        trial[stage * VECTORS + t] = found[t].y;
        total[t] = found[t].x;
        if (stage == 0) {
          last[t] = found[t];
        }
      }
    }
    if (t < VECTORS && (candidate == 0 || total[t] < least[t])) {
      least[t] = total[t];
      for (var stage = 0u; stage < STAGES; stage++) {
        chosen[stage * VECTORS + t] = trial[stage * VECTORS + t];
      }
    }
  }
  workgroupBarrier();
  for (var e = t; e < SLAB; e += THREADS) {
    var at = u32(STAGES);
    var sum = 0.0;
    for (var stage = 0u; stage < STAGES; stage++) {
      let count = u32(books[n.books_at + stage]);
      sum += books[n.books_at + at + e % LENGTH * count + chosen[stage * VECTORS + e / LENGTH]];
      at += LENGTH * count;
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
  nearestOf(1, n.codewords, false, t);
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
