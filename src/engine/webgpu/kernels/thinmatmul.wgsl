// Products of few rows, and what finishes products that were split in depth.

//# matmulFew
// y [few, n] = alpha x w (+ y) for up to ROWS rows x [few, k] and w [k, n], with any strides: x^T, w^T and y^T too. A group has
// 8 columns, each depth-wise by 32 neighbors, or (ACROSS, where columns are next to each other) 32 columns by 8 threads.
const LANES = select(32u, 8u, ACROSS == 1);
const WIDE = THREADS / LANES;

var<workgroup> parts: array<f32, ROWS * THREADS>; // [row][lane][column]

@compute @workgroup_size(THREADS)
fn matmulFew(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let groups = (n.columns + WIDE - 1) / WIDE; // of one product of the stack
  let item = group / groups;
  let first = group % groups * WIDE;
  let lane = select(t % LANES, t / WIDE, ACROSS == 1);
  let own = select(t / LANES, t % WIDE, ACROSS == 1);
  let column = min(first + own, n.columns - 1);
  let atX = n.x_at + n.fromX + item * n.stackX;
  let atW = n.weights_at + n.fromW + item * n.stackW + column * n.columnW;
  var sums: array<f32, ROWS>;
  for (var p = lane; p < n.depth; p += LANES) {
    let value = weights[atW + p * n.depthW];
    for (var r = 0u; r < ROWS; r++) {
      sums[r] += x[atX + min(r, n.rows - 1) * n.rowX + p * n.depthX] * value;
    }
  }
  for (var r = 0u; r < ROWS; r++) {
    parts[(r * LANES + lane) * WIDE + own] = sums[r];
  }
  workgroupBarrier();
  for (var i = t; i < n.rows * WIDE; i += THREADS) {
    let r = i / WIDE;
    let j = i % WIDE;
    if (first + j >= n.columns) {
      continue;
    }
    var sum = 0.0;
    for (var l = 0u; l < LANES; l++) {
      sum += parts[(r * LANES + l) * WIDE + j];
    }
    let at = n.y_at + n.fromY + item * n.stackY + r * n.rowY + (first + j) * n.columnY;
    if (n.accumulate == 1) {
      y[at] += n.alpha * sum;
    } else {
      y[at] = n.alpha * sum;
    }
  }
}

//# sumSplits
// y [.., size] = alpha times the sum over the splits of parts [.., splits, size] (+ y).
@compute @workgroup_size(THREADS)
fn sumSplits(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.total); i += THREADS) {
    let at = n.parts_at + i / n.size * n.splits * n.size + i % n.size;
    var sum = 0.0;
    for (var s = 0u; s < n.splits; s++) {
      sum += parts[at + s * n.size];
    }
    if (n.accumulate == 1) {
      y[n.y_at + i] += n.alpha * sum;
    } else {
      y[n.y_at + i] = n.alpha * sum;
    }
  }
}
