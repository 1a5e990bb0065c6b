// Weights [O, I] times factors of rows and columns, fake-quantized on the clipped grid of each run of `width` columns, and the
// gradients of factors and logits. `lanes` threads work on a run. Grids are made by neighboring threads, one a run: the sigmoids
// of a run would take as long as its elements do.

/** As `multiply` and `scaleRows` round it. */
fn scaledBy(x: f32, ofColumn: f32, ofRow: f32) -> f32 {
  return opaque(opaque(x * ofColumn) * ofRow);
}

/** Of each run of the group: its extremes, its scale and zero, the gradient of its scale. */
var<workgroup> pairs: array<vec2f, THREADS>;

//# clippedFakeQuantize
@compute @workgroup_size(THREADS)
fn clippedFakeQuantize(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  if (groupOf(w, c) >= n.groups) {
    return;
  }
  let perGroup = THREADS / n.lanes;
  let own = t / n.lanes;
  let lane = t % n.lanes;
  let first = groupOf(w, c) * perGroup;
  let run = first + own;
  let range = elementsOf(run, n.runs, n.columns, n.width, n.perRow);
  let row = run / n.perRow;
  let begin = row * n.columns;
  let levels = f32(n.levels);
  var ofRow = 1.0;
  if (n.withRows > 0 && run < n.runs) {
    ofRow = rowFactors[n.rowFactors_at + row];
  }
  var ofColumn = 1.0;
  var high = 0.0;
  var low = 0.0;
  for (var at = range.begin + lane; at < range.end; at += n.lanes) {
    if (n.withColumns > 0) {
      ofColumn = columnFactors[n.columnFactors_at + at - begin];
    }
    let x = scaledBy(weights[n.weights_at + at], ofColumn, ofRow);
    high = max(high, x);
    low = min(low, x);
  }
  high = laneMax(high, t, n.lanes);
  low = -laneMax(-low, t, n.lanes);
  if (lane == 0) {
    pairs[own] = vec2f(high, low);
  }
  workgroupBarrier();
  if (t < perGroup && first + t < n.runs) {
    high = pairs[t].x;
    low = pairs[t].y;
    if (n.withLogits > 0) {
      high = clipped(high, upper[n.upper_at + first + t]);
      low = clipped(low, lower[n.lower_at + first + t]);
    }
    let step = stepOf(high, low, levels, n.symmetric > 0);
    pairs[t] = vec2f(step, zeroOf(low, step, levels, n.symmetric > 0));
  }
  workgroupBarrier();
  let step = pairs[own].x;
  let shift = pairs[own].y;
  for (var at = range.begin + lane; at < range.end; at += n.lanes) {
    if (n.withColumns > 0) {
      ofColumn = columnFactors[n.columnFactors_at + at - begin];
    }
    let x = scaledBy(weights[n.weights_at + at], ofColumn, ofRow);
    y[n.y_at + at] = (clampTo(roundedRatio(x, step) + shift, levels) - shift) * step;
  }
}

//# clippedFakeQuantizeGrad
// logits [2, runs]: gradients of upper and lower. state [6, runs], for factorGrads: scale, zero, places of the most and the least
// element (none: the largest word), and what these two get through the scale.
const NONE = 0xffffffffu;

@compute @workgroup_size(THREADS)
fn clippedFakeQuantizeGrad(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  if (groupOf(w, c) >= n.groups) {
    return;
  }
  let perGroup = THREADS / n.lanes;
  let own = t / n.lanes;
  let lane = t % n.lanes;
  let first = groupOf(w, c) * perGroup;
  let run = first + own;
  let range = elementsOf(run, n.runs, n.columns, n.width, n.perRow);
  let row = run / n.perRow;
  let begin = row * n.columns;
  let levels = f32(n.levels);
  let symmetric = n.symmetric > 0;
  let withFactors = n.withRows + n.withColumns > 0;
  var ofRow = 1.0;
  if (n.withRows > 0 && run < n.runs) {
    ofRow = rowFactors[n.rowFactors_at + row];
  }
  var ofColumn = 1.0;
  // the extremes of this thread's elements and the first places of them, a 0 never
  var high = 0.0;
  var low = 0.0;
  var highAt = NONE;
  var lowAt = NONE;
  for (var at = range.begin + lane; at < range.end; at += n.lanes) {
    if (n.withColumns > 0) {
      ofColumn = columnFactors[n.columnFactors_at + at - begin];
    }
    let x = scaledBy(weights[n.weights_at + at], ofColumn, ofRow);
    if (x > high) {
      high = x;
      highAt = at;
    }
    if (x < low) {
      low = x;
      lowAt = at;
    }
  }
  var most = laneMax(high, t, n.lanes);
  var least = -laneMax(-low, t, n.lanes);
  if (withFactors) {
    highAt = laneLeastWord(select(NONE, highAt, high == most), t, n.lanes);
    lowAt = laneLeastWord(select(NONE, lowAt, low == least), t, n.lanes);
    if (lane == 0 && run < n.runs) {
      state[n.state_at + 2 * n.runs + run] = highAt;
      state[n.state_at + 3 * n.runs + run] = lowAt;
    }
  }
  if (lane == 0) {
    pairs[own] = vec2f(most, least);
  }
  workgroupBarrier();
  // from here on the extremes of the run whose grid is this thread's
  let mine = first + t;
  let hasGrid = t < perGroup && mine < n.runs;
  if (hasGrid) {
    most = pairs[t].x;
    least = pairs[t].y;
    high = most;
    low = least;
    if (n.withLogits > 0) {
      high = clipped(most, upper[n.upper_at + mine]);
      low = clipped(least, lower[n.lower_at + mine]);
    }
    let step = stepOf(high, low, levels, symmetric);
    let shift = zeroOf(low, step, levels, symmetric);
    if (withFactors) {
      state[n.state_at + mine] = bitcast<u32>(step);
      state[n.state_at + n.runs + mine] = bitcast<u32>(shift);
    }
    pairs[t] = vec2f(step, shift);
  }
  workgroupBarrier();
  let step = pairs[own].x;
  let shift = pairs[own].y;
  var ofStep = 0.0;
  for (var at = range.begin + lane; at < range.end; at += n.lanes) {
    if (n.withColumns > 0) {
      ofColumn = columnFactors[n.columnFactors_at + at - begin];
    }
    let x = scaledBy(weights[n.weights_at + at], ofColumn, ofRow);
    let whole = roundedRatio(x, step);
    let place = whole + shift;
    let code = clampTo(place, levels);
    ofStep += grad[n.grad_at + at] * select(code - shift, whole - x / step, place == code);
  }
  ofStep = laneSum(ofStep, t, n.lanes);
  workgroupBarrier();
  if (lane == 0) {
    pairs[own].x = ofStep;
  }
  workgroupBarrier();
  if (!hasGrid) {
    return;
  }
  var ofMost = 0.0;
  var ofLeast = 0.0;
  var ofUpper = 0.0;
  var ofLower = 0.0;
  let exact = divideRounded(rangeOf(high, low, symmetric), levels);
  // clamped where it rounds to 0 or to infinity; the ties at both ends round there
  if (exact > 0x1p-25 && exact < 65520.0) {
    // factors of the extremes, and what they lack of 1
    var shrink = vec2f(1.0, 1.0);
    var lack = vec2f(0.0, 0.0);
    if (n.withLogits > 0) {
      let u = upper[n.upper_at + mine];
      let l = lower[n.lower_at + mine];
      shrink = vec2f(1.0 / (1.0 + expAccurate(-u)), 1.0 / (1.0 + expAccurate(-l)));
      lack = vec2f(1.0 / (1.0 + expAccurate(u)), 1.0 / (1.0 + expAccurate(l)));
    }
    let ofRange = select(1.0, 2.0, symmetric) * pairs[t].x / levels;
    if (most > 0.0 && (!symmetric || high >= -low)) {
      ofMost = ofRange * shrink.x;
      ofUpper = ofMost * lack.x * most;
    }
    if (least < 0.0 && (!symmetric || high < -low)) {
      ofLeast = -ofRange * shrink.y;
      ofLower = ofLeast * lack.y * least;
    }
  }
  if (n.withLogits > 0) {
    logits[n.logits_at + mine] = ofUpper;
    logits[n.logits_at + n.runs + mine] = ofLower;
  }
  if (withFactors) {
    state[n.state_at + 4 * n.runs + mine] = bitcast<u32>(ofMost);
    state[n.state_at + 5 * n.runs + mine] = bitcast<u32>(ofLeast);
  }
}
