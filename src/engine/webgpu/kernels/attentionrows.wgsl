// Attention of few queries over a long cache: what bounds it is the reading of keys and values, so the ROWS query rows of a group
// (tokens of the heads that share a key head) read them together, and the positions are cut into parts for more groups.

//# attendRows: group = ((batch, key head), block of rows, part of the positions); stats [parts, B, T, H, 2]: maximum, sum
const KEYS = 64u; // of a step
const DEPTH = 32u; // columns of keys in memory of the group
const STRIDE = KEYS + 1u;
const SHARES = THREADS / KEYS; // threads that share a score
const SPLITS = THREADS / SIZE; // threads that share a column of the result
const UNSEEN = -1e30;

var<workgroup> queries: array<f32, SIZE * ROWS>; // [column][row]
var<workgroup> pool: array<f32, THREADS * 8u + DEPTH>; // keys [column][key], then shares of scores, in the end of results
var<workgroup> weights: array<f32, KEYS * ROWS>; // [key][row]
var<workgroup> found: array<f32, 8u * ROWS>; // of an eighth of the keys, [row][eighth]
var<workgroup> tops: array<f32, ROWS>;
var<workgroup> sums: array<f32, ROWS>;
var<workgroup> factors: array<f32, ROWS>;

@compute @workgroup_size(THREADS)
fn attendRows(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) { return; }
  let sharing = n.heads / n.keyHeads;
  let rows = n.tokens * sharing; // of a key head
  let blocks = (rows + ROWS - 1u) / ROWS;
  let part = group % n.parts;
  let firstRow = group / n.parts % blocks * ROWS;
  let batch = group / n.parts / blocks / n.keyHeads;
  let keyHead = group / n.parts / blocks % n.keyHeads;
  let keyStride = n.keyHeads * n.size;
  let keyAt = batch * n.capacity * keyStride + keyHead * n.size;
  let begin = n.first + part * n.range;
  let end = min(n.keyLength, begin + n.range);

  for (var e = t; e < SIZE * ROWS; e += THREADS) {
    let row = firstRow + e / SIZE;
    let column = e % SIZE;
    let at = ((batch * n.tokens + row / sharing) * n.heads + keyHead * sharing + row % sharing) * n.size + column;
    var value = 0.0;
    if (row < rows && column < n.size) { value = q[n.q_at + at]; }
    queries[column * ROWS + e / SIZE] = value;
  }
  if (t < ROWS) {
    tops[t] = UNSEEN;
    sums[t] = 0.0;
  }

  var result: array<f32, ROWS>;
  for (var start = begin; start < end; start += KEYS) {
    var scores = array<f32, ROWS>();
    for (var place = 0u; place < n.size; place += DEPTH) {
      workgroupBarrier();
      for (var e = t; e < DEPTH * KEYS; e += THREADS) {
        let column = place + e % DEPTH;
        let key = start + e / DEPTH;
        var value = 0.0;
        if (column < n.size && key < end) { value = k[n.k_at + keyAt + key * keyStride + column]; }
        pool[e % DEPTH * STRIDE + e / DEPTH] = value;
      }
      workgroupBarrier();
      for (var i = t / KEYS; i < DEPTH; i += SHARES) {
        let own = pool[i * STRIDE + t % KEYS];
        for (var r = 0u; r < ROWS; r++) { scores[r] += queries[(place + i) * ROWS + r] * own; }
      }
    }
    workgroupBarrier();
    for (var r = 0u; r < ROWS; r++) { pool[t * ROWS + r] = scores[r]; }
    workgroupBarrier();

    // 8 threads do the softmax of a row
    let own = t / 8u;
    if (own < ROWS) {
      let row = firstRow + own;
      let position = n.keyLength - n.tokens + row / sharing;
      var slope = 0.0;
      if (n.sloped != 0u && row < rows) { slope = slopes[n.slopes_at + keyHead * sharing + row % sharing]; }
      var top = tops[own];
      for (var i = t % 8u; i < KEYS; i += 8u) {
        var product = 0.0;
        for (var share = 0u; share < SHARES; share++) { product += pool[(share * KEYS + i) * ROWS + own]; }
        let key = start + i;
        let seen = key < end && key <= position && key + n.window > position;
        let score = select(UNSEEN, product * n.scale + slope * f32(i32(key) - i32(position)), seen);
        weights[i * ROWS + own] = score;
        top = max(top, score);
      }
      found[t] = top;
    }
    workgroupBarrier();
    var next = UNSEEN;
    var sum = 0.0;
    if (own < ROWS) {
      for (var i = 0u; i < 8u; i++) { next = max(next, found[own * 8u + i]); }
      for (var i = t % 8u; i < KEYS; i += 8u) {
        let score = weights[i * ROWS + own];
        let weight = select(0.0, exp(score - next), score > 0.5 * UNSEEN);
        weights[i * ROWS + own] = weight;
        sum += weight;
      }
    }
    workgroupBarrier();
    if (own < ROWS) { found[t] = sum; }
    workgroupBarrier();
    if (own < ROWS && t % 8u == 0u) {
      let factor = exp(tops[own] - next);
      var total = sums[own] * factor;
      for (var i = 0u; i < 8u; i++) { total += found[own * 8u + i]; }
      sums[own] = total;
      tops[own] = next;
      factors[own] = factor;
    }
    workgroupBarrier();

    let column = t % SIZE;
    for (var r = 0u; r < ROWS; r++) { result[r] *= factors[r]; }
    if (column < n.size) {
      for (var i = t / SIZE; i < min(end - start, KEYS); i += SPLITS) {
        let value = v[n.v_at + keyAt + (start + i) * keyStride + column];
        for (var r = 0u; r < ROWS; r++) { result[r] += weights[i * ROWS + r] * value; }
      }
    }
  }

  workgroupBarrier();
  for (var r = 0u; r < ROWS; r++) { pool[r * THREADS + t] = result[r]; }
  workgroupBarrier();
  let all = n.groups / (n.parts * blocks * n.keyHeads) * n.tokens * n.heads;
  for (var e = t; e < SIZE * ROWS; e += THREADS) {
    let r = e / SIZE;
    let row = firstRow + r;
    let column = e % SIZE;
    if (row >= rows || column >= n.size) { continue; }
    var sum = 0.0;
    for (var i = 0u; i < SPLITS; i++) { sum += pool[r * THREADS + i * SIZE + column]; }
    let at = part * all + (batch * n.tokens + row / sharing) * n.heads + keyHead * sharing + row % sharing;
    y[n.y_at + at * n.size + column] = select(sum, sum / sums[r], n.parts == 1u);
    if (column == 0u) {
      stats[n.stats_at + 2u * at] = tops[r];
      stats[n.stats_at + 2u * at + 1u] = sums[r];
    }
  }
}

//# joinParts: [parts, rows, d] -> [rows, d]; 256 elements a group
@compute @workgroup_size(THREADS)
fn joinParts(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let i = groupOf(w, c) * THREADS + t;
  if (i >= n.rows * n.size) { return; }
  let row = i / n.size;
  var top = stats[n.stats_at + row * 2u];
  for (var part = 1u; part < n.parts; part++) { top = max(top, stats[n.stats_at + (part * n.rows + row) * 2u]); }
  var total = 0.0;
  var sum = 0.0;
  for (var part = 0u; part < n.parts; part++) {
    let at = part * n.rows + row;
    let factor = exp(stats[n.stats_at + at * 2u] - top); // sum and total of a part without keys are 0
    total += factor * stats[n.stats_at + at * 2u + 1u];
    sum += factor * sums[n.sums_at + part * n.rows * n.size + i];
  }
  y[n.y_at + i] = sum / total;
}

//# sumHeads: [rows, H, d] -> [rows, K, d] of two tensors, always in the same order; 256 elements a group
@compute @workgroup_size(THREADS)
fn sumHeads(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let i = groupOf(w, c) * THREADS + t;
  if (i >= n.count) { return; }
  let at = i / n.size * n.sharing * n.size + i % n.size;
  var sum = 0.0;
  var other = 0.0;
  for (var head = 0u; head < n.sharing; head++) {
    sum += a[n.a_at + at + head * n.size];
    other += b[n.b_at + at + head * n.size];
  }
  y[n.y_at + i] = sum;
  z[n.z_at + i] = other;
}
