// Bytes that do not begin or end at a word. Each thread owns one word of the target.

//# copyBytes
@compute @workgroup_size(THREADS)
fn copyBytes(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let first = n.y_at / 4;
  let word = first + groupOf(w, c) * THREADS + t;
  let end = n.y_at + n.size;
  if (word >= (end + 3) / 4) {
    return;
  }
  var value = y[word];
  for (var lane = 0u; lane < 4; lane++) {
    let at = 4 * word + lane;
    if (at >= n.y_at && at < end) {
      let source = n.a_at + at - n.y_at;
      value = insertBits(value, a[source / 4] >> (8 * (source % 4)), 8 * lane, 8);
    }
  }
  y[word] = value;
}

//# patchWord
@compute @workgroup_size(THREADS)
fn patchWord(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  if (t == 0) {
    y[n.y_at] = (y[n.y_at] & ~n.mask) | n.value;
  }
}
