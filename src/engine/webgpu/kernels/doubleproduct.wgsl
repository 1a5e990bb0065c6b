// Products of double-float matrices, in tiles of 64 x 64: a thread has 4 x 4 of a tile. hi, lo and `panel` as in factor.
// Operands go through workgroup memory 8 deep, as [p][68]: 64 rows or columns and 4 to spare against bank conflicts.

var<workgroup> leftHi: array<f32, 544>;
var<workgroup> leftLo: array<f32, 544>;
var<workgroup> rightHi: array<f32, 544>;
var<workgroup> rightLo: array<f32, 544>;

struct Quad {
  hi: vec4f,
  lo: vec4f,
}

struct Tile {
  r0: Quad,
  r1: Quad,
  r2: Quad,
  r3: Quad,
}

/** Four numbers, and the halves of their high parts (12 bits each). */
struct Factor {
  hi: vec4f,
  lo: vec4f,
  high: vec4f,
  low: vec4f,
}

fn opaqueQuad(x: vec4f) -> vec4f {
  return bitcast<vec4f>(bitcast<vec4u>(x) ^ vec4u(n.groups >> 31u));
}

/** sum + a b, the steps of twoProduct and twoSum; the low part is not yet added to the high one. */
fn addProducts(sum: Quad, a: Double, b: Factor) -> Quad {
  let high = bitcast<f32>(bitcast<u32>(a.x) & 0xfffff000u);
  let low = opaque(a.x - high);
  let p = opaqueQuad(a.x * b.hi);
  let cross = opaqueQuad(opaqueQuad(high * b.high - p) + high * b.low);
  let rest = opaqueQuad(cross + low * b.high) + low * b.low;
  let s = opaqueQuad(sum.hi + p);
  let ofP = opaqueQuad(s - sum.hi);
  let ofSum = opaqueQuad(s - ofP);
  let error = opaqueQuad(sum.hi - ofSum) + opaqueQuad(p - ofP);
  return Quad(s, sum.lo + (error + (rest + (a.x * b.lo + a.y * b.hi))));
}

fn normalized(sum: Quad) -> Quad {
  let s = opaqueQuad(sum.hi + sum.lo);
  return Quad(s, sum.lo - opaqueQuad(s - sum.hi));
}

/** Adds the product of what lies in workgroup memory. */
fn multiplyStep(tile: Tile, t: u32) -> Tile {
  var sum = tile;
  for (var p = 0u; p < 8; p++) {
    let at = p * 68 + t % 16 * 4;
    var b: Factor;
    b.hi = vec4f(rightHi[at], rightHi[at + 1], rightHi[at + 2], rightHi[at + 3]);
    b.lo = vec4f(rightLo[at], rightLo[at + 1], rightLo[at + 2], rightLo[at + 3]);
    b.high = bitcast<vec4f>(bitcast<vec4u>(b.hi) & vec4u(0xfffff000u));
    b.low = opaqueQuad(b.hi - b.high);
    let row = p * 68 + t / 16 * 4;
    sum.r0 = addProducts(sum.r0, Double(leftHi[row], leftLo[row]), b);
    sum.r1 = addProducts(sum.r1, Double(leftHi[row + 1], leftLo[row + 1]), b);
    sum.r2 = addProducts(sum.r2, Double(leftHi[row + 2], leftLo[row + 2]), b);
    sum.r3 = addProducts(sum.r3, Double(leftHi[row + 3], leftLo[row + 3]), b);
  }
  return Tile(normalized(sum.r0), normalized(sum.r1), normalized(sum.r2), normalized(sum.r3));
}

fn element(at: u32) -> Double {
  return Double(hi[n.hi_at + at], lo[n.lo_at + at]);
}

fn setElement(at: u32, value: Double) {
  hi[n.hi_at + at] = value.x;
  lo[n.lo_at + at] = value.y;
}

fn setLeft(row: u32, p: u32, value: Double) {
  leftHi[p * 68 + row] = value.x;
  leftLo[p * 68 + row] = value.y;
}

fn setRight(column: u32, p: u32, value: Double) {
  rightHi[p * 68 + column] = value.x;
  rightLo[p * 68 + column] = value.y;
}

/** Tiles of the blocks that `invertLeft` and `invertRight` compute. */
struct Place {
  /** Where the pair of triangles begins: the first has `side` rows, the second those that are left, at most as many. */
  first: u32,
  /** Rows of the second triangle. */
  rows: u32,
  row: u32,
  column: u32,
}

fn placeOf(group: u32, side: u32) -> Place {
  let across = (side + 63) / 64;
  let tile = group % (across * across);
  let first = group / (across * across) * 2 * side;
  let rows = min(side, n.size - first - side);
  return Place(first, rows, tile / across * 64, tile % across * 64);
}

//# choleskyUpdate
// Right of the 32 columns X at n.first, of which `panel` has what is below them: A -= X X^T in rows n.top .. n.end of the lower
// triangle. Tiles begin there and at the first column; `across` of them lie side by side, or, with 0, those of a triangle.
fn subtractRow(row: u32, column: u32, sum: Quad) {
  for (var j = 0u; j < 4; j++) {
    if (row < n.end && column + j <= row) {
      let at = (row - n.begin) * n.size + column + j;
      setElement(at, doubleAdd(element(at), -Double(sum.hi[j], sum.lo[j])));
    }
  }
}

fn panelElement(row: u32, column: u32) -> Double {
  let at = n.panel_at + row * 32 + column;
  return Double(panel[at], panel[at + n.size * 32]);
}

@compute @workgroup_size(THREADS)
fn choleskyUpdate(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  var place = vec2u(n.top, n.first + 32);
  if (n.across == 0) {
    place += lowerTile(group) * 64;
  } else {
    place += vec2u(group / n.across, group % n.across) * 64;
  }
  if (place.y >= min(place.x + 64, n.end)) { // above the diagonal
    return;
  }
  let p = t % 8;
  var tile = Tile();
  for (var base = 0u; base < 32; base += 8) {
    workgroupBarrier();
    for (var i = t / 8; i < 64; i += 32) {
      var left = Double();
      var right = Double();
      if (place.x + i < n.end) {
        left = panelElement(place.x + i, base + p);
      }
      if (place.y + i < n.size) {
        right = panelElement(place.y + i, base + p);
      }
      setLeft(i, p, left);
      setRight(i, p, right);
    }
    workgroupBarrier();
    tile = multiplyStep(tile, t);
  }
  let row = place.x + t / 16 * 4;
  let column = place.y + t % 16 * 4;
  subtractRow(row, column, tile.r0);
  subtractRow(row + 1, column, tile.r1);
  subtractRow(row + 2, column, tile.r2);
  subtractRow(row + 3, column, tile.r3);
}

//# invertLeft
// The inverse of [[A, 0], [B, C]] is [[A^-1, 0], [-C^-1 B A^-1, C^-1]]. B A^-1 for all pairs of triangles of n.side rows whose
// inverses are in hi and lo; its transpose is left above the diagonal, in the place of what is 0 there.
fn setTransposed(place: Place, row: u32, column: u32, sum: Quad) {
  for (var j = 0u; j < 4; j++) {
    if (row < place.rows && column + j < n.side) {
      let at = (place.first + column + j) * n.size + place.first + n.side + row;
      setElement(at, Double(sum.hi[j], sum.lo[j]));
    }
  }
}

@compute @workgroup_size(THREADS)
fn invertLeft(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let place = placeOf(group, n.side);
  var tile = Tile();
  for (var base = place.column; base < n.side; base += 8) { // A^-1 is lower triangular, too
    workgroupBarrier();
    for (var i = t / 8; i < 64; i += 32) {
      var left = Double();
      if (place.row + i < place.rows) {
        let row = place.first + n.side + place.row + i;
        left.x = source[n.source_at + row * n.size + place.first + base + t % 8];
      }
      setLeft(i, t % 8, left);
    }
    for (var p = t / 64; p < 8; p += 4) {
      let column = place.column + t % 64;
      var right = Double();
      if (column <= base + p) {
        right = element((place.first + base + p) * n.size + place.first + column);
      }
      setRight(t % 64, p, right);
    }
    workgroupBarrier();
    tile = multiplyStep(tile, t);
  }
  let row = place.row + t / 16 * 4;
  let column = place.column + t % 16 * 4;
  setTransposed(place, row, column, tile.r0);
  setTransposed(place, row + 1, column, tile.r1);
  setTransposed(place, row + 2, column, tile.r2);
  setTransposed(place, row + 3, column, tile.r3);
}

//# invertRight
// Then -C^-1 times that.
fn setNegative(place: Place, row: u32, column: u32, sum: Quad) {
  for (var j = 0u; j < 4; j++) {
    if (row < place.rows && column + j < n.side) {
      let at = (place.first + n.side + row) * n.size + place.first + column + j;
      setElement(at, -Double(sum.hi[j], sum.lo[j]));
    }
  }
}

@compute @workgroup_size(THREADS)
fn invertRight(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let place = placeOf(group, n.side);
  let second = place.first + n.side;
  let p = t % 8;
  var tile = Tile();
  for (var base = 0u; base < min(place.row + 64, place.rows); base += 8) {
    workgroupBarrier();
    for (var i = t / 8; i < 64; i += 32) {
      var left = Double();
      var right = Double();
      if (place.row + i < place.rows && base + p <= place.row + i) {
        left = element((second + place.row + i) * n.size + second + base + p);
      }
      if (place.column + i < n.side && base + p < place.rows) {
        right = element((place.first + place.column + i) * n.size + second + base + p);
      }
      setLeft(i, p, left);
      setRight(i, p, right);
    }
    workgroupBarrier();
    tile = multiplyStep(tile, t);
  }
  let row = place.row + t / 16 * 4;
  let column = place.column + t % 16 * 4;
  setNegative(place, row, column, tile.r0);
  setNegative(place, row + 1, column, tile.r1);
  setNegative(place, row + 2, column, tile.r2);
  setNegative(place, row + 3, column, tile.r3);
}

//# doubleProduct
// y [rows, columns], in hi and lo, = a b, or - a b where `negative` is 1; a [rows, size], b [size, columns]. With `keep` the sums in
// y go on.
fn signedQuad(row: u32, column: u32) -> Quad {
  let sign = 1.0 - 2.0 * f32(n.negative);
  var quad = Quad();
  for (var j = 0u; j < 4; j++) {
    if (n.keep == 1 && row < n.rows && column + j < n.columns) {
      let value = element(row * n.columns + column + j);
      quad.hi[j] = sign * value.x;
      quad.lo[j] = sign * value.y;
    }
  }
  return quad;
}

fn setQuad(row: u32, column: u32, sum: Quad) {
  let sign = 1.0 - 2.0 * f32(n.negative);
  for (var j = 0u; j < 4; j++) {
    if (row < n.rows && column + j < n.columns) {
      setElement(row * n.columns + column + j, sign * Double(sum.hi[j], sum.lo[j]));
    }
  }
}

@compute @workgroup_size(THREADS)
fn doubleProduct(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let across = (n.columns + 63) / 64;
  let row0 = group / across * 64;
  let column0 = group % across * 64;
  let row = row0 + t / 16 * 4;
  let column = column0 + t % 16 * 4;
  var tile = Tile(signedQuad(row, column), signedQuad(row + 1, column), signedQuad(row + 2, column), signedQuad(row + 3, column));
  for (var base = 0u; base < n.size; base += 8) {
    workgroupBarrier();
    for (var i = t / 8; i < 64; i += 32) {
      var left = Double();
      if (row0 + i < n.rows && base + t % 8 < n.size) {
        let at = (row0 + i) * n.size + base + t % 8;
        left = Double(aHi[n.aHi_at + at], aLo[n.aLo_at + at]);
      }
      setLeft(i, t % 8, left);
    }
    for (var p = t / 64; p < 8; p += 4) {
      var right = Double();
      if (base + p < n.size && column0 + t % 64 < n.columns) {
        let at = (base + p) * n.columns + column0 + t % 64;
        right = Double(bHi[n.bHi_at + at], bLo[n.bLo_at + at]);
      }
      setRight(t % 64, p, right);
    }
    workgroupBarrier();
    tile = multiplyStep(tile, t);
  }
  setQuad(row, column, tile.r0);
  setQuad(row + 1, column, tile.r1);
  setQuad(row + 2, column, tile.r2);
  setQuad(row + 3, column, tile.r3);
}
