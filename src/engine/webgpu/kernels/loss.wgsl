// Losses of rows of logits, a row a group. `check` is the number of the fault for a target outside.

const LOWEST = -3.4028234e38;

/** 2 artanh(s) = log((1 + s) / (1 - s)), |s| <= 0.1716; the next term is below 1e-9. */
fn logSeries(s: f32) -> f32 {
  let z = s * s;
  return 2.0 * s + 2.0 * s * z * (1.0 / 3.0 + z * (1.0 / 5.0 + z * (1.0 / 7.0 + z * (1.0 / 9.0))));
}

/** log x of a normal number, to some units in the last place; that of a driver may be 2^-21 off near 1. */
fn logAccurate(x: f32) -> f32 {
  // x = m 2^power, m from sqrt(1/2) to sqrt(2)
  let bits = bitcast<u32>(x) + (0x3f800000u - 0x3f3504f3u);
  let power = f32(i32(bits >> 23u) - 127);
  let m = bitcast<f32>((bits & 0x7fffffu) + 0x3f3504f3u);
  return power * 0.693359375 + (logSeries((m - 1.0) / (m + 1.0)) - power * 2.12194440e-4);
}

/** log(a / b) of positive numbers, without loss where they are close. */
fn logRatio(a: f32, b: f32) -> f32 {
  let s = (a - b) / (a + b);
  if (abs(s) < 0.17) {
    return logSeries(s);
  }
  return logAccurate(a / b);
}

//# crossEntropy
@compute @workgroup_size(THREADS)
fn crossEntropy(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let row = n.logits_at + group * n.width;
  var top = LOWEST;
  var sum = Double(0.0, 0.0);
  for (var i = t; i < n.width; i += THREADS) {
    let x = logits[row + i];
    if (x > top) {
      sum = doubleAddFloat(doubleMultiplyFloat(sum, expAccurate(top - x)), 1.0);
      top = x;
    } else {
      sum = doubleAddFloat(sum, expAccurate(x - top));
    }
  }
  let highest = groupMax(top, t);
  let total = groupSumDouble(doubleMultiplyFloat(sum, expAccurate(top - highest)), t);
  if (t > 0) {
    return;
  }
  let chosen = targets[n.targets_at + group];
  if (chosen < 0 || chosen >= i32(n.width)) {
    if (fault[n.fault_at] == 0) {
      fault[n.fault_at] = n.check;
      fault[n.fault_at + 1] = chosen;
      fault[n.fault_at + 2] = i32(group);
    }
    y[n.y_at + group] = 0.0;
  } else {
    y[n.y_at + group] = logAccurate(total.x) + (highest - logits[row + u32(chosen)]);
  }
}

//# klDivergence
@compute @workgroup_size(THREADS)
fn klDivergence(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let p = n.reference_at + group * n.width;
  let q = n.logits_at + group * n.width;
  var largest = vec2f(LOWEST);
  for (var i = t; i < n.width; i += THREADS) {
    largest = max(largest, vec2f(reference[p + i], logits[q + i]));
  }
  let topP = groupMax(largest.x, t);
  let topQ = groupMax(largest.y, t);
  // Of the terms p (log p - log q), what does not hang on the sums: weighted by p' = p totalP. The differences to the tops are
  // exact where they count.
  var sumP = Double(0.0, 0.0);
  var sumQ = Double(0.0, 0.0);
  var sum = Double(0.0, 0.0);
  for (var i = t; i < n.width; i += THREADS) {
    let x = reference[p + i] - topP;
    let z = logits[q + i] - topQ;
    let weight = expAccurate(x);
    sumP = doubleAddFloat(sumP, weight);
    sumQ = doubleAddFloat(sumQ, expAccurate(z));
    sum = doubleAddFloat(sum, weight * (x - z));
  }
  let totalP = groupSumDouble(sumP, t);
  let totalQ = groupSumDouble(sumQ, t);
  let total = groupSumDouble(sum, t);
  if (t == 0) {
    let divergence = total.x / totalP.x + logRatio(totalQ.x, totalP.x);
    y[n.y_at + group] = select(divergence, 0.0, divergence < 0.0); // NaN stays
  }
}
