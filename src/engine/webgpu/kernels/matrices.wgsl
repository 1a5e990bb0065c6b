// Diagonals of [N, N]: n.count elements, n.step apart.

//# diagonal
@compute @workgroup_size(THREADS)
fn diagonal(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let i = groupOf(w, c) * THREADS + t;
  if (i < n.count) {
    y[n.y_at + i] = a[n.a_at + i * n.step];
  }
}

//# addDiagonal
@compute @workgroup_size(THREADS)
fn addDiagonal(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let i = groupOf(w, c) * THREADS + t;
  if (i < n.count) {
    a[n.a_at + i * n.step] += n.value;
  }
}
