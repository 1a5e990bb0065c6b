
//# transpose
// A tile of 32 x 32 a group, through workgroup memory with a column to spare against bank conflicts.
var<workgroup> tile: array<f32, 1056>;

@compute @workgroup_size(THREADS)
fn transpose(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let across = (n.columns + 31) / 32;
  let row0 = group / across * 32;
  let column0 = group % across * 32;
  let x = t % 32;
  for (var r = t / 32; r < 32; r += THREADS / 32) {
    if (row0 + r < n.rows && column0 + x < n.columns) {
      tile[r * 33 + x] = a[n.a_at + (row0 + r) * n.columns + column0 + x];
    }
  }
  workgroupBarrier();
  for (var r = t / 32; r < 32; r += THREADS / 32) {
    if (column0 + r < n.columns && row0 + x < n.rows) {
      y[n.y_at + (column0 + r) * n.rows + row0 + x] = tile[x * 33 + r];
    }
  }
}

//# gatherRows
// Of a table of n.rows rows, those from n.first on, n.count of which are here; others are left alone.
@compute @workgroup_size(THREADS)
fn gatherRows(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    let at = i / n.width;
    let row = indices[n.indices_at + at];
    if (row < 0 || row >= i32(n.rows)) {
      fault[n.fault_at] = n.check;
      fault[n.fault_at + 1] = row;
      fault[n.fault_at + 2] = i32(at);
    } else if (u32(row) - n.first < n.count) {
      y[n.y_at + i] = table[n.table_at + (u32(row) - n.first) * n.width + i % n.width];
    }
  }
}

//# codebookColumns
// [C, v] -> [v][C] from books[at] on, so that neighboring threads search neighboring codewords; C goes to books[stage].
@compute @workgroup_size(THREADS)
fn codebookColumns(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let i = groupOf(w, c) * THREADS + t;
  if (i == 0) {
    books[n.books_at + n.stage] = f32(n.codewords);
  }
  if (i < n.codewords * n.length) {
    books[n.books_at + n.at + i] = codebook[n.codebook_at + i % n.codewords * n.length + i / n.codewords];
  }
}
