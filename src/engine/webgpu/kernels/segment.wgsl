// Sums by segments in a fixed order: vectors are sorted stably by segment (chunks of them counted, then placed), and the sorted
// runs are summed in order, a long run in pieces.

var<workgroup> window: array<u32, THREADS>;

/** Of the 256 segments in `window`: how many before this thread's are equal to it, and how many in all. */
fn countEquals(own: u32, t: u32) -> vec2u {
  var counts = vec2u(0u, 0u);
  for (var j = 0u; j < THREADS; j++) {
    let equal = select(0u, 1u, window[j] == own);
    counts += vec2u(select(0u, equal, j < t), equal);
  }
  return counts;
}

//# segmentCount
// counts [chunks][segments] (zeros before), a chunk a group.
@compute @workgroup_size(THREADS)
fn segmentCount(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let mine = n.counts_at + group * n.segments;
  let end = min(n.size, (group + 1) * n.chunk);
  for (var base = group * n.chunk; base < end; base += THREADS) {
    let i = base + t;
    var own = 0xffffffffu;
    if (i < end) {
      let index = indices[n.indices_at + i];
      if (index >= 0 && index < i32(n.segments)) {
        own = u32(index);
      } else {
        fault[n.fault_at] = n.check;
        fault[n.fault_at + 1] = index;
        fault[n.fault_at + 2] = i32(i);
      }
    }
    window[t] = own;
    workgroupBarrier();
    let counted = countEquals(own, t);
    if (own != 0xffffffffu && counted.x == 0) {
      counts[mine + own] += counted.y;
    }
    storageBarrier();
    workgroupBarrier();
  }
}

//# segmentOffsets
// counts become, for each chunk, the number of a segment's vectors in the chunks before; totals [segments] all of them.
@compute @workgroup_size(THREADS)
fn segmentOffsets(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let segment = groupOf(w, c) * THREADS + t;
  if (segment >= n.segments) {
    return;
  }
  var sum = 0u;
  for (var chunk = 0u; chunk < n.chunks; chunk++) {
    let at = n.counts_at + chunk * n.segments + segment;
    let count = counts[at];
    counts[at] = sum;
    sum += count;
  }
  totals[n.totals_at + segment] = sum;
}

//# segmentFirsts
// firsts [segments + 1]: sums of the totals before. One group; a thread has a run of segments.
@compute @workgroup_size(THREADS)
fn segmentFirsts(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  if (groupOf(w, c) >= n.groups) {
    return;
  }
  let span = (n.segments + THREADS - 1) / THREADS;
  let begin = min(n.segments, t * span);
  let end = min(n.segments, begin + span);
  var sum = 0u;
  for (var s = begin; s < end; s++) {
    sum += totals[n.totals_at + s];
  }
  window[t] = sum;
  workgroupBarrier();
  var at = 0u;
  for (var j = 0u; j < t; j++) {
    at += window[j];
  }
  for (var s = begin; s < end; s++) {
    firsts[n.firsts_at + s] = at;
    at += totals[n.totals_at + s];
  }
  if (t == THREADS - 1) {
    firsts[n.firsts_at + n.segments] = at;
  }
}

//# segmentPlace
// order [size]: the vectors' positions, sorted stably by segment. counts as `segmentOffsets` left them; they are used up.
@compute @workgroup_size(THREADS)
fn segmentPlace(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let mine = n.counts_at + group * n.segments;
  let end = min(n.size, (group + 1) * n.chunk);
  for (var base = group * n.chunk; base < end; base += THREADS) {
    let i = base + t;
    var own = 0xffffffffu;
    if (i < end) {
      let index = indices[n.indices_at + i];
      if (index >= 0 && index < i32(n.segments)) {
        own = u32(index);
      }
    }
    let valid = own != 0xffffffffu;
    window[t] = own;
    storageBarrier();
    workgroupBarrier();
    var placed = 0u;
    if (valid) {
      placed = counts[mine + own];
    }
    let counted = countEquals(own, t);
    if (valid) {
      order[n.order_at + firsts[n.firsts_at + own] + placed + counted.x] = i;
    }
    workgroupBarrier(); // every thread has read its count
    if (valid && counted.x == 0) {
      counts[mine + own] = placed + counted.y;
    }
  }
}

//# segmentAdd
// Sums of weight times element, and of weights (element v), over a piece of a segment, of double-floats.
// partial [segments][pieces][v + 1][2].
@compute @workgroup_size(THREADS)
fn segmentAdd(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let id = groupOf(w, c) * THREADS + t;
  if (id >= n.segments * n.pieces * (n.length + 1)) {
    return;
  }
  let k = id % (n.length + 1);
  let piece = id / (n.length + 1) % n.pieces;
  let segment = id / (n.length + 1) / n.pieces;
  let first = firsts[n.firsts_at + segment];
  let count = firsts[n.firsts_at + segment + 1] - first;
  let step = (count + n.pieces - 1) / n.pieces;
  let begin = min(count, piece * step);
  let end = min(count, begin + step);
  var dot = NO_DOT;
  for (var j = first + begin; j < first + end; j++) {
    let i = order[n.order_at + j];
    var factor = 1.0;
    if (k < n.length) {
      factor = vectors[n.vectors_at + i * n.length + k];
    }
    dot = dotAdd(dot, weights[n.weights_at + i], factor);
  }
  let sum = dotValue(dot);
  partial[n.partial_at + 2 * id] = sum.x;
  partial[n.partial_at + 2 * id + 1] = sum.y;
}

//# segmentReduce
@compute @workgroup_size(THREADS)
fn segmentReduce(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let id = groupOf(w, c) * THREADS + t;
  if (id >= n.segments * (n.length + 1)) {
    return;
  }
  let k = id % (n.length + 1);
  let segment = id / (n.length + 1);
  var dot = NO_DOT;
  for (var piece = 0u; piece < n.pieces; piece++) {
    let at = n.partial_at + 2 * ((segment * n.pieces + piece) * (n.length + 1) + k);
    dot = dotJoin(dot, dotOf(Double(partial[at], partial[at + 1])));
  }
  let sum = dotValue(dot);
  if (k < n.length) {
    sums[n.sums_at + segment * n.length + k] = sum.x;
  } else {
    totals[n.totals_at + segment] = sum.x;
  }
}

//# segmentScan
// A segment a group, which looks through all indices: each thread adds its vectors of the segment in order, then the threads' sums
// are added in a tree. For few segments.
@compute @workgroup_size(THREADS)
fn segmentScan(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let segment = groupOf(w, c);
  if (segment >= n.groups) {
    return;
  }
  var dots: array<Dot, LENGTH>;
  for (var k = 0u; k < LENGTH; k++) {
    dots[k] = NO_DOT;
  }
  var total = Double(0.0, 0.0);
  for (var i = t; i < n.size; i += THREADS) {
    let index = indices[n.indices_at + i];
    if (segment == 0u && (index < 0 || index >= i32(n.segments))) {
      fault[n.fault_at] = n.check;
      fault[n.fault_at + 1] = index;
      fault[n.fault_at + 2] = i32(i);
    }
    if (index != i32(segment)) {
      continue;
    }
    let weight = weights[n.weights_at + i];
    total = doubleAddFloat(total, weight);
    for (var k = 0u; k < LENGTH; k++) {
      dots[k] = dotAdd(dots[k], weight, vectors[n.vectors_at + i * LENGTH + k]);
    }
  }
  let all = groupSumDouble(total, t);
  if (t == 0u) {
    totals[n.totals_at + segment] = all.x + all.y;
  }
  for (var k = 0u; k < LENGTH; k++) {
    workgroupBarrier();
    let whole = laneSumDot(dots[k], t, THREADS);
    if (t == 0u) {
      sums[n.sums_at + segment * LENGTH + k] = whole.x;
    }
  }
}
