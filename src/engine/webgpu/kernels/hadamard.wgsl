// Walsh-Hadamard transform: for each bit of the index, (a, b) -> (a + b, a - b).

/** 16 values, four a vector. */
struct Sixteen {
  a: vec4f,
  b: vec4f,
  c: vec4f,
  d: vec4f,
}

fn lanes(v: vec4f, bits: i32) -> vec4f {
  var x = v;
  if (bits > 0) { x = x.xxzz + vec4f(1.0, -1.0, 1.0, -1.0) * x.yyww; }
  if (bits > 1) { x = x.xyxy + vec4f(1.0, 1.0, -1.0, -1.0) * x.zwzw; }
  return x;
}

fn plus(x: Sixteen, y: Sixteen) -> Sixteen {
  return Sixteen(x.a + y.a, x.b + y.b, x.c + y.c, x.d + y.d);
}

fn minus(x: Sixteen, y: Sixteen) -> Sixteen {
  return Sixteen(x.a - y.a, x.b - y.b, x.c - y.c, x.d - y.d);
}

/** Of the lowest `bits` bits of the index of 16 values, of all four where `bits` is more. */
fn butterflies(v: Sixteen, bits: i32) -> Sixteen {
  var x = Sixteen(lanes(v.a, bits), lanes(v.b, bits), lanes(v.c, bits), lanes(v.d, bits));
  if (bits > 2) { x = Sixteen(x.a + x.b, x.a - x.b, x.c + x.d, x.c - x.d); }
  if (bits > 3) { x = Sixteen(x.a + x.c, x.b + x.d, x.a - x.c, x.b - x.d); }
  return x;
}

// Numbers all below SMALL are transformed times 2^80: what a driver flushes would count beside them.
const SMALL = 0x1p-60;

fn largest(x: Sixteen) -> f32 {
  let four = max(max(abs(x.a), abs(x.b)), max(abs(x.c), abs(x.d)));
  return max(max(four.x, four.y), max(four.z, four.w));
}

fn liftedFour(v: vec4f) -> vec4f {
  return vec4f(lifted(v.x), lifted(v.y), lifted(v.z), lifted(v.w));
}

fn liftedAll(x: Sixteen) -> Sixteen {
  return Sixteen(liftedFour(x.a), liftedFour(x.b), liftedFour(x.c), liftedFour(x.d));
}

fn loweredFour(v: vec4f) -> vec4f {
  return vec4f(lowered(v.x), lowered(v.y), lowered(v.z), lowered(v.w));
}

fn loweredAll(x: Sixteen) -> Sixteen {
  return Sixteen(loweredFour(x.a), loweredFour(x.b), loweredFour(x.c), loweredFour(x.d));
}

//# hadamard: rows of 2^bits elements, one after the other; 4096 elements a group, or one longer row
// Bits 8..13 of the index in registers, 16 to 64 values a thread, 256 apart; bits 4..7 and 0..3 of 4096 elements at a time through
// workgroup memory.
const CHUNK: u32 = 16u * THREADS;

var<workgroup> chunk: array<f32, CHUNK>;

/** Where an element of a chunk lies: 32 threads meet 32 banks in steps of 1, 16 and 256. */
fn placeOf(i: u32) -> u32 {
  return i ^ ((i >> 4u) & 15u) ^ ((i >> 4u) & 16u);
}

fn takeFour(first: u32, step: u32) -> vec4f {
  return vec4f(chunk[placeOf(first)], chunk[placeOf(first + step)], chunk[placeOf(first + 2 * step)], chunk[placeOf(first + 3 * step)]);
}

fn putFour(v: vec4f, first: u32, step: u32) {
  chunk[placeOf(first)] = v.x;
  chunk[placeOf(first + step)] = v.y;
  chunk[placeOf(first + 2 * step)] = v.z;
  chunk[placeOf(first + 3 * step)] = v.w;
}

fn take(first: u32, step: u32) -> Sixteen {
  let four = 4 * step;
  return Sixteen(takeFour(first, step), takeFour(first + four, step), takeFour(first + 2 * four, step), takeFour(first + 3 * four, step));
}

fn put(v: Sixteen, first: u32, step: u32) {
  let four = 4 * step;
  putFour(v.a, first, step);
  putFour(v.b, first + four, step);
  putFour(v.c, first + 2 * four, step);
  putFour(v.d, first + 3 * four, step);
}

fn given(i: u32) -> f32 {
  if (i >= n.size) { return 0.0; }
  return x[n.x_at + i];
}

fn givenFour(i: u32) -> vec4f {
  return vec4f(given(i), given(i + THREADS), given(i + 2 * THREADS), given(i + 3 * THREADS));
}

fn scaled(v: Sixteen, isSmall: bool) -> Sixteen {
  var x = v;
  if (isSmall) { x = liftedAll(x); }
  return Sixteen(x.a * n.factor, x.b * n.factor, x.c * n.factor, x.d * n.factor);
}

/** 1 as soon as an element of the group is not small. */
var<workgroup> ordinary: atomic<u32>;

fn storeFour(v: vec4f, i: u32) {
  for (var k = 0u; k < 4; k++) {
    if (i + k * THREADS < n.size) { y[n.y_at + i + k * THREADS] = v[k]; }
  }
}

@compute @workgroup_size(THREADS)
fn hadamard(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  if (groupOf(w, c) >= n.groups) { return; }
  let begin = groupOf(w, c) * (PARTS * CHUNK) + t;
  const FOUR = 4u * THREADS;
  var values: array<Sixteen, 4>;
  for (var part = 0u; part < PARTS; part++) {
    let i = begin + part * CHUNK;
    values[part] = Sixteen(givenFour(i), givenFour(i + FOUR), givenFour(i + 2 * FOUR), givenFour(i + 3 * FOUR));
    if (largest(values[part]) >= SMALL) { atomicStore(&ordinary, 1u); }
  }
  workgroupBarrier();
  let isSmall = atomicLoad(&ordinary) == 0;
  for (var part = 0u; part < PARTS; part++) {
    values[part] = butterflies(scaled(values[part], isSmall), i32(n.bits) - 8);
  }
  for (var step = 1u; step < PARTS; step *= 2) {
    for (var part = 0u; part < PARTS; part++) {
      if ((part & step) != 0) { continue; }
      let first = values[part];
      let second = values[part + step];
      values[part] = plus(first, second);
      values[part + step] = minus(first, second);
    }
  }
  let far = t / 16 * 256 + t % 16; // 16 values in steps of 16
  for (var part = 0u; part < PARTS; part++) {
    put(values[part], t, THREADS);
    workgroupBarrier();
    if (n.bits > 4) {
      put(butterflies(take(far, 16), i32(n.bits) - 4), far, 16);
      workgroupBarrier();
    }
    put(butterflies(take(t * 16, 1), i32(n.bits)), t * 16, 1);
    workgroupBarrier();
    var v = take(t, THREADS);
    if (isSmall) { v = loweredAll(v); }
    let i = begin + part * CHUNK;
    storeFour(v.a, i);
    storeFour(v.b, i + FOUR);
    storeFour(v.c, i + 2 * FOUR);
    storeFour(v.d, i + 3 * FOUR);
    workgroupBarrier();
  }
}

//# hadamardAcross: 1 to 4 bits of the index, in place: 2^bits values a thread, `stride` apart
fn at(first: u32, k: u32) -> f32 {
  if (k >= (1u << n.bits)) { return 0.0; }
  return y[first + k * n.stride];
}

fn four(first: u32, k: u32) -> vec4f {
  return vec4f(at(first, k), at(first, k + 1), at(first, k + 2), at(first, k + 3));
}

fn store(v: vec4f, first: u32, k: u32) {
  for (var lane = 0u; lane < 4; lane++) {
    if (k + lane < (1u << n.bits)) { y[first + (k + lane) * n.stride] = v[lane]; }
  }
}

@compute @workgroup_size(THREADS)
fn hadamardAcross(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let column = groupOf(w, c) * THREADS + t;
  if (groupOf(w, c) >= n.groups || column >= n.columns) { return; }
  let first = n.y_at + column / n.stride * (n.stride << n.bits) + column % n.stride;
  var v = Sixteen(four(first, 0), four(first, 4), four(first, 8), four(first, 12));
  let isSmall = !(largest(v) >= SMALL);
  if (isSmall) { v = liftedAll(v); }
  v = butterflies(v, i32(n.bits));
  if (isSmall) { v = loweredAll(v); }
  store(v.a, first, 0);
  store(v.b, first, 4);
  store(v.c, first, 8);
  store(v.d, first, 12);
}
