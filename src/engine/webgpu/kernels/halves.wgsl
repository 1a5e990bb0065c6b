// Operands of products in f16: what rounds to infinity there, though it is finite, is noted. f32 comes by its bits.

fn isTooLarge(bits: u32) -> bool {
  let magnitude = bits & 0x7fffffffu;
  return magnitude >= 0x477ff000u && magnitude < EXPONENT_BITS; // from 65520 on
}

//# packHalves
// f32 to f16 for matmulPacked, two numbers a word, and zeros up to a multiple of 8 numbers. 4 words a thread, THREADS apart.
fn bitsAt(i: u32) -> u32 {
  if (i >= n.size) {
    return 0u;
  }
  return x[n.x_at + i];
}

@compute @workgroup_size(THREADS)
fn packHalves(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 4 * THREADS + t;
  for (var i = begin; i < min(begin + 4 * THREADS, (n.size + 7) / 8 * 4); i += THREADS) {
    let low = bitsAt(2 * i);
    let high = bitsAt(2 * i + 1);
    y[n.y_at / 2 + i] = halfOfBits(low) | (halfOfBits(high) << 16u);
    if (isTooLarge(low) || isTooLarge(high)) {
      overflow[n.overflow_at] = 1;
    }
  }
}

//# noteOverflow
// 1024 elements a group.
@compute @workgroup_size(THREADS)
fn noteOverflow(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    if (isTooLarge(x[n.x_at + i])) {
      overflow[n.overflow_at] = 1;
    }
  }
}
