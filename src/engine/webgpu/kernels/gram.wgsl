// The upper triangle of a symmetric matrix from its lower one.

//# mirrorLower
// y [side, side] in place; a tile of 32 x 32 of the lower triangle a group, as in transpose.
var<workgroup> tile: array<f32, 1056>;

@compute @workgroup_size(THREADS)
fn mirrorLower(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let place = lowerTile(group) * 32;
  let x = t % 32;
  for (var r = t / 32; r < 32; r += THREADS / 32) {
    if (place.x + r < n.side && place.y + x < n.side) {
      tile[r * 33 + x] = y[n.y_at + (place.x + r) * n.side + place.y + x];
    }
  }
  workgroupBarrier();
  for (var r = t / 32; r < 32; r += THREADS / 32) {
    let row = place.y + r;
    let column = place.x + x;
    if (column < n.side && row < column) {
      y[n.y_at + row * n.side + column] = tile[x * 33 + r];
    }
  }
}

//# gramAdd
// Rows of a matrix too large to be bound at once: y [rows, ..] += p [rows, columns] at column `begin`; the sums are left in p.
@compute @workgroup_size(THREADS)
fn gramAdd(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    let at = n.y_at + i / n.columns * n.side + n.begin + i % n.columns;
    let sum = y[at] + p[n.p_at + i];
    y[at] = sum;
    p[n.p_at + i] = sum;
  }
}

//# gramTurn
// The same transposed: y [columns, ..] = p^T at column `begin`; only above the diagonal of p where `diagonal` is 1.
@compute @workgroup_size(THREADS)
fn gramTurn(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    let row = i / n.rows;
    let column = i % n.rows;
    if (n.diagonal == 0 || column > row) {
      y[n.y_at + row * n.side + n.begin + column] = p[n.p_at + column * n.columns + row];
    }
  }
}
