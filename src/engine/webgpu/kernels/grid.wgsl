// Affine grids of runs of `width` consecutive columns of weights [O, I], and their gradients. `lanes` threads work on one run,
// or 1024 elements of one row are a group.

//# clippedGrid
@compute @workgroup_size(THREADS)
fn clippedGrid(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  if (groupOf(w, c) >= n.groups) {
    return;
  }
  let run = groupOf(w, c) * (THREADS / n.lanes) + t / n.lanes;
  let range = elementsOf(run, n.runs, n.columns, n.width, n.perRow);
  let lane = t % n.lanes;
  var high = 0.0;
  var low = 0.0;
  for (var at = range.begin + lane; at < range.end; at += n.lanes) {
    let x = weights[n.weights_at + at];
    high = max(high, x);
    low = min(low, x);
  }
  high = laneMax(high, t, n.lanes);
  low = -laneMax(-low, t, n.lanes);
  if (lane > 0 || run >= n.runs) {
    return;
  }
  if (n.withLogits > 0) {
    high = clipped(high, upper[n.upper_at + run]);
    low = clipped(low, lower[n.lower_at + run]);
  }
  let step = stepOf(high, low, f32(n.levels), n.symmetric > 0);
  scale[n.scale_at + run] = step;
  zero[n.zero_at + run] = zeroOf(low, step, f32(n.levels), n.symmetric > 0);
}

//# clippedGridGrad
const NONE = 0xffffffffu;

@compute @workgroup_size(THREADS)
fn clippedGridGrad(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  if (groupOf(w, c) >= n.groups) {
    return;
  }
  let run = groupOf(w, c) * (THREADS / n.lanes) + t / n.lanes;
  let range = elementsOf(run, n.runs, n.columns, n.width, n.perRow);
  let lane = t % n.lanes;
  let symmetric = n.symmetric > 0;
  // the extremes of this thread's elements and the first places of them, a 0 never
  var high = 0.0;
  var low = 0.0;
  var highAt = NONE;
  var lowAt = NONE;
  for (var at = range.begin + lane; at < range.end; at += n.lanes) {
    let x = weights[n.weights_at + at];
    if (x > high) {
      high = x;
      highAt = at;
    }
    if (x < low) {
      low = x;
      lowAt = at;
    }
  }
  let most = laneMax(high, t, n.lanes);
  let least = -laneMax(-low, t, n.lanes);
  highAt = laneLeastWord(select(NONE, highAt, high == most), t, n.lanes);
  lowAt = laneLeastWord(select(NONE, lowAt, low == least), t, n.lanes);
  var ofMost = 0.0;
  var ofLeast = 0.0;
  if (lane == 0 && run < n.runs) {
    // factors of the extremes, and what they lack of 1
    var shrinkHigh = 1.0;
    var shrinkLow = 1.0;
    var lackHigh = 0.0;
    var lackLow = 0.0;
    high = most;
    low = least;
    if (n.withLogits > 0) {
      let u = upper[n.upper_at + run];
      let l = lower[n.lower_at + run];
      high = clipped(most, u);
      low = clipped(least, l);
      shrinkHigh = 1.0 / (1.0 + expAccurate(-u));
      shrinkLow = 1.0 / (1.0 + expAccurate(-l));
      lackHigh = 1.0 / (1.0 + expAccurate(u));
      lackLow = 1.0 / (1.0 + expAccurate(l));
    }
    let exact = divideRounded(rangeOf(high, low, symmetric), f32(n.levels));
    var ofUpper = 0.0;
    var ofLower = 0.0;
    // clamped where it rounds to 0 or to infinity; the ties at both ends round there
    if (exact > 0x1p-25 && exact < 65520.0) {
      let ofRange = select(1.0, 2.0, symmetric) * scaleGrad[n.scaleGrad_at + run] / f32(n.levels);
      if (most > 0.0 && (!symmetric || high >= -low)) {
        ofMost = ofRange * shrinkHigh;
        ofUpper = ofMost * lackHigh * most;
      }
      if (least < 0.0 && (!symmetric || high < -low)) {
        ofLeast = -ofRange * shrinkLow;
        ofLower = ofLeast * lackLow * least;
      }
    }
    upperGrad[n.upperGrad_at + run] = ofUpper;
    lowerGrad[n.lowerGrad_at + run] = ofLower;
  }
  if (n.wanted == 0) {
    return;
  }
  ofMost = laneSum(ofMost, t, n.lanes); // of lane 0
  ofLeast = laneSum(ofLeast, t, n.lanes);
  for (var at = range.begin + lane; at < range.end; at += n.lanes) {
    weightsGrad[n.weightsGrad_at + at] = select(select(0.0, ofLeast, at == lowAt), ofMost, at == highAt);
  }
}

//# fakeQuantize
@compute @workgroup_size(THREADS)
fn fakeQuantize(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let pieces = (n.columns + 1023) / 1024;
  let row = groupOf(w, c) / pieces;
  let first = groupOf(w, c) % pieces * 1024;
  if (row >= n.rows) {
    return;
  }
  let levels = f32(n.levels);
  for (var column = first + t; column < min(first + 1024, n.columns); column += THREADS) {
    let at = row * n.columns + column;
    let run = row * n.perRow + column / n.width;
    let step = scale[n.scale_at + run];
    let shift = clampTo(round(zero[n.zero_at + run]), levels);
    let code = clampTo(roundedRatio(weights[n.weights_at + at], step) + shift, levels);
    y[n.y_at + at] = (code - shift) * step;
  }
}

//# fakeQuantizeGrad
@compute @workgroup_size(THREADS)
fn fakeQuantizeGrad(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  if (groupOf(w, c) >= n.groups) {
    return;
  }
  let run = groupOf(w, c) * (THREADS / n.lanes) + t / n.lanes;
  let range = elementsOf(run, n.runs, n.columns, n.width, n.perRow);
  let lane = t % n.lanes;
  let levels = f32(n.levels);
  let on = min(run, n.runs - 1);
  let step = scale[n.scale_at + on];
  let origin = zero[n.zero_at + on];
  let shift = clampTo(round(origin), levels);
  var ofStep = 0.0;
  var outside = 0.0;
  for (var at = range.begin + lane; at < range.end; at += n.lanes) {
    let x = weights[n.weights_at + at];
    let given = grad[n.grad_at + at];
    let whole = roundedRatio(x, step);
    let place = whole + shift;
    let code = clampTo(place, levels);
    let inside = place == code;
    if (n.wanted > 0) {
      weightsGrad[n.weightsGrad_at + at] = select(0.0, given, inside);
    }
    ofStep += given * select(code - shift, whole - x / step, inside);
    outside += select(given, 0.0, inside);
  }
  ofStep = laneSum(ofStep, t, n.lanes);
  outside = laneSum(outside, t, n.lanes);
  if (lane == 0 && run < n.runs) {
    scaleGrad[n.scaleGrad_at + run] = ofStep;
    zeroGrad[n.zeroGrad_at + run] = select(0.0, -outside * step, origin >= 0.0 && origin <= levels);
  }
}

//# affineCodes
// 4 codes, a word, a thread: the result is a tensor of its own and begins at a word.
@compute @workgroup_size(THREADS)
fn affineCodes(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let word = groupOf(w, c) * THREADS + t;
  let levels = f32(n.levels);
  let end = min(n.size, 4 * word + 4);
  if (4 * word >= end) {
    return;
  }
  var row = 4 * word / n.columns;
  var column = 4 * word % n.columns;
  var packed = 0u;
  for (var at = 4 * word; at < end; at++) {
    let run = row * n.perRow + column / n.width;
    let shift = clampTo(round(zero[n.zero_at + run]), levels);
    let code = clampTo(roundedRatio(weights[n.weights_at + at], scale[n.scale_at + run]) + shift, levels);
    packed |= u32(code) << (8 * (at % 4));
    column++;
    if (column == n.columns) {
      column = 0;
      row++;
    }
  }
  codes[n.codes_at / 4 + word] = packed;
}
