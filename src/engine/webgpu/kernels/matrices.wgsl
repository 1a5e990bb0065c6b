// Diagonals of [N, N].

//# diagonal
@compute @workgroup_size(THREADS)
fn diagonal(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let i = groupOf(w, c) * THREADS + t;
  if (i < n.side) {
    y[n.y_at + i] = a[n.a_at + i * n.side + i];
  }
}

//# addDiagonal
@compute @workgroup_size(THREADS)
fn addDiagonal(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let i = groupOf(w, c) * THREADS + t;
  if (i < n.side) {
    a[n.a_at + i * n.side + i] += n.value;
  }
}
