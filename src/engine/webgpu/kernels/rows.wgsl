// A number for each row.

//# divideRows
@compute @workgroup_size(THREADS)
fn divideRows(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    y[n.y_at + i] = divideRounded(a[n.a_at + i], divisors[n.divisors_at + i / n.width]);
  }
}
