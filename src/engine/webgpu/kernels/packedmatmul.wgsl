//# matmulPacked
// y [m, n] = alpha op(a) op(b) (+ y), with op(a)[i, p] = a[i rowA + p depthA] and op(b)[p, j] = b[p depthB + j columnB], of
// operands that are in f16 already (packHalves), 8 numbers a word of 16 bytes; sums in f32, by products of 16 x 16 x 16 of a
// subgroup of 32. A group has a tile of 128 x 128, each of its 4 subgroups 64 x 64 of it. What is walked by words (the depth of
// an operand that is ALONG it, else its rows or columns) has a multiple of 8 numbers, and begins at one.
//
// 32 of the depth at a time go through workgroup memory, as matrices of 16 lines of 2 words and one to spare, so that 8 lines
// meet all banks. An array of blocks of two matrices, because an offset within one is then a constant, and an access that is
// known to be inside costs no check.
enable f16;
enable chromium_experimental_subgroup_matrix;
diagnostic(off, chromium.subgroup_matrix_uniformity);

const SIDE = 128u;
const DEPTH = 32u;
const BLOCKS = SIDE / 32 * (DEPTH / 16); // of an operand
const COUNT = SIDE * DEPTH / 8 / THREADS; // words of an operand that a thread carries

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sum = subgroup_matrix_result<f32, 16, 16>;

// a and b as they are read here
@group(0) @binding(1) var<storage, read> wordsA: array<vec4u>;
@group(0) @binding(2) var<storage, read> wordsB: array<vec4u>;

var<workgroup> tile: array<array<vec4u, 96>, 2 * BLOCKS>; // those of a, those of b

struct Part {
  /** First row and column of the tile. */
  row: u32,
  column: u32,
  /** Of the first elements of the matrices. */
  a: u32,
  b: u32,
  y: u32,
}

/** What a group computes: groups that run at the same time share rows of a and columns of b. */
fn partOf(group: u32) -> Part {
  let down = (n.rows + SIDE - 1) / SIDE;
  let across = (n.columns + SIDE - 1) / SIDE;
  let item = group / (down * across);
  let place = group % (down * across);
  let first = place / (8 * across) * 8;
  let height = min(8, down - first);
  let within = place % (8 * across);
  return Part(
    (first + within % height) * SIDE,
    within / height * SIDE,
    n.a_at + n.fromA + item * n.stackA,
    n.b_at + n.fromB + item * n.stackB,
    n.y_at + n.fromY + item * n.stackY,
  );
}

/**
 * Of the so manieth word of 32 of an operand's depth: its row or column, its depth, its block and its place there. Eight threads
 * store to lines 0, 2, 4, 6 or 1, 3, 5, 7 of a matrix, which lie in different banks.
 */
fn placeOf(e: u32, along: bool) -> vec4u {
  let half = e % 2;
  let line = e / 2 % 4 * 2 + e / 8 % 2;
  if (along) {
    let q = e / 16 % (DEPTH / 16);
    let row = e / DEPTH * 8 + line;
    return vec4u(row, 16 * q + 8 * half, q * (SIDE / 32) + row / 32, row % 32 * 3 + half);
  }
  let matrix = e / 16 % (SIDE / 16);
  let depth = e / SIDE * 8 + line;
  return vec4u(
    16 * matrix + 8 * half,
    depth,
    depth / 16 * (SIDE / 32) + matrix / 2,
    matrix % 2 * 48 + depth % 16 * 3 + half,
  );
}

fn fetchA(part: Part, base: u32, place: vec4u) -> vec4u {
  let row = part.row + place.x;
  let p = base + place.y;
  if (row < n.rows && p < n.depth) {
    return wordsA[(part.a + row * n.rowA + p * n.depthA) / 8];
  }
  return vec4u();
}

fn fetchB(part: Part, base: u32, place: vec4u) -> vec4u {
  let column = part.column + place.x;
  let p = base + place.y;
  if (column < n.columns && p < n.depth) {
    return wordsB[(part.b + column * n.columnB + p * n.depthB) / 8];
  }
  return vec4u();
}

fn put(block: u32, place: vec4u, word: vec4u) {
  tile[block + place.z][place.w] = word;
}

/** The first and second matrix of a block. */
fn leftLow(block: u32) -> Left {
  if (ALONG_A == 1) {
    return subgroupMatrixLoad<Left, row_major>(&tile[block], 0u, 3u);
  }
  return subgroupMatrixLoad<Left, col_major>(&tile[block], 0u, 3u);
}
fn leftHigh(block: u32) -> Left {
  if (ALONG_A == 1) {
    return subgroupMatrixLoad<Left, row_major>(&tile[block], 48u, 3u);
  }
  return subgroupMatrixLoad<Left, col_major>(&tile[block], 48u, 3u);
}
fn rightLow(block: u32) -> Right {
  if (ALONG_B == 1) {
    return subgroupMatrixLoad<Right, col_major>(&tile[block], 0u, 3u);
  }
  return subgroupMatrixLoad<Right, row_major>(&tile[block], 0u, 3u);
}
fn rightHigh(block: u32) -> Right {
  if (ALONG_B == 1) {
    return subgroupMatrixLoad<Right, col_major>(&tile[block], 48u, 3u);
  }
  return subgroupMatrixLoad<Right, row_major>(&tile[block], 48u, 3u);
}

/** Sums are the result, and all of the tile is inside. */
fn storedAsItIs(part: Part) -> bool {
  return part.row + SIDE <= n.rows && part.column + SIDE <= n.columns && n.alpha == 1.0 && n.accumulate == 0;
}

/** Two quads of 16 x 16 sums, the second to the right of the first; all threads of the group at once, for the barriers. */
fn storeSums(part: Part, left: Sum, right: Sum, row: u32, column: u32, t: u32) {
  let block = t / 32 * 2; // there are more than two for each subgroup
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&tile[block], 0u, left, 4u);
  subgroupMatrixStore<row_major>(&tile[block + 1], 0u, right, 4u);
  workgroupBarrier();
  for (var quad = t % 32; quad < 128; quad += 32) {
    let word = tile[block + quad / 4 % 2][quad / 8 * 4 + quad % 4];
    storeQuad(part, row + quad / 8, column + quad % 8 * 4, bitcast<vec4f>(word));
  }
}

fn storeQuad(part: Part, row: u32, column: u32, sum: vec4f) {
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

@compute @workgroup_size(THREADS)
fn matmulPacked(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let part = partOf(group);
  let rows = t / 64 * 64; // of the subgroup
  let columns = t / 32 % 2 * 64;
  var s00: Sum; var s01: Sum; var s02: Sum; var s03: Sum;
  var s10: Sum; var s11: Sum; var s12: Sum; var s13: Sum;
  var s20: Sum; var s21: Sum; var s22: Sum; var s23: Sum;
  var s30: Sum; var s31: Sum; var s32: Sum; var s33: Sum;
  var wordsOfA: array<vec4u, COUNT>;
  var wordsOfB: array<vec4u, COUNT>;
  for (var i = 0u; i < COUNT; i++) {
    wordsOfA[i] = fetchA(part, 0, placeOf(t + i * THREADS, ALONG_A == 1));
  }
  for (var i = 0u; i < COUNT; i++) {
    wordsOfB[i] = fetchB(part, 0, placeOf(t + i * THREADS, ALONG_B == 1));
  }
  for (var base = 0u; base < n.depth; base += DEPTH) {
    workgroupBarrier();
    for (var i = 0u; i < COUNT; i++) {
      put(0, placeOf(t + i * THREADS, ALONG_A == 1), wordsOfA[i]);
    }
    for (var i = 0u; i < COUNT; i++) {
      put(BLOCKS, placeOf(t + i * THREADS, ALONG_B == 1), wordsOfB[i]);
    }
    workgroupBarrier();
    // the next words are on their way while these are multiplied
    let next = base + DEPTH;
    if (next < n.depth) {
      for (var i = 0u; i < COUNT; i++) {
        wordsOfA[i] = fetchA(part, next, placeOf(t + i * THREADS, ALONG_A == 1));
      }
      for (var i = 0u; i < COUNT; i++) {
        wordsOfB[i] = fetchB(part, next, placeOf(t + i * THREADS, ALONG_B == 1));
      }
    }
    for (var q = 0u; q < DEPTH / 16; q++) {
      let atA = q * (SIDE / 32) + rows / 32;
      let atB = BLOCKS + q * (SIDE / 32) + columns / 32;
      let b0 = rightLow(atB);
      let b1 = rightHigh(atB);
      let b2 = rightLow(atB + 1);
      let b3 = rightHigh(atB + 1);
      let a0 = leftLow(atA);
      s00 = subgroupMatrixMultiplyAccumulate(a0, b0, s00);
      s01 = subgroupMatrixMultiplyAccumulate(a0, b1, s01);
      s02 = subgroupMatrixMultiplyAccumulate(a0, b2, s02);
      s03 = subgroupMatrixMultiplyAccumulate(a0, b3, s03);
      let a1 = leftHigh(atA);
      s10 = subgroupMatrixMultiplyAccumulate(a1, b0, s10);
      s11 = subgroupMatrixMultiplyAccumulate(a1, b1, s11);
      s12 = subgroupMatrixMultiplyAccumulate(a1, b2, s12);
      s13 = subgroupMatrixMultiplyAccumulate(a1, b3, s13);
      let a2 = leftLow(atA + 1);
      s20 = subgroupMatrixMultiplyAccumulate(a2, b0, s20);
      s21 = subgroupMatrixMultiplyAccumulate(a2, b1, s21);
      s22 = subgroupMatrixMultiplyAccumulate(a2, b2, s22);
      s23 = subgroupMatrixMultiplyAccumulate(a2, b3, s23);
      let a3 = leftHigh(atA + 1);
      s30 = subgroupMatrixMultiplyAccumulate(a3, b0, s30);
      s31 = subgroupMatrixMultiplyAccumulate(a3, b1, s31);
      s32 = subgroupMatrixMultiplyAccumulate(a3, b2, s32);
      s33 = subgroupMatrixMultiplyAccumulate(a3, b3, s33);
    }
  }
  let row = part.row + rows;
  let column = part.column + columns;
  if (storedAsItIs(part)) {
    let at = part.y + row * n.rowY + column;
    subgroupMatrixStore<row_major>(&y, at, s00, n.rowY);
    subgroupMatrixStore<row_major>(&y, at + 16, s01, n.rowY);
    subgroupMatrixStore<row_major>(&y, at + 32, s02, n.rowY);
    subgroupMatrixStore<row_major>(&y, at + 48, s03, n.rowY);
    subgroupMatrixStore<row_major>(&y, at + 16 * n.rowY, s10, n.rowY);
    subgroupMatrixStore<row_major>(&y, at + 16 * n.rowY + 16, s11, n.rowY);
    subgroupMatrixStore<row_major>(&y, at + 16 * n.rowY + 32, s12, n.rowY);
    subgroupMatrixStore<row_major>(&y, at + 16 * n.rowY + 48, s13, n.rowY);
    subgroupMatrixStore<row_major>(&y, at + 32 * n.rowY, s20, n.rowY);
    subgroupMatrixStore<row_major>(&y, at + 32 * n.rowY + 16, s21, n.rowY);
    subgroupMatrixStore<row_major>(&y, at + 32 * n.rowY + 32, s22, n.rowY);
    subgroupMatrixStore<row_major>(&y, at + 32 * n.rowY + 48, s23, n.rowY);
    subgroupMatrixStore<row_major>(&y, at + 48 * n.rowY, s30, n.rowY);
    subgroupMatrixStore<row_major>(&y, at + 48 * n.rowY + 16, s31, n.rowY);
    subgroupMatrixStore<row_major>(&y, at + 48 * n.rowY + 32, s32, n.rowY);
    subgroupMatrixStore<row_major>(&y, at + 48 * n.rowY + 48, s33, n.rowY);
  } else {
    storeSums(part, s00, s01, row, column, t);
    storeSums(part, s02, s03, row, column + 32, t);
    storeSums(part, s10, s11, row + 16, column, t);
    storeSums(part, s12, s13, row + 16, column + 32, t);
    storeSums(part, s20, s21, row + 32, column, t);
    storeSums(part, s22, s23, row + 32, column + 32, t);
    storeSums(part, s30, s31, row + 48, column, t);
    storeSums(part, s32, s33, row + 48, column + 32, t);
  }
}
