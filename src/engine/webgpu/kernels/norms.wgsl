// Norms over the last axis, their gradients, and the rotary embedding. LANES threads share a row: 32, or the whole group.

// Squares of numbers from LARGE on, which might overflow, are summed apart, times FAR^2. That is 0 in f32, and a driver may
// make x^2 FAR^2 of (x FAR)^2: hence `opaque`.
const LARGE = 0x1p+48;
const FAR = 0x1p-80;

struct Squares {
  near: f32,
  far: f32,
}

fn addSquare(sum: Squares, x: f32) -> Squares {
  let isFar = abs(x) >= LARGE;
  let near = select(x, 0.0, isFar);
  let far = opaque(select(0.0, x, isFar) * FAR);
  return Squares(sum.near + near * near, sum.far + far * far);
}

/** 1 / sqrt(squares / width - rest^2 + epsilon), of the squares that `lanes` threads have. */
fn inverseSize(squares: Squares, t: u32, lanes: u32, rest: f32, width: u32, epsilon: f32) -> f32 {
  let near = laneSum(squares.near, t, lanes);
  let far = laneSum(squares.far, t, lanes);
  if (far > 0.0) { // beside LARGE^2 no epsilon counts
    let farRest = opaque(rest * FAR);
    return FAR / sqrt((far + opaque(near * FAR) * FAR) / f32(width) - farRest * farRest);
  }
  return 1.0 / sqrt(near / f32(width) - rest * rest + epsilon);
}

//# rmsNorm
@compute @workgroup_size(THREADS)
fn rmsNorm(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  if (groupOf(w, c) >= n.groups) { return; }
  let row = groupOf(w, c) * (THREADS / LANES) + t / LANES;
  let lane = t % LANES;
  let own = select(0, n.width, row < n.rows); // no elements of a row behind the last
  let first = n.x_at + row * n.width;
  var squares = Squares(0.0, 0.0);
  for (var i = lane; i < own; i += LANES) {
    squares = addSquare(squares, x[first + i]);
  }
  let inverse = inverseSize(squares, t, LANES, 0.0, n.width, n.epsilon);
  for (var i = lane; i < own; i += LANES) {
    y[n.y_at + row * n.width + i] = x[first + i] * inverse * weight[n.weight_at + i];
  }
}

//# layerNorm
@compute @workgroup_size(THREADS)
fn layerNorm(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  if (groupOf(w, c) >= n.groups) { return; }
  let row = groupOf(w, c) * (THREADS / LANES) + t / LANES;
  let lane = t % LANES;
  let own = select(0, n.width, row < n.rows);
  let first = n.x_at + row * n.width;
  let width = f32(n.width);
  var sum = 0.0;
  for (var i = lane; i < own; i += LANES) { sum += x[first + i]; }
  let mean = laneSum(sum, t, LANES) / width;
  var apart = 0.0;
  var squares = Squares(0.0, 0.0);
  for (var i = lane; i < own; i += LANES) {
    let d = x[first + i] - mean;
    apart += d;
    squares = addSquare(squares, d);
  }
  let rest = laneSum(apart, t, LANES) / width; // what rounding took from the mean
  let inverse = inverseSize(squares, t, LANES, rest, n.width, n.epsilon);
  for (var i = lane; i < own; i += LANES) {
    let normalized = (x[first + i] - mean - rest) * inverse;
    y[n.y_at + row * n.width + i] = normalized * weight[n.weight_at + i] + bias[n.bias_at + i];
  }
}

//# rmsNormGrad
@compute @workgroup_size(THREADS)
fn rmsNormGrad(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  if (groupOf(w, c) >= n.groups) { return; }
  let row = groupOf(w, c) * (THREADS / LANES) + t / LANES;
  let lane = t % LANES;
  let own = select(0, n.width, row < n.rows);
  let first = n.x_at + row * n.width;
  let given = n.grad_at + row * n.width;
  var squares = Squares(0.0, 0.0);
  var along = 0.0; // the gradient of x / size, along x
  for (var i = lane; i < own; i += LANES) {
    squares = addSquare(squares, x[first + i]);
    along += grad[given + i] * weight[n.weight_at + i] * x[first + i];
  }
  let inverse = inverseSize(squares, t, LANES, 0.0, n.width, n.epsilon);
  let back = opaque(laneSum(along, t, LANES) * inverse) * inverse / f32(n.width); // inverse^2 may be subnormal
  for (var i = lane; i < own; i += LANES) {
    y[n.y_at + row * n.width + i] = (grad[given + i] * weight[n.weight_at + i] - x[first + i] * back) * inverse;
  }
  if (lane == 0 && row < n.rows) { inverses[n.inverses_at + row] = inverse; }
}

//# layerNormGrad
@compute @workgroup_size(THREADS)
fn layerNormGrad(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  if (groupOf(w, c) >= n.groups) { return; }
  let row = groupOf(w, c) * (THREADS / LANES) + t / LANES;
  let lane = t % LANES;
  let own = select(0, n.width, row < n.rows);
  let first = n.x_at + row * n.width;
  let given = n.grad_at + row * n.width;
  let width = f32(n.width);
  var sum = 0.0;
  for (var i = lane; i < own; i += LANES) { sum += x[first + i]; }
  let mean = laneSum(sum, t, LANES) / width;
  var apart = 0.0;
  var squares = Squares(0.0, 0.0);
  for (var i = lane; i < own; i += LANES) {
    let d = x[first + i] - mean;
    apart += d;
    squares = addSquare(squares, d);
  }
  let rest = laneSum(apart, t, LANES) / width; // what rounding took from the mean
  let inverse = inverseSize(squares, t, LANES, rest, n.width, n.epsilon);
  var total = 0.0; // of the gradient of the normalized row, and along it
  var along = 0.0;
  for (var i = lane; i < own; i += LANES) {
    let g = grad[given + i] * weight[n.weight_at + i];
    total += g;
    along += g * ((x[first + i] - mean - rest) * inverse);
  }
  total = laneSum(total, t, LANES) / width;
  along = laneSum(along, t, LANES) / width;
  for (var i = lane; i < own; i += LANES) {
    let normalized = (x[first + i] - mean - rest) * inverse;
    y[n.y_at + row * n.width + i] = (grad[given + i] * weight[n.weight_at + i] - total - normalized * along) * inverse;
  }
  if (lane == 0 && row < n.rows) {
    moments[n.moments_at + 2 * row] = mean + rest;
    moments[n.moments_at + 2 * row + 1] = inverse;
  }
}

//# rmsWeightGrad: [slabs, width], a column a thread
@compute @workgroup_size(THREADS)
fn rmsWeightGrad(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  let blocks = (n.width + THREADS - 1) / THREADS;
  let place = group / blocks;
  let column = group % blocks * THREADS + t;
  if (group >= n.groups || column >= n.width) { return; }
  var sum = 0.0;
  for (var row = place * n.slab; row < min((place + 1) * n.slab, n.rows); row++) {
    let at = row * n.width + column;
    sum += grad[n.grad_at + at] * x[n.x_at + at] * inverses[n.inverses_at + row];
  }
  sums[n.sums_at + place * n.width + column] = sum;
}

//# layerWeightGrad
@compute @workgroup_size(THREADS)
fn layerWeightGrad(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  let blocks = (n.width + THREADS - 1) / THREADS;
  let place = group / blocks;
  let column = group % blocks * THREADS + t;
  if (group >= n.groups || column >= n.width) { return; }
  var sum = 0.0;
  var biasSum = 0.0;
  for (var row = place * n.slab; row < min((place + 1) * n.slab, n.rows); row++) {
    let at = row * n.width + column;
    let g = grad[n.grad_at + at];
    sum += g * ((x[n.x_at + at] - moments[n.moments_at + 2 * row]) * moments[n.moments_at + 2 * row + 1]);
    biasSum += g;
  }
  sums[n.sums_at + place * n.width + column] = sum;
  biasSums[n.biasSums_at + place * n.width + column] = biasSum;
}

//# sumSlabs: 32 columns a group, each by 8 threads
var<workgroup> parts: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn sumSlabs(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  if (groupOf(w, c) >= n.groups) { return; }
  let column = groupOf(w, c) * 32 + t % 32;
  var sum = 0.0;
  if (column < n.width) {
    for (var place = t / 32; place < n.slabs; place += 8) { sum += sums[n.sums_at + place * n.width + column]; }
  }
  parts[t] = sum;
  workgroupBarrier();
  if (t >= 32 || column >= n.width) { return; }
  for (var part = 1u; part < 8; part++) { sum += parts[part * 32 + t]; }
  y[n.y_at + column] = sum;
}

//# rope: 1024 elements a group
@compute @workgroup_size(THREADS)
fn rope(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    let row = i / n.width; // of [B, T, H]
    let place = i % n.width;
    let own = x[n.x_at + i];
    if (place >= 2 * n.pairs) {
      y[n.y_at + i] = own;
      continue;
    }
    let first = place < n.pairs;
    let angle = (n.start + row / n.heads % n.tokens) * n.pairs + select(place - n.pairs, place, first);
    let other = x[n.x_at + select(i - n.pairs, i + n.pairs, first)];
    let turned = other * sin[n.sin_at + angle];
    y[n.y_at + i] = own * cos[n.cos_at + angle] + select(turned, -turned, first);
  }
}
