// Elementwise operations: 1024 elements a group.

/**
 * The tail of the standard normal distribution, P(X > |x|), from exp(-x^2 / 2): times u Q(u), u = 1 / (1 + 0.34 |x|), with Q
 * as in wasm/assembly/lib/normal.ts.
 */
fn normalTail(x: f32, density: f32) -> f32 {
  let u = 1.0 / (1.0 + 0.34 * abs(x));
  var q = 0.140672339 - 0.0263703115 * u;
  q = q * u - 0.275462744;
  q = q * u + 0.20473311;
  q = q * u - 0.0463953387;
  q = q * u + 0.116035063;
  q = q * u + 0.115035071;
  q = q * u + 0.13613348;
  q = q * u + 0.135619345;
  return q * u * density;
}

//# add
@compute @workgroup_size(THREADS)
fn add(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    y[n.y_at + i] = a[n.a_at + i] + b[n.b_at + i % n.repeat];
  }
}

//# subtract
@compute @workgroup_size(THREADS)
fn subtract(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    y[n.y_at + i] = a[n.a_at + i] - b[n.b_at + i % n.repeat];
  }
}

//# multiply
@compute @workgroup_size(THREADS)
fn multiply(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    y[n.y_at + i] = a[n.a_at + i] * b[n.b_at + i % n.repeat];
  }
}

//# divide
@compute @workgroup_size(THREADS)
fn divide(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    y[n.y_at + i] = divideRounded(a[n.a_at + i], b[n.b_at + i % n.repeat]);
  }
}

//# expOf
@compute @workgroup_size(THREADS)
fn expOf(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    y[n.y_at + i] = expAccurate(a[n.a_at + i]);
  }
}

//# relu
@compute @workgroup_size(THREADS)
fn relu(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    y[n.y_at + i] = max(a[n.a_at + i], 0.0);
  }
}

//# reluGrad
@compute @workgroup_size(THREADS)
fn reluGrad(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    y[n.y_at + i] = select(0.0, grad[n.grad_at + i], a[n.a_at + i] > 0.0);
  }
}

//# scale
@compute @workgroup_size(THREADS)
fn scale(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    y[n.y_at + i] = a[n.a_at + i] * n.factor;
  }
}

//# addInto
@compute @workgroup_size(THREADS)
fn addInto(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    y[n.y_at + i] += a[n.a_at + i] * n.factor;
  }
}

//# scaleRows
@compute @workgroup_size(THREADS)
fn scaleRows(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    y[n.y_at + i] = a[n.a_at + i] * factors[n.factors_at + i / n.width];
  }
}

//# divideRows
@compute @workgroup_size(THREADS)
fn divideRows(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    y[n.y_at + i] = divideRounded(a[n.a_at + i], divisors[n.divisors_at + i / n.width]);
  }
}

//# siluMultiply
@compute @workgroup_size(THREADS)
fn siluMultiply(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    let g = gate[n.gate_at + i];
    y[n.y_at + i] = g / (1.0 + expAccurate(-g)) * up[n.up_at + i];
  }
}

//# siluMultiplyGrad
@compute @workgroup_size(THREADS)
fn siluMultiplyGrad(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    let g = gate[n.gate_at + i];
    let s = 1.0 / (1.0 + expAccurate(-g));
    let d = grad[n.grad_at + i];
    upGrad[n.upGrad_at + i] = d * g * s;
    gateGrad[n.gateGrad_at + i] = d * up[n.up_at + i] * s * (1.0 + g * (1.0 - s));
  }
}

//# gelu
@compute @workgroup_size(THREADS)
fn gelu(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    let x = a[n.a_at + i];
    let tail = normalTail(x, expAccurate(-0.5 * x * x));
    y[n.y_at + i] = x * select(1.0 - tail, tail, x < 0.0);
  }
}

//# geluGrad
@compute @workgroup_size(THREADS)
fn geluGrad(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    let x = a[n.a_at + i];
    let density = expAccurate(-0.5 * x * x);
    let tail = normalTail(x, density);
    let distribution = select(1.0 - tail, tail, x < 0.0);
    y[n.y_at + i] = grad[n.grad_at + i] * (distribution + x * 0.398942280 * density);
  }
}
