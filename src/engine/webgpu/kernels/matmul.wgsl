// y [m, n] = alpha op(a) op(b) (+ y), with op(a)[i, p] = a[i rowA + p depthA] and op(b)[p, j] = b[p depthB + j columnB].
// Tiles go through workgroup memory 16 deep, as [p][4 rows or columns]; the place of a quad is turned by its depth, so that
// threads that store neighbors in depth meet different banks.

struct Part {
  /** First row and column of the tile. */
  row: u32,
  column: u32,
  /** Depths [begin, end) of this split. */
  begin: u32,
  end: u32,
  /** Of the first elements of the operands. */
  a: u32,
  b: u32,
  y: u32,
}

/** What a group computes. Of a wide product, groups that run at the same time share rows of a and columns of b. */
fn partOf(group: u32, side: u32) -> Part {
  let down = (n.rows + side - 1) / side;
  let across = (n.columns + side - 1) / side;
  let tiles = select(down * across, down * (down + 1) / 2, LOWER == 1);
  let split = group / tiles;
  let tile = group % tiles;
  var place = vec2u();
  if (LOWER == 1) {
    place = lowerTile(tile);
  } else {
    let first = tile / (8 * across) * 8;
    let height = min(8, down - first);
    let within = tile % (8 * across);
    place = vec2u(first + within % height, within / height);
  }
  let item = split / n.splits; // of the stack
  let begin = split % n.splits * n.splitDepth;
  return Part(
    place.x * side,
    place.y * side,
    begin,
    min(begin + n.splitDepth, n.depth),
    n.a_at + n.fromA + item * n.stackA,
    n.b_at + n.fromB + item * n.stackB,
    n.y_at + n.fromY + split * n.stackY,
  );
}

/** op(a) at rows row .. row + 3 and depth p, 0 outside. */
fn loadA(part: Part, row: u32, p: u32, inside: bool) -> vec4f {
  let at = part.a + row * n.rowA + p * n.depthA;
  if (inside) {
    return vec4f(a[at], a[at + n.rowA], a[at + 2 * n.rowA], a[at + 3 * n.rowA]);
  }
  var quad = vec4f();
  if (p < part.end) {
    for (var i = 0u; i < 4; i++) {
      if (row + i < n.rows) {
        quad[i] = a[at + i * n.rowA];
      }
    }
  }
  return quad;
}

/** op(b) at columns column .. column + 3 and depth p, 0 outside. */
fn loadB(part: Part, column: u32, p: u32, inside: bool) -> vec4f {
  let at = part.b + column * n.columnB + p * n.depthB;
  if (inside) {
    return vec4f(b[at], b[at + n.columnB], b[at + 2 * n.columnB], b[at + 3 * n.columnB]);
  }
  var quad = vec4f();
  if (p < part.end) {
    for (var j = 0u; j < 4; j++) {
      if (column + j < n.columns) {
        quad[j] = b[at + j * n.columnB];
      }
    }
  }
  return quad;
}

fn storeY(part: Part, row: u32, column: u32, sum: vec4f) {
  if (row >= n.rows) {
    return;
  }
  let at = part.y + row * n.rowY + column;
  for (var j = 0u; j < 4; j++) {
    if (column + j < n.columns) {
      let value = n.alpha * sum[j];
      if (n.accumulate == 1) {
        y[at + j] += value;
      } else {
        y[at + j] = value;
      }
    }
  }
}

/** Which quad (.x) and depth (.y) the thread loads: neighbors in memory by neighbors. `quads` a depth. */
fn loaded(t: u32, quads: u32, alongDepth: bool) -> vec2u {
  if (alongDepth) {
    return vec2u(t / 16, t % 16);
  }
  return vec2u(t % quads, t / quads);
}

//# matmulLarge
// Tiles of 128 x 128; a thread has 8 x 8 of it: rows and columns 4 y .. and 64 + 4 y .., 4 x .. and 64 + 4 x ..
var<workgroup> tileA: array<vec4f, 512>;
var<workgroup> tileB: array<vec4f, 512>;

@compute @workgroup_size(THREADS)
fn matmulLarge(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let part = partOf(group, 128);
  let x = t % 16;
  let v = t / 16;
  // the second quad of a thread: 16 quads on, where depths are next to each other, else 8 depths on
  let placeA = loaded(t, 32, ALONG_A == 1);
  let placeB = loaded(t, 32, ALONG_B == 1);
  let nextA = select(vec2u(0, 8), vec2u(16, 0), ALONG_A == 1);
  let nextB = select(vec2u(0, 8), vec2u(16, 0), ALONG_B == 1);
  let wholeA = part.row + 128 <= n.rows;
  let wholeB = part.column + 128 <= n.columns;
  let rowA = part.row + 4 * placeA.x;
  let columnB = part.column + 4 * placeB.x;

  var c00 = vec4f(); var c01 = vec4f(); var c02 = vec4f(); var c03 = vec4f();
  var c04 = vec4f(); var c05 = vec4f(); var c06 = vec4f(); var c07 = vec4f();
  var c10 = vec4f(); var c11 = vec4f(); var c12 = vec4f(); var c13 = vec4f();
  var c14 = vec4f(); var c15 = vec4f(); var c16 = vec4f(); var c17 = vec4f();

  var deep = part.begin + 16 <= part.end;
  var a0 = loadA(part, rowA, part.begin + placeA.y, wholeA && deep);
  var a1 = loadA(part, rowA + 4 * nextA.x, part.begin + placeA.y + nextA.y, wholeA && deep);
  var b0 = loadB(part, columnB, part.begin + placeB.y, wholeB && deep);
  var b1 = loadB(part, columnB + 4 * nextB.x, part.begin + placeB.y + nextB.y, wholeB && deep);
  for (var base = part.begin; base < part.end; base += 16) {
    workgroupBarrier();
    tileA[placeA.y * 32 + (placeA.x ^ (placeA.y & 7))] = a0;
    tileA[(placeA.y + nextA.y) * 32 + ((placeA.x + nextA.x) ^ (placeA.y & 7))] = a1;
    tileB[placeB.y * 32 + (placeB.x ^ (placeB.y & 7))] = b0;
    tileB[(placeB.y + nextB.y) * 32 + ((placeB.x + nextB.x) ^ (placeB.y & 7))] = b1;
    workgroupBarrier();
    // the next tile is on its way while this one is multiplied
    let next = base + 16;
    deep = next + 16 <= part.end;
    if (next < part.end) {
      a0 = loadA(part, rowA, next + placeA.y, wholeA && deep);
      a1 = loadA(part, rowA + 4 * nextA.x, next + placeA.y + nextA.y, wholeA && deep);
      b0 = loadB(part, columnB, next + placeB.y, wholeB && deep);
      b1 = loadB(part, columnB + 4 * nextB.x, next + placeB.y + nextB.y, wholeB && deep);
    }
    for (var p = 0u; p < 16; p++) {
      let turn = p & 7;
      let top = tileA[p * 32 + (v ^ turn)];
      let bottom = tileA[p * 32 + 16 + (v ^ turn)];
      let left = tileB[p * 32 + (x ^ turn)];
      let right = tileB[p * 32 + 16 + (x ^ turn)];
      c00 += top.x * left; c10 += top.x * right;
      c01 += top.y * left; c11 += top.y * right;
      c02 += top.z * left; c12 += top.z * right;
      c03 += top.w * left; c13 += top.w * right;
      c04 += bottom.x * left; c14 += bottom.x * right;
      c05 += bottom.y * left; c15 += bottom.y * right;
      c06 += bottom.z * left; c16 += bottom.z * right;
      c07 += bottom.w * left; c17 += bottom.w * right;
    }
  }
  let row = part.row + 4 * v;
  let column = part.column + 4 * x;
  storeY(part, row, column, c00); storeY(part, row, column + 64, c10);
  storeY(part, row + 1, column, c01); storeY(part, row + 1, column + 64, c11);
  storeY(part, row + 2, column, c02); storeY(part, row + 2, column + 64, c12);
  storeY(part, row + 3, column, c03); storeY(part, row + 3, column + 64, c13);
  storeY(part, row + 64, column, c04); storeY(part, row + 64, column + 64, c14);
  storeY(part, row + 65, column, c05); storeY(part, row + 65, column + 64, c15);
  storeY(part, row + 66, column, c06); storeY(part, row + 66, column + 64, c16);
  storeY(part, row + 67, column, c07); storeY(part, row + 67, column + 64, c17);
}

//# matmulSmall
// Tiles of 64 x 64, 4 x 4 a thread: where those of 128 would be too few to fill a card.
var<workgroup> tileA: array<vec4f, 256>;
var<workgroup> tileB: array<vec4f, 256>;

@compute @workgroup_size(THREADS)
fn matmulSmall(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let part = partOf(group, 64);
  let x = t % 16;
  let v = t / 16;
  let placeA = loaded(t, 16, ALONG_A == 1);
  let placeB = loaded(t, 16, ALONG_B == 1);
  let wholeA = part.row + 64 <= n.rows;
  let wholeB = part.column + 64 <= n.columns;
  let rowA = part.row + 4 * placeA.x;
  let columnB = part.column + 4 * placeB.x;

  var c0 = vec4f(); var c1 = vec4f(); var c2 = vec4f(); var c3 = vec4f();
  var deep = part.begin + 16 <= part.end;
  var nextA = loadA(part, rowA, part.begin + placeA.y, wholeA && deep);
  var nextB = loadB(part, columnB, part.begin + placeB.y, wholeB && deep);
  for (var base = part.begin; base < part.end; base += 16) {
    workgroupBarrier();
    tileA[placeA.y * 16 + (placeA.x ^ (placeA.y & 7))] = nextA;
    tileB[placeB.y * 16 + (placeB.x ^ (placeB.y & 7))] = nextB;
    workgroupBarrier();
    let next = base + 16;
    deep = next + 16 <= part.end;
    if (next < part.end) {
      nextA = loadA(part, rowA, next + placeA.y, wholeA && deep);
      nextB = loadB(part, columnB, next + placeB.y, wholeB && deep);
    }
    for (var p = 0u; p < 16; p++) {
      let left = tileA[p * 16 + (v ^ (p & 7))];
      let right = tileB[p * 16 + (x ^ (p & 7))];
      c0 += left.x * right;
      c1 += left.y * right;
      c2 += left.z * right;
      c3 += left.w * right;
    }
  }
  let row = part.row + 4 * v;
  let column = part.column + 4 * x;
  storeY(part, row, column, c0);
  storeY(part, row + 1, column, c1);
  storeY(part, row + 2, column, c2);
  storeY(part, row + 3, column, c3);
}

//# matmulHalf
// Operands rounded to f16 on the way, sums in f32, by products of 16 x 16 x 16 of a subgroup of 32. Tiles of 128 x 128, 32 deep, as
// [p][136]: 128 rows or columns and 8 to spare against bank conflicts. Each of 8 subgroups has 64 x 32.
enable f16;
enable chromium_experimental_subgroup_matrix;
diagnostic(off, chromium.subgroup_matrix_uniformity);

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sum = subgroup_matrix_result<f32, 16, 16>;

var<workgroup> halfA: array<f16, 4352>;
var<workgroup> halfB: array<f16, 4352>;
var<workgroup> stage: array<f32, 2048>;

/** By bits: a driver may make anything of a number outside the range of f16. Here it becomes infinite. */
fn halves(x: vec4f) -> vec4h {
  let low = halfOfBits(bitcast<u32>(x.x)) | (halfOfBits(bitcast<u32>(x.y)) << 16u);
  let high = halfOfBits(bitcast<u32>(x.z)) | (halfOfBits(bitcast<u32>(x.w)) << 16u);
  return bitcast<vec4h>(vec2u(low, high));
}

/** Two quads of 16 x 16 sums that begin at a row and column; all threads of the group at once, for the barriers. */
fn storeSum(part: Part, sum: Sum, row: u32, column: u32, t: u32) {
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&stage, t / 32 * 256, sum, 16u);
  workgroupBarrier();
  for (var quad = t % 32; quad < 64; quad += 32) {
    let at = t / 32 * 256 + 4 * quad;
    let values = vec4f(stage[at], stage[at + 1], stage[at + 2], stage[at + 3]);
    storeY(part, row + quad / 4, column + quad % 4 * 4, values);
  }
}

@compute @workgroup_size(THREADS)
fn matmulHalf(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let part = partOf(group, 128);
  let placeA = select(vec2u(t % 32, t / 32), vec2u(t / 32, t % 32), ALONG_A == 1);
  let placeB = select(vec2u(t % 32, t / 32), vec2u(t / 32, t % 32), ALONG_B == 1);
  let nextA = select(vec2u(0, 8), vec2u(8, 0), ALONG_A == 1);
  let nextB = select(vec2u(0, 8), vec2u(8, 0), ALONG_B == 1);
  let wholeA = part.row + 128 <= n.rows;
  let wholeB = part.column + 128 <= n.columns;
  let rows = t / 128 * 64; // of the subgroup
  let columns = t / 32 % 4 * 32;
  var s00: Sum; var s10: Sum; var s20: Sum; var s30: Sum;
  var s01: Sum; var s11: Sum; var s21: Sum; var s31: Sum;
  for (var base = part.begin; base < part.end; base += 32) {
    let deep = base + 32 <= part.end;
    workgroupBarrier();
    for (var i = 0u; i < 4; i++) {
      let pa = placeA + i * nextA;
      let quadA = halves(loadA(part, part.row + 4 * pa.x, base + pa.y, wholeA && deep));
      let pb = placeB + i * nextB;
      let quadB = halves(loadB(part, part.column + 4 * pb.x, base + pb.y, wholeB && deep));
      for (var j = 0u; j < 4; j++) {
        halfA[pa.y * 136 + 4 * pa.x + j] = quadA[j];
        halfB[pb.y * 136 + 4 * pb.x + j] = quadB[j];
      }
    }
    workgroupBarrier();
    for (var p = 0u; p < 32; p += 16) {
      let b0 = subgroupMatrixLoad<Right, row_major>(&halfB, p * 136 + columns, 136u);
      let b1 = subgroupMatrixLoad<Right, row_major>(&halfB, p * 136 + columns + 16, 136u);
      let a0 = subgroupMatrixLoad<Left, col_major>(&halfA, p * 136 + rows, 136u);
      let a1 = subgroupMatrixLoad<Left, col_major>(&halfA, p * 136 + rows + 16, 136u);
      let a2 = subgroupMatrixLoad<Left, col_major>(&halfA, p * 136 + rows + 32, 136u);
      let a3 = subgroupMatrixLoad<Left, col_major>(&halfA, p * 136 + rows + 48, 136u);
      s00 = subgroupMatrixMultiplyAccumulate(a0, b0, s00);
      s01 = subgroupMatrixMultiplyAccumulate(a0, b1, s01);
      s10 = subgroupMatrixMultiplyAccumulate(a1, b0, s10);
      s11 = subgroupMatrixMultiplyAccumulate(a1, b1, s11);
      s20 = subgroupMatrixMultiplyAccumulate(a2, b0, s20);
      s21 = subgroupMatrixMultiplyAccumulate(a2, b1, s21);
      s30 = subgroupMatrixMultiplyAccumulate(a3, b0, s30);
      s31 = subgroupMatrixMultiplyAccumulate(a3, b1, s31);
    }
  }
  let row = part.row + rows;
  let column = part.column + columns;
  storeSum(part, s00, row, column, t); storeSum(part, s01, row, column + 16, t);
  storeSum(part, s10, row + 16, column, t); storeSum(part, s11, row + 16, column + 16, t);
  storeSum(part, s20, row + 32, column, t); storeSum(part, s21, row + 32, column + 16, t);
  storeSum(part, s30, row + 48, column, t); storeSum(part, s31, row + 48, column + 16, t);
}
