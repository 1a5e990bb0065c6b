// Conversions by bits, so that no driver's rounding or flushing comes into them: f32 comes and goes as u32, types below
// 4 bytes as words of 2 or 4 elements. 1024 elements a group. KIND of 16 bits: 0 f16, 1 bf16, 2 u16.

fn bfloatOfBits(bits: u32) -> u32 {
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    return (bits >> 16u) | 0x40u; // a NaN must not round to infinity
  }
  return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}

/** f32 by its bits, truncated and saturated; 0 of NaN. */
fn wholeOfBits(bits: u32) -> i32 {
  let magnitude = bits & 0x7fffffffu;
  let exponent = magnitude >> 23u;
  if (magnitude > 0x7f800000u || exponent < 127u) {
    return 0;
  }
  let negative = (bits >> 31u) == 1u;
  if (exponent >= 158u) {
    return bitcast<i32>(select(0x7fffffffu, 0x80000000u, negative));
  }
  let mantissa = (magnitude & 0x7fffffu) | 0x800000u;
  var value: u32;
  if (exponent >= 150u) {
    value = mantissa << (exponent - 150u);
  } else {
    value = mantissa >> (150u - exponent);
  }
  return select(i32(value), -i32(value), negative);
}

/** Bits of the f32 nearest to a whole number, ties to even. */
fn bitsOfWhole(whole: i32) -> u32 {
  if (whole == 0) {
    return 0u;
  }
  let bits = bitcast<u32>(whole);
  let sign = bits & 0x80000000u;
  let magnitude = select(bits, 0u - bits, sign != 0u);
  let lead = firstLeadingBit(magnitude);
  var mantissa: u32;
  if (lead <= 23u) {
    mantissa = magnitude << (23u - lead);
  } else {
    let dropped = lead - 23u;
    let odd = (magnitude >> dropped) & 1u;
    mantissa = (magnitude + (1u << (dropped - 1u)) - 1u + odd) >> dropped;
  }
  return sign | (((lead + 127u) << 23u) + (mantissa - 0x800000u)); // a carry goes into the exponent
}

//# castFrom16
@compute @workgroup_size(THREADS)
fn castFrom16(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    let at = n.a_at + i;
    let element = (a[at / 2] >> (16 * (at % 2))) & 0xffffu;
    if (KIND == 0) {
      y[n.y_at + i] = bitsOfHalf(element);
    } else if (KIND == 1) {
      y[n.y_at + i] = element << 16u;
    } else {
      y[n.y_at + i] = bitsOfWhole(i32(element));
    }
  }
}

//# castFrom8
@compute @workgroup_size(THREADS)
fn castFrom8(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    let at = n.a_at + i;
    y[n.y_at + i] = bitsOfWhole(i32((a[at / 4] >> (8 * (at % 4))) & 0xffu));
  }
}

//# castFromI32
@compute @workgroup_size(THREADS)
fn castFromI32(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    y[n.y_at + i] = bitsOfWhole(a[n.a_at + i]);
  }
}

//# castTo16
fn element(i: u32) -> u32 {
  if (i >= n.size) {
    return 0u;
  }
  let bits = a[n.a_at + i];
  if (KIND == 0) {
    return halfOfBits(bits);
  }
  if (KIND == 1) {
    return bfloatOfBits(bits);
  }
  return u32(clamp(wholeOfBits(bits), 0, 65535));
}

// the result begins at a word
@compute @workgroup_size(THREADS)
fn castTo16(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 512 + t;
  for (var word = begin; word < min(begin + 512, (n.size + 1) / 2); word += THREADS) {
    y[n.y_at / 2 + word] = element(2 * word) | (element(2 * word + 1) << 16u);
  }
}

//# castTo8
fn element(i: u32) -> u32 {
  if (i >= n.size) {
    return 0u;
  }
  return u32(clamp(wholeOfBits(a[n.a_at + i]), 0, 255));
}

// the result begins at a word
@compute @workgroup_size(THREADS)
fn castTo8(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let word = groupOf(w, c) * 256 + t;
  if (word >= (n.size + 3) / 4) {
    return;
  }
  let i = 4 * word;
  y[n.y_at / 4 + word] =
    element(i) | (element(i + 1) << 8u) | (element(i + 2) << 16u) | (element(i + 3) << 24u);
}

//# castToI32
@compute @workgroup_size(THREADS)
fn castToI32(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    y[n.y_at + i] = wholeOfBits(a[n.a_at + i]);
  }
}
