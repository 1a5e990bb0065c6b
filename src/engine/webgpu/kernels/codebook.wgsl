// Nearest codewords of many vectors.

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

//# nearestTiled
// HELD vectors a thread, 256 apart, against all codewords, which pass through workgroup memory TILE at a time; a run of RUN
// codewords has one score, and the best run is searched again exactly. Why that is enough: cuda/kernels/codebook.cu, whose
// bound holds for products that are fused with sums and for those that are not.
const RUN = 16u;
const TILE = select(128u, 256u, LENGTH <= 8);
const LOWEST = -0x1.fffffep+127;
const INFINITE = 0x7f800000u;

var<workgroup> tile: array<f32, TILE * LENGTH>;
var<workgroup> starts: array<f32, TILE>; // -|c|^2 / 2
var<workgroup> open: atomic<u32>;
var<workgroup> opened: u32;
var<workgroup> list: array<u32, HELD * THREADS>; // vectors that fail the test

/** Distance of the contract of vector i to a codeword. */
fn contractDistance(i: u32, codeword: u32) -> f32 {
  var sum = 0.0;
  for (var k = 0u; k < LENGTH; k++) {
    let difference = vectors[n.vectors_at + i * LENGTH + k] - codebook[n.codebook_at + codeword * LENGTH + k];
    sum += opaque(difference * difference);
  }
  return sum;
}

@compute @workgroup_size(THREADS)
fn nearestTiled(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let first = group * HELD * THREADS;
  var x: array<f32, HELD * LENGTH>;
  var best: array<f32, HELD>;
  var second: array<f32, HELD>;
  var place: array<u32, HELD>;
  for (var h = 0u; h < HELD; h++) {
    let i = first + h * THREADS + t;
    for (var k = 0u; k < LENGTH; k++) {
      x[h * LENGTH + k] = 0.0;
      if (i < n.count) {
        x[h * LENGTH + k] = vectors[n.vectors_at + i * LENGTH + k];
      }
    }
    best[h] = LOWEST;
    second[h] = LOWEST;
    place[h] = 0u;
  }

  for (var base = 0u; base < n.codewords; base += TILE) {
    workgroupBarrier();
    let own = base + t;
    if (t < TILE) {
      var norm = 0.0;
      for (var k = 0u; k < LENGTH; k++) {
        var value = 0.0;
        if (own < n.codewords) {
          value = codebook[n.codebook_at + own * LENGTH + k];
        }
        tile[t * LENGTH + k] = value;
        norm += value * value;
      }
      starts[t] = select(LOWEST, -0.5 * norm, own < n.codewords);
    }
    workgroupBarrier();
    let have = min(TILE, n.codewords - base);
    for (var run = 0u; run < have; run += RUN) {
      var most: array<f32, HELD>;
      for (var h = 0u; h < HELD; h++) {
        most[h] = LOWEST;
      }
      for (var j = run; j < run + RUN; j++) {
        var codeword: array<f32, LENGTH>;
        for (var k = 0u; k < LENGTH; k++) {
          codeword[k] = tile[j * LENGTH + k];
        }
        let start = starts[j];
        for (var h = 0u; h < HELD; h++) {
          var score = start;
          for (var k = 0u; k < LENGTH; k++) {
            score = fma(x[h * LENGTH + k], codeword[k], score);
          }
          most[h] = max(most[h], score);
        }
      }
      for (var h = 0u; h < HELD; h++) {
        second[h] = max(second[h], min(best[h], most[h]));
        if (most[h] > best[h]) {
          best[h] = most[h];
          place[h] = base + run;
        }
      }
    }
  }

  for (var h = 0u; h < HELD; h++) {
    let i = first + h * THREADS + t;
    if (i < n.count) {
      var least = INFINITE;
      var index = 0u;
      for (var codeword = place[h]; codeword < min(place[h] + RUN, n.codewords); codeword++) {
        let distance = bitcast<u32>(contractDistance(i, codeword));
        if (distance < least) {
          least = distance;
          index = codeword;
        }
      }
      indices[n.indices_at + i] = i32(index);
      distances[n.distances_at + i] = bitcast<f32>(least);
      var norm = 0.0;
      for (var k = 0u; k < LENGTH; k++) {
        norm += x[h * LENGTH + k] * x[h * LENGTH + k];
      }
      let size = norm + bitcast<f32>(least);
      let bound = f32(LENGTH + 1) * 0x1p-20 * size + 1e-30;
      let settled = least < INFINITE && !isNan(size) && size < 1e36 && second[h] < best[h] - bound;
      if (!settled) {
        list[atomicAdd(&open, 1u)] = i - first;
      }
    }
  }
  workgroupBarrier();
  if (t == 0) {
    opened = atomicLoad(&open);
  }
  let count = workgroupUniformLoad(&opened);

  // 32 threads search through all codewords
  for (var round = 0u; round < count; round += THREADS / 32) {
    let at = round + t / 32;
    var i = first;
    var least = INFINITE;
    var index = 0xffffffffu;
    if (at < count) {
      i = first + list[at];
      for (var codeword = t % 32; codeword < n.codewords; codeword += 32) {
        let distance = bitcast<u32>(contractDistance(i, codeword));
        if (distance < least) {
          least = distance;
          index = codeword;
        }
      }
    }
    let nearest = laneLeastWord(least, t, 32);
    index = laneLeastWord(select(0xffffffffu, index, least == nearest), t, 32);
    if (at < count && t % 32 == 0) {
      index = select(0u, index, index < n.codewords);
      indices[n.indices_at + i] = i32(index);
      distances[n.distances_at + i] = contractDistance(i, index);
    }
  }
}
