// Causal attention and its gradients in tiles, with a running maximum and sum (FlashAttention, arXiv 2205.14135, 2307.08691).
//
// A group has TILE rows (queries, or keys where the gradients of k and v are made) and goes in steps of STEP columns (the others)
// through what they see. 16 threads share ROWS rows: each has 2 columns of the products of rows and columns, and SIZE / 16 columns
// of the group's result. `fetch` is each kernel's own: tensors by their numbers. 16 KiB of memory of the group in all.

const TILE = 64u;
const STEP = 32u;
const DEPTH = 16u; // of a product's part in memory of the group
const STRIDE = TILE + 4u; // of its columns, and of the weights
const STEP_STRIDE = STEP + 4u;
const ROWS = TILE * 16u / THREADS;
const COLUMNS = SIZE / 16u;
const DEEP = min(1024u / SIZE, STEP); // rows of a mix's part
const UNSEEN = -1e30;
const Q = 0u; // for `fetch`
const K = 1u;
const V = 2u;
const GRAD = 3u;

alias Products = array<f32, 2u * ROWS>; // [row][column]
alias Result = array<f32, ROWS * COLUMNS>;

var<workgroup> parts: array<f32, DEPTH * (STRIDE + STEP_STRIDE)>;
var<workgroup> weights: array<f32, STEP * STRIDE>; // [column][row]
var<workgroup> tops: array<f32, TILE>;
var<workgroup> sums: array<f32, TILE>;
var<workgroup> factors: array<f32, TILE>;

/** Rows of one head: place of the first, from one to the next, and how many there are. */
struct Rows { first: u32, stride: u32, count: u32 }

fn fetchOf(which: u32, at: u32) -> f32 {
  if (which == Q) { return q[n.q_at + at]; }
  if (which == K) { return k[n.k_at + at]; }
  return v[n.v_at + at];
}

/** DEPTH columns of TILE or STEP rows, transposed; zeros outside. */
fn loadColumns(to: u32, wide: u32, which: u32, rows: Rows, begin: u32, t: u32) {
  for (var e = t; e < DEPTH * wide; e += THREADS) {
    let column = e % 8u + e / (8u * wide) * 8u;
    let row = e / 8u % wide;
    var value = 0.0;
    if (row < rows.count && begin + column < n.size) { value = fetch(which, rows.first + row * rows.stride + begin + column); }
    parts[to + column * (wide + 4u) + row] = value;
  }
}

/** products[r][c] += the dot product of rows. Waits first for all that was done with `parts`. */
fn addProducts(products: ptr<function, Products>, which: u32, rows: Rows, others: u32, columns: Rows, t: u32) {
  for (var begin = 0u; begin < n.size; begin += DEPTH) {
    workgroupBarrier();
    loadColumns(0u, TILE, which, rows, begin, t);
    loadColumns(DEPTH * STRIDE, STEP, others, columns, begin, t);
    workgroupBarrier();
    for (var i = 0u; i < min(DEPTH, n.size - begin); i++) {
      let at = i * STRIDE + t / 16u * ROWS;
      let a = parts[DEPTH * STRIDE + i * STEP_STRIDE + t % 16u * 2u];
      let b = parts[DEPTH * STRIDE + i * STEP_STRIDE + t % 16u * 2u + 1u];
      for (var r = 0u; r < ROWS; r++) {
        let own = parts[at + r];
        (*products)[2u * r] += own * a;
        (*products)[2u * r + 1u] += own * b;
      }
    }
  }
}

/** result[r] += the sum over a step of weights[j][r] times row j. Waits first for the weights. */
fn addMix(result: ptr<function, Result>, which: u32, rows: Rows, t: u32) {
  for (var begin = 0u; begin < min(STEP, rows.count); begin += DEEP) {
    workgroupBarrier();
    for (var e = t; e < DEEP * SIZE; e += THREADS) {
      let row = begin + e / SIZE;
      let column = e % SIZE;
      parts[e] = 0.0;
      if (row < rows.count && column < n.size) { parts[e] = fetch(which, rows.first + row * rows.stride + column); }
    }
    workgroupBarrier();
    for (var j = 0u; j < min(DEEP, rows.count - begin); j++) {
      var line: array<f32, COLUMNS>;
      for (var c = 0u; c < COLUMNS; c++) { line[c] = parts[j * SIZE + c * 16u + t % 16u]; }
      for (var r = 0u; r < ROWS; r++) {
        let own = weights[(begin + j) * STRIDE + t / 16u * ROWS + r];
        for (var c = 0u; c < COLUMNS; c++) { (*result)[r * COLUMNS + c] += own * line[c]; }
      }
    }
  }
}

/** Score of a key for the query at a position; UNSEEN behind it and outside its window. */
fn scoreOf(product: f32, position: u32, key: u32, slope: f32) -> f32 {
  let seen = key <= position && key + n.window > position;
  return select(UNSEEN, product * n.scale + slope * f32(i32(key) - i32(position)), seen);
}

/** Of a group: its first row, whose it is, from one row to the next, and the place of the key head in a row of them. */
struct Unit { first: u32, batch: u32, head: u32, stride: u32, keyStride: u32, keyHead: u32, slope: f32 }

/** The longest come first: queries from the last on, keys from the first. */
fn unitOf(group: u32, backwards: bool) -> Unit {
  let tiles = (n.tokens + TILE - 1u) / TILE;
  let all = n.groups / tiles; // heads of all batches
  let tile = select(group / all, tiles - 1u - group / all, backwards);
  let head = group % all % n.heads;
  let keyHead = head / (n.heads / n.keyHeads) * n.size;
  let slope = select(0.0, slopes[n.slopes_at + head], n.sloped != 0u);
  return Unit(tile * TILE, group % all / n.heads, head, n.heads * n.size, n.keyHeads * n.size, keyHead, slope);
}

fn startSoftmax(t: u32) {
  if (t < TILE) {
    tops[t] = UNSEEN;
    sums[t] = 0.0;
  }
}

/** A step of the running softmax: products become weights by the new maximum, `factors` is for what was summed by the old one. */
fn softmaxStep(products: ptr<function, Products>, position: u32, firstKey: u32, count: u32, slope: f32, t: u32) {
  workgroupBarrier();
  let row = t / 16u * ROWS;
  for (var e = 0u; e < 2u * ROWS; e++) {
    let column = t % 16u * 2u + e % 2u;
    weights[column * STRIDE + row + e / 2u] = scoreOf((*products)[e], position + row + e / 2u, firstKey + column, slope);
  }
  workgroupBarrier();
  if (t < TILE) {
    var next = tops[t];
    for (var j = 0u; j < count; j++) { next = max(next, weights[j * STRIDE + t]); }
    var sum = 0.0;
    for (var j = 0u; j < count; j++) {
      let score = weights[j * STRIDE + t];
      let weight = select(0.0, exp(score - next), score > 0.5 * UNSEEN);
      weights[j * STRIDE + t] = weight;
      sum += weight;
    }
    factors[t] = exp(tops[t] - next);
    sums[t] = sums[t] * factors[t] + sum;
    tops[t] = next;
  }
  workgroupBarrier();
}

/** First step of keys that any of the queries from a position on sees. */
fn firstStep(position: u32) -> u32 {
  return select((position + 1u - n.window) / STEP * STEP, 0u, position < n.window);
}

//# attendTiles: 64 queries of a head a group; those that see the most keys come first
fn fetch(which: u32, at: u32) -> f32 { return fetchOf(which, at); }

@compute @workgroup_size(THREADS)
fn attendTiles(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  if (groupOf(w, c) >= n.groups) { return; }
  let unit = unitOf(groupOf(w, c), true);
  let at = (unit.batch * n.tokens + unit.first) * unit.stride + unit.head * n.size;
  let keyAt = unit.batch * n.capacity * unit.keyStride + unit.keyHead;
  let queries = Rows(at, unit.stride, n.tokens - unit.first);
  let row = t / 16u * ROWS;
  let position = n.keyLength - n.tokens + unit.first;

  var result: Result;
  startSoftmax(t);
  let end = min(n.keyLength, position + TILE);
  for (var key = firstStep(position); key < end; key += STEP) {
    var products = Products();
    let keys = Rows(keyAt + key * unit.keyStride, unit.keyStride, n.keyLength - key);
    addProducts(&products, Q, queries, K, keys, t);
    softmaxStep(&products, position, key, min(STEP, keys.count), unit.slope, t);
    for (var e = 0u; e < ROWS * COLUMNS; e++) { result[e] *= factors[row + e / COLUMNS]; }
    addMix(&result, V, keys, t);
  }
  for (var e = 0u; e < ROWS * COLUMNS; e++) {
    let own = row + e / COLUMNS;
    let column = e % COLUMNS * 16u + t % 16u;
    if (own < queries.count && column < n.size) { y[n.y_at + at + own * unit.stride + column] = result[e] / sums[own]; }
  }
}

//# attendGradQueries: of 64 queries of a head a group; stats [B, H, T, 3]: maximum, 1 / sum, grad times output
fn fetch(which: u32, at: u32) -> f32 {
  if (which == GRAD) { return grad[n.grad_at + at]; }
  return fetchOf(which, at);
}

@compute @workgroup_size(THREADS)
fn attendGradQueries(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  if (groupOf(w, c) >= n.groups) { return; }
  let unit = unitOf(groupOf(w, c), true);
  let at = (unit.batch * n.tokens + unit.first) * unit.stride + unit.head * n.size;
  let keyAt = unit.batch * n.tokens * unit.keyStride + unit.keyHead;
  let queries = Rows(at, unit.stride, n.tokens - unit.first);
  let row = t / 16u * ROWS;
  let begin = firstStep(unit.first);
  let end = min(n.tokens, unit.first + TILE);

  startSoftmax(t);
  for (var key = begin; key < end; key += STEP) {
    var products = Products();
    let keys = Rows(keyAt + key * unit.keyStride, unit.keyStride, n.tokens - key);
    addProducts(&products, Q, queries, K, keys, t);
    softmaxStep(&products, unit.first, key, min(STEP, keys.count), unit.slope, t);
  }
  workgroupBarrier();
  for (var r = 0u; r < ROWS; r++) {
    var mean = 0.0;
    let own = at + (row + r) * unit.stride;
    if (unit.first + row + r < n.tokens) {
      for (var i = t % 16u; i < n.size; i += 16u) { mean += grad[n.grad_at + own + i] * output[n.output_at + own + i]; }
    }
    parts[(row + r) * 16u + t % 16u] = mean;
  }
  workgroupBarrier();
  if (t < TILE) { // from here on `sums` is 1 / sum, and `factors` the mean of a row's changes
    var mean = 0.0;
    for (var i = 0u; i < 16u; i++) { mean += parts[t * 16u + i]; }
    sums[t] = 1.0 / sums[t];
    factors[t] = mean;
    if (unit.first + t < n.tokens) {
      let to = n.stats_at + ((unit.batch * n.heads + unit.head) * n.tokens + unit.first + t) * 3u;
      stats[to] = tops[t];
      stats[to + 1u] = sums[t];
      stats[to + 2u] = mean;
    }
  }

  var result: Result;
  for (var key = begin; key < end; key += STEP) {
    var products = Products();
    var changes = Products(); // gradients of the probabilities
    let keys = Rows(keyAt + key * unit.keyStride, unit.keyStride, n.tokens - key);
    addProducts(&products, Q, queries, K, keys, t);
    addProducts(&changes, GRAD, queries, V, keys, t);
    for (var e = 0u; e < 2u * ROWS; e++) {
      let column = t % 16u * 2u + e % 2u;
      let own = row + e / 2u;
      let score = scoreOf(products[e], unit.first + own, key + column, unit.slope);
      let weight = select(0.0, exp(score - tops[own]) * sums[own], score > 0.5 * UNSEEN);
      weights[column * STRIDE + own] = weight * (changes[e] - factors[own]) * n.scale;
    }
    addMix(&result, K, keys, t);
  }
  for (var e = 0u; e < ROWS * COLUMNS; e++) {
    let own = row + e / COLUMNS;
    let column = e % COLUMNS * 16u + t % 16u;
    if (own < queries.count && column < n.size) { y[n.y_at + at + own * unit.stride + column] = result[e]; }
  }
}

//# attendGradKeys: of 64 keys and values a group, for one of the heads that share them; [B, T, H, d]
fn fetch(which: u32, at: u32) -> f32 {
  if (which == GRAD) { return grad[n.grad_at + at]; }
  return fetchOf(which, at);
}

@compute @workgroup_size(THREADS)
fn attendGradKeys(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  if (groupOf(w, c) >= n.groups) { return; }
  let unit = unitOf(groupOf(w, c), false);
  let at = unit.batch * n.tokens * unit.stride + unit.head * n.size;
  let keyAt = (unit.batch * n.tokens + unit.first) * unit.keyStride + unit.keyHead;
  let keys = Rows(keyAt, unit.keyStride, n.tokens - unit.first);
  let row = t / 16u * ROWS;
  let statsAt = n.stats_at + (unit.batch * n.heads + unit.head) * n.tokens * 3u;

  var ofKeys: Result;
  var ofValues: Result;
  let end = min(n.tokens, unit.first + TILE - 1u + n.window);
  for (var first = unit.first; first < end; first += STEP) {
    var products = Products();
    var changes = Products();
    let queries = Rows(at + first * unit.stride, unit.stride, n.tokens - first);
    addProducts(&products, K, keys, Q, queries, t);
    for (var e = 0u; e < 2u * ROWS; e++) {
      let column = t % 16u * 2u + e % 2u;
      let query = min(first + column, n.tokens - 1u);
      let score = scoreOf(products[e], query, unit.first + row + e / 2u, unit.slope);
      let weight = exp(score - stats[statsAt + 3u * query]) * stats[statsAt + 3u * query + 1u];
      products[e] = select(0.0, weight, score > 0.5 * UNSEEN && column < queries.count);
      weights[column * STRIDE + row + e / 2u] = products[e];
    }
    addMix(&ofValues, GRAD, queries, t);
    addProducts(&changes, V, keys, GRAD, queries, t); // waits until all have read the weights
    for (var e = 0u; e < 2u * ROWS; e++) {
      let column = t % 16u * 2u + e % 2u;
      let mean = stats[statsAt + 3u * min(first + column, n.tokens - 1u) + 2u];
      weights[column * STRIDE + row + e / 2u] = products[e] * (changes[e] - mean) * n.scale;
    }
    addMix(&ofKeys, Q, queries, t);
  }
  for (var e = 0u; e < ROWS * COLUMNS; e++) {
    let own = row + e / COLUMNS;
    let column = e % COLUMNS * 16u + t % 16u;
    if (own >= keys.count || column >= n.size) { continue; }
    let to = at + (unit.first + own) * unit.stride + column;
    keyGrad[n.keyGrad_at + to] = ofKeys[e];
    valueGrad[n.valueGrad_at + to] = ofValues[e];
  }
}
