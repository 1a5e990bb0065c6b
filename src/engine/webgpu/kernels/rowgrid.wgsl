// Dynamic quantization of rows [.., C]: `lanes` threads work on one row.

/** Step before its floor of 1e-8, and as it is used. */
struct Step {
  exact: f32,
  used: f32,
}

fn rowStep(most: f32, least: f32, levels: f32, symmetric: bool) -> Step {
  let exact = divideRounded(rangeOf(most, least, symmetric), levels);
  return Step(exact, max(exact, 0x1.5798eep-27f));
}

//# fakeQuantizeRows
@compute @workgroup_size(THREADS)
fn fakeQuantizeRows(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  if (groupOf(w, c) >= n.groups) {
    return;
  }
  let row = groupOf(w, c) * (THREADS / n.lanes) + t / n.lanes;
  let begin = row * n.width + t % n.lanes;
  let end = select(0, (row + 1) * n.width, row < n.rows);
  let levels = f32(n.levels);
  var most = 0.0;
  var least = 0.0;
  for (var at = begin; at < end; at += n.lanes) {
    let value = x[n.x_at + at];
    most = max(most, value);
    least = min(least, value);
  }
  most = laneMax(most, t, n.lanes);
  least = -laneMax(-least, t, n.lanes);
  let step = rowStep(most, least, levels, n.symmetric > 0).used;
  let shift = zeroOf(least, step, levels, n.symmetric > 0);
  for (var at = begin; at < end; at += n.lanes) {
    let code = clampTo(roundedRatio(x[n.x_at + at], step) + shift, levels);
    y[n.y_at + at] = (code - shift) * step;
  }
}

//# fakeQuantizeRowsGrad
const NONE = 0xffffffffu;

@compute @workgroup_size(THREADS)
fn fakeQuantizeRowsGrad(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  if (groupOf(w, c) >= n.groups) {
    return;
  }
  let row = groupOf(w, c) * (THREADS / n.lanes) + t / n.lanes;
  let lane = t % n.lanes;
  let begin = row * n.width + lane;
  let end = select(0, (row + 1) * n.width, row < n.rows);
  let levels = f32(n.levels);
  let symmetric = n.symmetric > 0;
  // the extremes of this thread's elements and the first places of them, a 0 never
  var high = 0.0;
  var low = 0.0;
  var highAt = NONE;
  var lowAt = NONE;
  for (var at = begin; at < end; at += n.lanes) {
    let value = x[n.x_at + at];
    if (value > high) {
      high = value;
      highAt = at;
    }
    if (value < low) {
      low = value;
      lowAt = at;
    }
  }
  let most = laneMax(high, t, n.lanes);
  let least = -laneMax(-low, t, n.lanes);
  let step = rowStep(most, least, levels, symmetric);
  let shift = zeroOf(least, step.used, levels, symmetric);
  highAt = laneLeastWord(select(NONE, highAt, high == most), t, n.lanes);
  lowAt = laneLeastWord(select(NONE, lowAt, low == least), t, n.lanes);

  var ofStep = 0.0;
  for (var at = begin; at < end; at += n.lanes) {
    let value = x[n.x_at + at];
    let given = grad[n.grad_at + at];
    let whole = roundedRatio(value, step.used);
    let place = whole + shift;
    let code = clampTo(place, levels);
    let inside = place == code;
    xGrad[n.xGrad_at + at] = select(0.0, given, inside);
    ofStep += given * select(code - shift, whole - value / step.used, inside);
  }
  ofStep = laneSum(ofStep, t, n.lanes);
  if (step.exact < 0x1.5798eep-27f) {
    return;
  }
  let ofRange = select(1.0, 2.0, symmetric) * ofStep / levels;
  if (symmetric) {
    // only the first of the largest magnitude
    if (most > -least || (most == -least && highAt < lowAt)) {
      lowAt = NONE;
    } else {
      highAt = NONE;
    }
  }
  // by the thread that wrote the element above
  if (highAt < end && highAt % n.width % n.lanes == lane) {
    xGrad[n.xGrad_at + highAt] += ofRange;
  }
  if (lowAt < end && lowAt % n.width % n.lanes == lane) {
    xGrad[n.xGrad_at + lowAt] -= ofRange;
  }
}
