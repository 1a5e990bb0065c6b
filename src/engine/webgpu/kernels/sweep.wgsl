// Products of the column sweeps.

//# slabProduct
// y [m, n] = (keep ? y : 0) + factor a^T b: a [k, m] with rows `stride` apart, b [k, n]. A group makes a tile of 64 x 64, a
// thread 4 x 4 of it. Sums of 64 terms are added up: as exact as a short sum.
var<workgroup> left: array<vec4f, 256>; // [16][64 / 4]
var<workgroup> right: array<f32, 1024>; // [16][64]

@compute @workgroup_size(THREADS)
fn slabProduct(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let across = (n.n + 63) / 64;
  let row0 = group / across * 64;
  let column0 = group % across * 64;
  let row = t / 16 * 4;
  let column = t % 16; // columns 16 apart: neighboring threads write neighboring elements
  // of 4 rows in a vector, for each column
  var total: array<vec4f, 4>;
  var part: array<vec4f, 4>;
  for (var base = 0u; base < n.k; base += 16) {
    let z = base + t / 16;
    var four = vec4f(0.0);
    for (var j = 0u; j < 4; j++) {
      let at = row0 + t % 16 * 4 + j;
      if (z < n.k && at < n.m) {
        four[j] = a[n.a_at + z * n.stride + at];
      }
    }
    left[t] = four;
    for (var e = t; e < 1024; e += THREADS) {
      let depth = base + e / 64;
      let at = column0 + e % 64;
      var value = 0.0;
      if (depth < n.k && at < n.n) {
        value = b[n.b_at + depth * n.n + at];
      }
      right[e] = value;
    }
    workgroupBarrier();
    for (var depth = 0u; depth < 16; depth++) {
      let rows = left[depth * 16 + row / 4];
      for (var j = 0u; j < 4; j++) {
        part[j] = fma(rows, vec4f(right[depth * 64 + column + 16 * j]), part[j]);
      }
    }
    workgroupBarrier();
    if (base % 64 == 48 || base + 16 >= n.k) {
      for (var j = 0u; j < 4; j++) {
        total[j] += part[j];
        part[j] = vec4f(0.0);
      }
    }
  }
  for (var i = 0u; i < 4; i++) {
    for (var j = 0u; j < 4; j++) {
      let r = row0 + row + i;
      let q = column0 + column + 16 * j;
      if (r < n.m && q < n.n) {
        let at = n.y_at + r * n.n + q;
        let value = n.factor * total[j][i];
        if (n.keep == 1) {
          y[at] += value;
        } else {
          y[at] = value;
        }
      }
    }
  }
}
