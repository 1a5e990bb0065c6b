// Shared by all kernels. The prelude before this text declares THREADS, the constants, the tensors, and the numbers `n`:
// `n.<number>` and `n.<tensor>_at`, the place of a tensor's first element in its array, and `n.groups`.
// A kernel is `@compute @workgroup_size(THREADS) fn name(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u,
// @builtin(local_invocation_index) t: u32)`; it returns at once when groupOf(w, c) >= n.groups.

/** Index of the group: more than 65535 of them are folded into rows. */
fn groupOf(w: vec3u, c: vec3u) -> u32 {
  return w.x + w.y * c.x;
}

// ---- rounding of single steps
// A driver may fuse a product with a sum, and may take (a + b) - a for b. What must be rounded as it is written goes through
// `opaque`: its bits, xored with a 0 that no compiler knows (groups are below 2^31).

fn opaque(x: f32) -> f32 {
  return bitcast<f32>(bitcast<u32>(x) ^ (n.groups >> 31u));
}

/** By its bits: a driver may take x != x for false. */
fn isNan(x: f32) -> bool {
  return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// ---- double-float: a sum of two f32, [0] the rounded one and [1] what is left, some 47 bits. Infinities give NaN.

alias Double = vec2f;

/** a + b without error. */
fn twoSum(a: f32, b: f32) -> Double {
  let s = opaque(a + b);
  let ofB = opaque(s - a);
  let ofA = opaque(s - ofB);
  return Double(s, opaque(a - ofA) + opaque(b - ofB));
}

/** a + b without error, |a| >= |b| or a = 0. */
fn fastTwoSum(a: f32, b: f32) -> Double {
  let s = opaque(a + b);
  return Double(s, b - opaque(s - a));
}

/** a b without error: of halves of 12 bits all products are exact, so that fusing them changes nothing. */
fn twoProduct(a: f32, b: f32) -> Double {
  let p = opaque(a * b);
  let aHigh = bitcast<f32>(bitcast<u32>(a) & 0xfffff000u);
  let bHigh = bitcast<f32>(bitcast<u32>(b) & 0xfffff000u);
  let aLow = opaque(a - aHigh);
  let bLow = opaque(b - bHigh);
  let cross = opaque(opaque(aHigh * bHigh - p) + aHigh * bLow);
  return Double(p, opaque(cross + aLow * bHigh) + aLow * bLow);
}

fn doubleAdd(a: Double, b: Double) -> Double {
  let s = twoSum(a.x, b.x);
  return fastTwoSum(s.x, s.y + opaque(a.y + b.y));
}

fn doubleAddFloat(a: Double, b: f32) -> Double {
  let s = twoSum(a.x, b);
  return fastTwoSum(s.x, s.y + a.y);
}

fn doubleMultiply(a: Double, b: Double) -> Double {
  let p = twoProduct(a.x, b.x);
  return fastTwoSum(p.x, p.y + (a.x * b.y + a.y * b.x));
}

fn doubleMultiplyFloat(a: Double, b: f32) -> Double {
  let p = twoProduct(a.x, b);
  return fastTwoSum(p.x, p.y + a.y * b);
}

/** Three digits of long division: f32 division need not be exact. */
fn doubleDivide(a: Double, b: Double) -> Double {
  let first = a.x / b.x;
  var rest = doubleAdd(a, -doubleMultiplyFloat(b, first));
  let second = rest.x / b.x;
  rest = doubleAdd(rest, -doubleMultiplyFloat(b, second));
  let third = rest.x / b.x;
  return doubleAddFloat(fastTwoSum(first, second), third);
}

/** Two steps of Newton from the square root in f32; 0 of 0 and below. */
fn doubleSqrt(a: Double) -> Double {
  if (a.x <= 0.0) {
    return Double(0.0, 0.0);
  }
  let start = sqrt(a.x);
  var root = Double(start, 0.0);
  for (var step = 0u; step < 2u; step++) {
    let rest = doubleAdd(a, -doubleMultiply(root, root));
    root = doubleAddFloat(root, 0.5 * rest.x / start);
  }
  return root;
}

// ---- exact whatever a driver flushes or approximates: by bits and whole numbers

const EXPONENT_BITS = 0x7f800000u; // of infinity, too

/** whole 2^(exponent - 150), 2^23 <= whole < 2^24. */
struct Magnitude {
  whole: u32,
  exponent: i32,
}

/** Of a finite number above 0 by its bits. */
fn magnitudeOf(bits: u32) -> Magnitude {
  if (bits < 0x800000u) {
    let shift = countLeadingZeros(bits) - 8u;
    return Magnitude(bits << shift, 1 - i32(shift));
  }
  return Magnitude((bits & 0x7fffffu) | 0x800000u, i32(bits >> 23u));
}

/** x / 2^dropped to the nearest whole number, ties to even; 0 < dropped < 31. */
fn dropBits(x: u32, dropped: u32) -> u32 {
  return (x + (1u << (dropped - 1u)) - 1u + ((x >> dropped) & 1u)) >> dropped;
}

/** a / b as IEEE rounds it, subnormal or not: f32 division of a driver may be some units off, and more at the ends. */
fn divideRounded(a: f32, b: f32) -> f32 {
  let sign = (bitcast<u32>(a) ^ bitcast<u32>(b)) & 0x80000000u;
  let above = bitcast<u32>(a) & 0x7fffffffu;
  let below = bitcast<u32>(b) & 0x7fffffffu;
  if (max(above - 1u, below - 1u) >= EXPONENT_BITS - 1u) { // one is 0, infinite or NaN
    if (max(above, below) > EXPONENT_BITS || above == below) {
      return bitcast<f32>(sign | 0x7fc00000u);
    }
    return bitcast<f32>(sign | select(0u, EXPONENT_BITS, above == EXPONENT_BITS || below == 0u));
  }
  let top = magnitudeOf(above);
  let bottom = magnitudeOf(below);
  // quotient and rest of top 2^25 / bottom; the rest modulo 2^32, so that a first guess may be 100 off
  var quotient = u32(f32(top.whole) / f32(bottom.whole) * 0x1p+25);
  var rest = i32((top.whole << 25u) - quotient * bottom.whole);
  let more = i32(floor(f32(rest) / f32(bottom.whole)));
  quotient += u32(more);
  rest -= more * i32(bottom.whole);
  if (rest < 0) {
    quotient--;
    rest += i32(bottom.whole);
  } else if (rest >= i32(bottom.whole)) {
    quotient++;
    rest -= i32(bottom.whole);
  }
  var exponent = top.exponent - bottom.exponent + 127;
  if (quotient < 0x2000000u) {
    quotient <<= 1u;
    exponent--;
  }
  if (exponent > 254) {
    return bitcast<f32>(sign | EXPONENT_BITS);
  }
  quotient |= select(1u, 0u, rest == 0); // 26 bits, the last for all that follow
  let rounded = dropBits(quotient, u32(clamp(3 - exponent, 2, 27)));
  return bitcast<f32>(sign | ((u32(max(exponent, 1) - 1) << 23u) + rounded));
}

/** 2^80 x of |x| < 2^40, subnormals too. */
fn lifted(x: f32) -> f32 {
  let bits = bitcast<u32>(x);
  if ((bits & EXPONENT_BITS) == 0u) {
    let size = f32(bits & 0x7fffffu) * 0x1p-69;
    return select(size, -size, bits >= 0x80000000u);
  }
  return x * 0x1p+80;
}

/** 2^-80 x, rounded once where that is subnormal. */
fn lowered(x: f32) -> f32 {
  let bits = bitcast<u32>(x);
  let exponent = (bits >> 23u) & 255u;
  if (exponent > 80u) {
    return x * 0x1p-80;
  }
  return bitcast<f32>((bits & 0x80000000u) | dropBits((bits & 0x7fffffu) | 0x800000u, min(81u - exponent, 25u)));
}

// ---- sums of products

/**
 * A sum of products times by^2: 2^80 while none of them is 2^-40 or more, as their low parts might be subnormal, which a driver
 * flushes, and 1 from then on.
 */
struct Dot {
  sum: Double,
  by: f32,
}

const NO_DOT = Dot(Double(0.0, 0.0), 0x1p+40);

fn dotUnscaled(x: Dot) -> Double {
  return x.sum * select(1.0, 0x1p-80, x.by > 1.0);
}

fn dotAdd(to: Dot, a: f32, b: f32) -> Dot {
  var next = to;
  if (next.by > 1.0 && !(abs(a * b) < 0x1p-40)) {
    next = Dot(dotUnscaled(next), 1.0);
  }
  next.sum = doubleAdd(next.sum, twoProduct(opaque(a * next.by), opaque(b * next.by)));
  return next;
}

fn dotJoin(a: Dot, b: Dot) -> Dot {
  if (a.by == b.by) {
    return Dot(doubleAdd(a.sum, b.sum), a.by);
  }
  return Dot(doubleAdd(dotUnscaled(a), dotUnscaled(b)), 1.0);
}

/** Rounded once more where it is subnormal; `dotOf` makes of it a sum that more can be joined to. */
fn dotValue(x: Dot) -> Double {
  if (x.by > 1.0) {
    return Double(lowered(x.sum.x), lowered(x.sum.y));
  }
  return x.sum;
}

fn dotOf(value: Double) -> Dot {
  if (abs(value.x) < 0x1p-40) {
    return Dot(Double(lifted(value.x), lifted(value.y)), NO_DOT.by);
  }
  return Dot(value, 1.0);
}

/** e^x to about 1e-7 everywhere; that of a driver loses digits as |x| grows. 0 or a subnormal below -87. */
fn expAccurate(x: f32) -> f32 {
  let bounded = clamp(x, -104.0, 89.0);
  let power = round(bounded * 1.44269504);
  // ln 2 in two parts, the first of 10 bits, so that its product with `power` is exact
  let r = (bounded - power * 0.693359375) + power * 2.12194440e-4;
  var series = 1.0 / 5040.0;
  series = series * r + 1.0 / 720.0;
  series = series * r + 1.0 / 120.0;
  series = series * r + 1.0 / 24.0;
  series = series * r + 1.0 / 6.0;
  series = series * r + 0.5;
  series = 1.0 + (r + r * r * series); // little is lost but by the last sum
  let half = i32(power) / 2;
  let rest = i32(power) - half;
  let y = series * bitcast<f32>(u32(half + 127) << 23u) * bitcast<f32>(u32(rest + 127) << 23u);
  return select(y, x, isNan(x));
}

// ---- f16 by its bits, in the low half of a word, to nearest even: no driver's rounding or flushing comes into it

fn halfOfBits(bits: u32) -> u32 {
  let sign = (bits >> 16u) & 0x8000u;
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return sign | 0x7e00u | ((magnitude >> 13u) & 0x1ffu);
  }
  if (magnitude >= 0x477ff000u) {
    return sign | 0x7c00u; // 65520 and above
  }
  if (magnitude >= 0x38800000u) {
    return sign | dropBits(magnitude - 0x38000000u, 13u);
  }
  if (magnitude < 0x33000000u) {
    return sign; // below half of the least subnormal
  }
  return sign | dropBits((magnitude & 0x7fffffu) | 0x800000u, 126u - (magnitude >> 23u)); // 14..24 bits
}

fn bitsOfHalf(half: u32) -> u32 {
  let sign = (half & 0x8000u) << 16u;
  let magnitude = half & 0x7fffu;
  if (magnitude >= 0x7c00u) {
    return sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13u);
  }
  if (magnitude >= 0x400u) {
    return sign | ((magnitude << 13u) + 0x38000000u);
  }
  if (magnitude == 0u) {
    return sign;
  }
  let lead = firstLeadingBit(magnitude); // magnitude times 2^-24
  return sign | ((lead + 103u) << 23u) | ((magnitude << (23u - lead)) & 0x7fffffu);
}

/** x rounded to f16, as f32. */
fn roundToHalf(x: f32) -> f32 {
  return bitcast<f32>(bitsOfHalf(halfOfBits(bitcast<u32>(x))));
}

// ---- over all threads of a group, in a fixed order; every thread gets the result. THREADS is a power of 2. Barriers inside.

var<workgroup> groupFloats: array<f32, THREADS>;
var<workgroup> groupDoubles: array<Double, THREADS>;

fn groupMax(x: f32, t: u32) -> f32 {
  groupFloats[t] = x;
  for (var step = THREADS / 2u; step > 0u; step /= 2u) {
    workgroupBarrier();
    if (t < step) {
      groupFloats[t] = max(groupFloats[t], groupFloats[t + step]);
    }
  }
  return workgroupUniformLoad(&groupFloats[0]);
}

fn groupMin(x: f32, t: u32) -> f32 {
  return -groupMax(-x, t);
}

fn groupSumDouble(x: Double, t: u32) -> Double {
  groupDoubles[t] = x;
  for (var step = THREADS / 2u; step > 0u; step /= 2u) {
    workgroupBarrier();
    if (t < step) {
      groupDoubles[t] = doubleAdd(groupDoubles[t], groupDoubles[t + step]);
    }
  }
  return workgroupUniformLoad(&groupDoubles[0]);
}

// ---- over `lanes` neighboring threads, a power of 2 that divides THREADS and is the same for the whole group: each such run of
// threads gets a result of its own, in a fixed order. Barriers inside.

var<workgroup> groupWords: array<u32, THREADS>;

fn laneSum(x: f32, t: u32, lanes: u32) -> f32 {
  groupFloats[t] = x;
  for (var step = lanes / 2u; step > 0u; step /= 2u) {
    workgroupBarrier();
    if (t % lanes < step) {
      groupFloats[t] += groupFloats[t + step];
    }
  }
  workgroupBarrier();
  let sum = groupFloats[t - t % lanes];
  workgroupBarrier();
  return sum;
}

fn laneMax(x: f32, t: u32, lanes: u32) -> f32 {
  groupFloats[t] = x;
  for (var step = lanes / 2u; step > 0u; step /= 2u) {
    workgroupBarrier();
    if (t % lanes < step) {
      groupFloats[t] = max(groupFloats[t], groupFloats[t + step]);
    }
  }
  workgroupBarrier();
  let most = groupFloats[t - t % lanes];
  workgroupBarrier();
  return most;
}

fn laneLeastWord(x: u32, t: u32, lanes: u32) -> u32 {
  groupWords[t] = x;
  for (var step = lanes / 2u; step > 0u; step /= 2u) {
    workgroupBarrier();
    if (t % lanes < step) {
      groupWords[t] = min(groupWords[t], groupWords[t + step]);
    }
  }
  workgroupBarrier();
  let least = groupWords[t - t % lanes];
  workgroupBarrier();
  return least;
}

var<workgroup> groupDots: array<Dot, THREADS>;

/** For the first thread of each run alone; all must wait before the next call. */
fn laneSumDot(x: Dot, t: u32, lanes: u32) -> Double {
  groupDots[t] = x;
  for (var step = lanes / 2u; step > 0u; step /= 2u) {
    workgroupBarrier();
    if (t % lanes < step) {
      groupDots[t] = dotJoin(groupDots[t], groupDots[t + step]);
    }
  }
  return dotValue(groupDots[t]);
}

/** Row and column of the so manieth tile of a lower triangle, row after row. */
fn lowerTile(tile: u32) -> vec2u {
  var row = u32((sqrt(8.0 * f32(tile) + 1.0) - 1.0) / 2.0);
  while (row * (row + 1) / 2 > tile) {
    row--;
  }
  while ((row + 1) * (row + 2) / 2 <= tile) {
    row++;
  }
  return vec2u(row, tile - row * (row + 1) / 2);
}

// ---- affine grids

/** round(x / h) of the quotient as IEEE rounds it, ties to even; the exact quotient only where it may decide. */
fn roundedRatio(x: f32, h: f32) -> f32 {
  let ratio = x / h;
  let whole = round(ratio);
  if (abs(abs(ratio - whole) - 0.5) > abs(ratio) * 0x1p-20) {
    return whole;
  }
  return round(divideRounded(x, h));
}

/** 0 .. high; NaN stays where the driver keeps it. */
fn clampTo(x: f32, high: f32) -> f32 {
  return select(select(x, high, x > high), 0.0, x < 0.0);
}

/** The nearest f16 that is neither 0 (2^-14 instead, the least normal one) nor infinite. */
fn f16Scale(x: f32) -> f32 {
  let rounded = roundToHalf(x);
  return select(select(rounded, 65504.0, rounded > 65504.0), 0x1p-14, rounded == 0.0);
}

/** Zero of a grid with codes 0 .. levels from its least value, at most 0. */
fn zeroOf(low: f32, step: f32, levels: f32, symmetric: bool) -> f32 {
  if (symmetric) {
    return 0.5 * (levels + 1.0);
  }
  return clampTo(roundedRatio(-low, step), levels);
}

/** Width of what a grid covers. */
fn rangeOf(high: f32, low: f32, symmetric: bool) -> f32 {
  return select(high - low, 2.0 * max(high, -low), symmetric);
}

/** Scale of a grid with codes 0 .. levels from its extremes, 0 among them. */
fn stepOf(high: f32, low: f32, levels: f32, symmetric: bool) -> f32 {
  let range = rangeOf(high, low, symmetric);
  if (range == 0.0) {
    return 1.0;
  }
  return f16Scale(divideRounded(range, levels));
}

// ---- runs of `width` consecutive columns of a row: perRow of them a row, `runs` in all

struct Run {
  begin: u32,
  end: u32,
}

/** Elements of a run; none behind the last. */
fn elementsOf(run: u32, runs: u32, columns: u32, width: u32, perRow: u32) -> Run {
  if (run >= runs) {
    return Run(0, 0);
  }
  let row = run / perRow * columns;
  let first = run % perRow * width;
  return Run(row + first, row + min(columns, first + width));
}

/** e^-|x| to some 40 bits, up to |x| = 87. */
fn doubleExpFalling(x: f32) -> Double {
  let bounded = -min(abs(x), 87.0);
  let power = round(bounded * 1.44269504);
  // bounded - power ln 2; the first part of ln 2 has 9 bits, so that what is subtracted first is exact
  let first = opaque(bounded - power * 0.693359375);
  let r = doubleAddFloat(doubleMultiplyFloat(Double(2.1219444170128554e-4, -1.64659497e-12), power), first);
  // the terms from r^7 on are below 2^-23 of the sum
  let tail = ((((r.x / 39916800.0 + 1.0 / 3628800.0) * r.x + 1.0 / 362880.0) * r.x + 1.0 / 40320.0) * r.x + 1.0 / 5040.0) * r.x;
  var sum = doubleAddFloat(Double(1.3888889225199819e-3, -3.36310944e-11), tail);
  sum = doubleAdd(doubleMultiply(sum, r), Double(8.333333767950535e-3, -4.34617203e-10));
  sum = doubleAdd(doubleMultiply(sum, r), Double(4.16666679084301e-2, -1.24176347e-9));
  sum = doubleAdd(doubleMultiply(sum, r), Double(1.666666716337204e-1, -4.96705388e-9));
  sum = doubleAddFloat(doubleMultiply(sum, r), 0.5);
  sum = doubleAddFloat(doubleMultiply(sum, r), 1.0);
  sum = doubleAddFloat(doubleMultiply(sum, r), 1.0);
  return sum * bitcast<f32>(u32(i32(power) + 127) << 23u);
}

/** x sigmoid(logit), rounded to f32 once; of the sign of x, never 0 unless x is. */
fn clipped(x: f32, logit: f32) -> f32 {
  if (x == 0.0) {
    return 0.0;
  }
  let falling = doubleExpFalling(logit);
  var above = Double(abs(x), 0.0);
  if (logit < 0.0) {
    above = doubleMultiplyFloat(falling, abs(x));
  }
  let size = max(doubleDivide(above, doubleAddFloat(falling, 1.0)).x, 0x1p-126);
  return select(size, -size, x < 0.0);
}
