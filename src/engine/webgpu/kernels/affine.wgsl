// Affine grids of weights [I, O], one column of W a row, in any groups of columns, and the column sweep on them.
// In `marks`, i32 [I], a column has 2 * its group, + 1 where its grid is taken when the sweep comes to it.

//# affineFit
// 32 rows a group of threads, 8 threads for each. `members`: where the columns of each group begin, [groups + 1], and the columns.
var<workgroup> highs: array<f32, 256>;
var<workgroup> lows: array<f32, 256>;

@compute @workgroup_size(THREADS)
fn affineFit(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  if (groupOf(w, c) >= n.groups) {
    return;
  }
  let slabs = (n.rows + 31) / 32;
  let group = n.first + groupOf(w, c) / slabs;
  let row = groupOf(w, c) % slabs * 32 + t % 32;
  let begin = u32(members[n.members_at + group]);
  let end = u32(members[n.members_at + group + 1]);
  var high = 0.0;
  var low = 0.0;
  if (row < n.rows) {
    for (var at = begin + t / 32; at < end; at += 8) {
      let column = u32(members[n.members_at + n.count + 1 + at]);
      let x = weights[n.weights_at + column * n.rows + row];
      high = max(high, x);
      low = min(low, x);
    }
  }
  highs[t] = high;
  lows[t] = low;
  workgroupBarrier();
  if (t >= 32 || row >= n.rows) {
    return;
  }
  for (var other = t + 32; other < 256; other += 32) {
    high = max(high, highs[other]);
    low = min(low, lows[other]);
  }
  let levels = f32(n.levels);
  let step = stepOf(high, low, levels, n.symmetric > 0);
  scale[n.scale_at + group * n.rows + row] = step;
  zero[n.zero_at + group * n.rows + row] = zeroOf(low, step, levels, n.symmetric > 0);
}

//# affineRound
// Weights to codes and to what these stand for, in place. 4 codes, a word, a thread: the codes are a tensor of their own and
// begin at a word.
@compute @workgroup_size(THREADS)
fn affineRound(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let word = groupOf(w, c) * THREADS + t;
  let end = min(n.size, 4 * word + 4);
  if (4 * word >= end) {
    return;
  }
  var column = 4 * word / n.rows;
  var row = 4 * word % n.rows;
  var packed = 0u;
  for (var at = 4 * word; at < end; at++) {
    let on = u32(marks[n.marks_at + column]) / 2 * n.rows + row;
    let step = scale[n.scale_at + on];
    let shift = zero[n.zero_at + on];
    let code = clampTo(roundedRatio(y[n.y_at + at], step) + shift, f32(n.levels));
    y[n.y_at + at] = (code - shift) * step;
    packed |= u32(code) << (8 * (at % 4));
    row++;
    if (row == n.rows) {
      row = 0;
      column++;
    }
  }
  codes[n.codes_at / 4 + word] = packed;
}

//# affineSweepBlock
// Columns [begin, begin + count) for 32 rows, 8 threads for each: thread r + 32 l has columns l, l + 8, .. of the block for row r,
// alone, so that a column costs one barrier, between its error and the use of it. Leaves what the codes stand for in `y` and the
// errors for the columns behind the block. `feedback` is rows begin .. of it.
const BLOCK = 64u;
var<workgroup> tile: array<f32, 2048>; // [BLOCK][32]
var<workgroup> error: array<f32, 64>; // of this column and of the last
var<workgroup> factors: array<f32, 128>; // and the rows of the feedback of both
var<workgroup> highs: array<f32, 256>;
var<workgroup> lows: array<f32, 256>;

fn factorOf(i: u32, j: u32) -> f32 {
  if (i >= n.count || j >= n.count) {
    return 0.0;
  }
  return feedback[n.feedback_at + i * n.columns + n.begin + j];
}

@compute @workgroup_size(THREADS)
fn affineSweepBlock(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  if (groupOf(w, c) >= n.groups) {
    return;
  }
  let own = t % 32;
  let lane = t / 32;
  let row = groupOf(w, c) * 32 + own;
  let within = row < n.rows;
  let levels = f32(n.levels);
  for (var j = lane; j < n.count; j += 8) {
    tile[j * 32 + own] = select(0.0, y[n.y_at + (n.begin + j) * n.rows + min(row, n.rows - 1)], within);
  }
  var ahead = factorOf(0, t); // the next row of the feedback, on its way while a column has its turn
  var known = -1; // the group whose grid this thread has
  var step = 1.0;
  var shift = 0.0;
  for (var i = 0u; i < n.count; i++) {
    let mark = marks[n.marks_at + n.begin + i];
    let group = mark >> 1;
    let on = u32(group) * n.rows + row;
    if ((mark & 1) == 1) {
      var high = 0.0;
      var low = 0.0;
      for (var j = lane; j < n.count; j += 8) {
        if (j >= i && marks[n.marks_at + n.begin + j] >> 1 == group) {
          high = max(high, tile[j * 32 + own]);
          low = min(low, tile[j * 32 + own]);
        }
      }
      highs[t] = high;
      lows[t] = low;
      workgroupBarrier();
      for (var other = own; other < 256; other += 32) {
        high = max(high, highs[other]);
        low = min(low, lows[other]);
      }
      known = group;
      step = stepOf(high, low, levels, n.symmetric > 0);
      shift = zeroOf(low, step, levels, n.symmetric > 0);
      if (lane == 0 && within) {
        scale[n.scale_at + on] = step;
        zero[n.zero_at + on] = shift;
      }
    }
    let turn = i % 2;
    if (i % 8 == lane) {
      if (known != group && within) {
        known = group;
        step = scale[n.scale_at + on];
        shift = zero[n.zero_at + on];
      }
      let x = tile[i * 32 + own];
      let decoded = opaque((clampTo(roundedRatio(x, step) + shift, levels) - shift) * step);
      error[turn * 32 + own] = x - decoded;
      if (within) {
        y[n.y_at + (n.begin + i) * n.rows + row] = decoded;
        errors[n.errors_at + i * n.rows + row] = x - decoded;
      }
    }
    if (t < BLOCK) {
      factors[turn * BLOCK + t] = ahead;
      ahead = factorOf(i + 1, t);
    }
    workgroupBarrier();
    storageBarrier(); // grids that one thread has taken and another needs
    let paid = error[turn * 32 + own];
    // the first column of this thread behind i
    for (var j = i + 1 + (lane + 7 - i % 8) % 8; j < n.count; j += 8) {
      tile[j * 32 + own] -= paid * factors[turn * BLOCK + j];
    }
  }
}

//# affineFeedback
// y[j, row] -= sum of errors[i, row] feedback[i, j] over i < count, for the columns j from `end` on: tiles of 128 columns by
// 128 rows, 8 x 8 of them a thread, which are two runs of 4 each way.
var<workgroup> left: array<vec4f, 256>; // [8][32], feedback
var<workgroup> right: array<vec4f, 256>; // [8][32], errors

fn feedback4(i: u32, j: u32) -> vec4f {
  let at = n.feedback_at + i * n.columns + j;
  var four = vec4f();
  if (i < n.count) {
    for (var k = 0u; k < 4; k++) {
      if (j + k < n.columns) {
        four[k] = feedback[at + k];
      }
    }
  }
  return four;
}

fn errors4(i: u32, row: u32) -> vec4f {
  let at = n.errors_at + i * n.rows + row;
  var four = vec4f();
  if (i < n.count) {
    for (var k = 0u; k < 4; k++) {
      if (row + k < n.rows) {
        four[k] = errors[at + k];
      }
    }
  }
  return four;
}

@compute @workgroup_size(THREADS)
fn affineFeedback(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  if (groupOf(w, c) >= n.groups) {
    return;
  }
  let across = (n.rows + 127) / 128;
  let column0 = n.end + groupOf(w, c) / across * 128;
  let row0 = groupOf(w, c) % across * 128;
  let mine = t / 16; // which columns of the tile
  let its = t % 16; // which rows
  var sums: array<vec4f, 16>; // [8 columns][2 runs of rows]
  for (var k0 = 0u; k0 < n.count; k0 += 8) {
    left[t] = feedback4(k0 + t / 32, column0 + t % 32 * 4);
    right[t] = errors4(k0 + t / 32, row0 + t % 32 * 4);
    workgroupBarrier();
    for (var k = 0u; k < 8; k++) {
      let a0 = left[k * 32 + mine];
      let a1 = left[k * 32 + 16 + mine];
      let b0 = right[k * 32 + its];
      let b1 = right[k * 32 + 16 + its];
      for (var j = 0u; j < 4; j++) {
        sums[2 * j] += a0[j] * b0;
        sums[2 * j + 1] += a0[j] * b1;
        sums[2 * j + 8] += a1[j] * b0;
        sums[2 * j + 9] += a1[j] * b1;
      }
    }
    workgroupBarrier();
  }
  for (var j = 0u; j < 8; j++) {
    let column = column0 + j / 4 * 64 + mine * 4 + j % 4;
    for (var r = 0u; r < 8; r++) {
      let row = row0 + r / 4 * 64 + its * 4 + r % 4;
      if (column < n.columns && row < n.rows) {
        y[n.y_at + column * n.rows + row] -= sums[2 * j + r / 4][r % 4];
      }
    }
  }
}
