// Triangular matrices in double floats: hi [size, size] and lo [size, size], of which hi is the result, or the rows of them from
// n.begin on. Blocks of 32. `panel`: the 32 columns of a step of cholesky, [2, size, 32], high parts and low ones.

var<workgroup> block: array<Double, 1024>;
var<workgroup> inverse: array<Double, 1024>;

fn element(at: u32) -> Double {
  return Double(hi[n.hi_at + at], lo[n.lo_at + at]);
}

fn setElement(at: u32, value: Double) {
  hi[n.hi_at + at] = value.x;
  lo[n.lo_at + at] = value.y;
}

/** sum - a b. */
fn subtractProduct(sum: Double, a: Double, b: Double) -> Double {
  return doubleAdd(sum, -doubleMultiply(a, b));
}

/** `inverse` of the lower triangle of `block`, which has the reciprocals of its diagonal there. Barriers inside. */
fn invertBlock(t: u32) {
  let column = t % 32;
  for (var i = t / 32; i < 32; i += 8) {
    inverse[i * 32 + column] = Double(select(0.0, 1.0, i == column), 0.0);
  }
  for (var p = 0u; p < 32; p++) {
    workgroupBarrier();
    if (column <= p) {
      let row = doubleMultiply(inverse[p * 32 + column], block[p * 33]);
      for (var i = t / 32; i < 32; i += 8) {
        if (i > p) {
          inverse[i * 32 + column] = subtractProduct(inverse[i * 32 + column], block[i * 32 + p], row);
        }
      }
    }
  }
  workgroupBarrier();
  for (var i = t / 32; i < 32; i += 8) {
    inverse[i * 32 + column] = doubleMultiply(inverse[i * 32 + column], block[i * 33]);
  }
}

//# choleskyDiagonal
// Factors the block at n.first, writes it and the inverse of the factor: first [1024] the high parts, then the low ones.
@compute @workgroup_size(THREADS)
fn choleskyDiagonal(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  if (groupOf(w, c) >= n.groups) {
    return;
  }
  let side = min(32, n.size - n.first);
  let start = (n.first - n.begin) * n.size + n.first;
  let column = t % 32;
  for (var i = t / 32; i < 32; i += 8) {
    var value = Double(select(0.0, 1.0, i == column), 0.0); // beyond the matrix
    if (i < side && column <= i) {
      value = element(start + i * n.size + column);
    }
    block[i * 32 + column] = value;
  }
  // L D L^T first: the diagonal keeps the pivots, a column its numbers before they are divided by the root of its pivot
  for (var p = 0u; p < 32; p++) {
    workgroupBarrier();
    if (column > p) {
      let factor = doubleMultiply(block[column * 32 + p], doubleDivide(Double(1.0, 0.0), block[p * 33]));
      for (var i = t / 32; i < 32; i += 8) {
        if (i >= column) {
          block[i * 32 + column] = subtractProduct(block[i * 32 + column], block[i * 32 + p], factor);
        }
      }
    }
  }
  workgroupBarrier();
  if (t == 0 && outcome[n.outcome_at] == 0) {
    for (var p = 0u; p < side; p++) {
      let bits = bitcast<u32>(block[p * 33].x);
      if (bits == 0 || bits >= 0x7f800000u) { // not a positive number, by its bits
        outcome[n.outcome_at] = 1;
        outcome[n.outcome_at + 1] = i32(n.first + p);
        outcome[n.outcome_at + 2] = bitcast<i32>(bits);
        break;
      }
    }
  }
  workgroupBarrier();
  if (t < 32) {
    let root = doubleSqrt(block[t * 33]);
    if (t < side) {
      setElement(start + t * n.size + t, root);
    }
    block[t * 33] = doubleDivide(Double(1.0, 0.0), root);
  }
  workgroupBarrier();
  for (var i = t / 32; i < 32; i += 8) {
    if (i > column) {
      let value = doubleMultiply(block[i * 32 + column], block[column * 33]);
      block[i * 32 + column] = value;
      if (i < side) {
        setElement(start + i * n.size + column, value);
      }
    }
  }
  invertBlock(t);
  for (var i = t / 32; i < 32; i += 8) {
    let at = n.inverted_at + i * 32 + column;
    inverted[at] = inverse[i * 32 + column].x;
    inverted[at + 1024] = inverse[i * 32 + column].y;
  }
}

//# choleskySolve
// 32 rows from n.top on a group, below the block at n.first: A -> A L^-T, in place and in `panel`.
@compute @workgroup_size(THREADS)
fn choleskySolve(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let row = n.top + 32 * group;
  let column = t % 32;
  for (var i = t / 32; i < 32; i += 8) {
    var value = Double();
    if (row + i < n.end) {
      value = element((row + i - n.begin) * n.size + n.first + column);
    }
    block[i * 32 + column] = value;
    let at = n.inverted_at + i * 32 + column;
    inverse[column * 32 + i] = Double(inverted[at], inverted[at + 1024]); // transposed
  }
  workgroupBarrier();
  for (var i = t / 32; i < 32 && row + i < n.end; i += 8) {
    var sum = Double();
    for (var p = 0u; p <= column; p++) {
      sum = doubleAdd(sum, doubleMultiply(block[i * 32 + p], inverse[p * 32 + column]));
    }
    setElement((row + i - n.begin) * n.size + n.first + column, sum);
    let at = n.panel_at + (row + i) * 32 + column;
    panel[at] = sum.x;
    panel[at + n.size * 32] = sum.y;
  }
}

//# invertDiagonal
// The inverses of the blocks of 32 on the diagonal of source.
@compute @workgroup_size(THREADS)
fn invertDiagonal(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let start = 32 * group * (n.size + 1);
  let side = min(32, n.size - 32 * group);
  let column = t % 32;
  for (var i = t / 32; i < 32; i += 8) {
    var value = Double(select(0.0, 1.0, i == column), 0.0); // beyond the matrix
    if (i < side && column <= i) {
      value = Double(source[n.source_at + start + i * n.size + column], 0.0);
    }
    if (i == column) {
      value = doubleDivide(Double(1.0, 0.0), value);
    }
    block[i * 32 + column] = value;
  }
  invertBlock(t);
  for (var i = t / 32; i < side; i += 8) {
    if (column <= i) {
      setElement(start + i * n.size + column, inverse[i * 32 + column]);
    }
  }
}

//# clearUpper
// Zeros above the diagonal of hi, n.rows of it.
@compute @workgroup_size(THREADS)
fn clearUpper(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.rows * n.size); i += THREADS) {
    if (i % n.size > i / n.size + n.begin) {
      hi[n.hi_at + i] = 0.0;
    }
  }
}

//# checkDiagonal
// One group: refuses the first 0 on the diagonal of source, whose elements lie n.step apart.
@compute @workgroup_size(THREADS)
fn checkDiagonal(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  if (groupOf(w, c) >= n.groups) {
    return;
  }
  var first = n.size;
  for (var i = t; i < n.size; i += THREADS) {
    if ((bitcast<u32>(source[n.source_at + i * n.step]) & 0x7fffffffu) == 0) {
      first = min(first, i);
    }
  }
  let least = u32(groupMin(f32(first), t));
  if (t == 0 && least < n.size) {
    fault[n.fault_at] = n.check;
    fault[n.fault_at + 1] = 0;
    fault[n.fault_at + 2] = i32(least);
  }
}
