// Sums in double-float, in an order that the shape alone decides.

//# dotParts
// sums[2g], [2g + 1]: both parts of the sum over the elements of group g
@compute @workgroup_size(THREADS)
fn dotParts(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  var products = NO_DOT;
  let begin = group * n.part;
  for (var i = begin + t; i < min(begin + n.part, n.size); i += THREADS) {
    products = dotAdd(products, a[n.a_at + i], b[n.b_at + i]);
  }
  let sum = laneSumDot(products, t, THREADS);
  if (t == 0) {
    sums[n.sums_at + 2 * group] = sum.x;
    sums[n.sums_at + 2 * group + 1] = sum.y;
  }
}

//# finiteParts
var<workgroup> spoiled: atomic<u32>;

// flags[g]: 1 where group g has an element whose exponent is all ones
@compute @workgroup_size(THREADS)
fn finiteParts(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let begin = group * n.part;
  for (var i = begin + t; i < min(begin + n.part, n.size); i += THREADS) {
    if ((a[n.a_at + i] & 0x7f800000u) == 0x7f800000u) {
      atomicStore(&spoiled, 1u);
    }
  }
  workgroupBarrier();
  if (t == 0) {
    flags[n.flags_at + group] = i32(atomicLoad(&spoiled));
  }
}

//# argmax
// one row a group; numbers in the order of their keys, NaN last of all
var<workgroup> keys: array<u32, THREADS>;
var<workgroup> places: array<u32, THREADS>;

fn keyOf(bits: u32) -> u32 {
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    return 0u;
  }
  if ((bits & 0x7fffffffu) == 0u) {
    return 0x80000000u; // both zeros
  }
  return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}

@compute @workgroup_size(THREADS)
fn argmax(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let row = n.a_at + group * n.width;
  var key = 0u;
  var place = n.width;
  for (var i = t; i < n.width; i += THREADS) {
    let other = keyOf(a[row + i]);
    if (other > key || place == n.width) {
      key = other;
      place = i;
    }
  }
  keys[t] = key;
  places[t] = place;
  for (var step = THREADS / 2; step > 0; step /= 2) {
    workgroupBarrier();
    if (t < step) {
      let other = keys[t + step];
      if (other > keys[t] || (other == keys[t] && places[t + step] < places[t])) {
        keys[t] = other;
        places[t] = places[t + step];
      }
    }
  }
  if (t == 0) {
    y[n.y_at + group] = i32(select(places[0], 0u, keyOf(a[row]) == 0u)); // nothing is above a first NaN
  }
}

//# rowDots
// TEAM threads a row
@compute @workgroup_size(THREADS)
fn rowDots(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let row = group * (THREADS / TEAM) + t / TEAM;
  let lane = t % TEAM;
  var products = NO_DOT;
  if (row < n.rows) {
    let begin = row * n.width;
    for (var i = begin + lane; i < begin + n.width; i += TEAM) {
      products = dotAdd(products, a[n.a_at + i], b[n.b_at + i]);
    }
  }
  let sum = laneSumDot(products, t, TEAM);
  if (lane == 0 && row < n.rows) {
    y[n.y_at + row] = sum.x;
  }
}

//# sumColumns
// A group has 32 columns and `part` rows, 8 at a time. FROM_PARTS, TO_PARTS: a, y are [2, rows or blocks, width], both parts of
// double-floats
@compute @workgroup_size(THREADS)
fn sumColumns(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let chunks = (n.width + 31) / 32;
  let column = group % chunks * 32 + t % 32;
  let block = group / chunks;
  var sum = Double(0.0, 0.0);
  if (column < n.width) {
    for (var row = block * n.part + t / 32; row < min((block + 1) * n.part, n.rows); row += 8) {
      let at = n.a_at + row * n.width + column;
      if (FROM_PARTS == 1) {
        sum = doubleAdd(sum, Double(a[at], a[at + n.rows * n.width]));
      } else {
        sum = doubleAddFloat(sum, a[at]);
      }
    }
  }
  groupDoubles[t] = sum;
  for (var step = THREADS / 2; step >= 32; step /= 2) {
    workgroupBarrier();
    if (t < step) {
      groupDoubles[t] = doubleAdd(groupDoubles[t], groupDoubles[t + step]);
    }
  }
  if (t < 32 && column < n.width) {
    let at = n.y_at + block * n.width + column;
    y[at] = groupDoubles[t].x;
    if (TO_PARTS == 1) {
      y[at + n.groups / chunks * n.width] = groupDoubles[t].y;
    }
  }
}

//# absMaxColumns
// as sumColumns; magnitudes by their bits, so that a NaN is above all
var<workgroup> largest: array<u32, THREADS>;

@compute @workgroup_size(THREADS)
fn absMaxColumns(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let chunks = (n.width + 31) / 32;
  let column = group % chunks * 32 + t % 32;
  let block = group / chunks;
  var top = 0u;
  if (column < n.width) {
    for (var row = block * n.part + t / 32; row < min((block + 1) * n.part, n.rows); row += 8) {
      top = max(top, a[n.a_at + row * n.width + column] & 0x7fffffffu);
    }
  }
  largest[t] = top;
  for (var step = THREADS / 2; step >= 32; step /= 2) {
    workgroupBarrier();
    if (t < step) {
      largest[t] = max(largest[t], largest[t + step]);
    }
  }
  if (t < 32 && column < n.width) {
    y[n.y_at + block * n.width + column] = largest[t];
  }
}
