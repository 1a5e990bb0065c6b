// Gradients in f16 for attention on the tensor cores (tensorattention.cu): they may be tiny, and f16 ends at 2^-24, so they are
// scaled by powers of two, which the results are divided by in f32. What remains of the error is the rounding to 11 bits, and
// 2^-25 absolute, some 2^-40 of the largest |grad|.
//
// scales: [0] of grad, whose largest element is brought to 2^14 .. 2^15, and [2] of the gradients of the scores, p (g v - mean):
// they are at most half of d max|g| max|v|, with d <= 2^7 and g as scaled less than 2^22 times the power of two below max|v|, and
// are brought below 2^15, so that none is infinite. [1] and [3] are the inverses.

/** 2^exponent, with an inverse that is a normal number; 1 where the largest element is none. */
__device__ inline float scaleOf(unsigned largestBits, int exponent, bool inverse) {
  exponent = largestBits >= 0x7f800000u ? 0 : max(-120, min(120, exponent));
  return __uint_as_float((unsigned)(127 + (inverse ? -exponent : exponent)) << 23);
}

__device__ inline float gradScale(unsigned largestBits, bool inverse) {
  return scaleOf(largestBits, 14 + 127 - (int)(largestBits >> 23), inverse);
}

__device__ inline float changeScale(unsigned largestBits, bool inverse) {
  return scaleOf(largestBits, -7 + 127 - (int)(largestBits >> 23), inverse);
}

//# largestOfBoth
// Bits of the largest |grad| and the largest |v|; integers, so the order does not matter. They start at 0.
extern "C" __global__ void largestOfBoth(const float* grad, const float* v, unsigned* largest, unsigned gradSize,
                                         unsigned valueSize) {
  unsigned groups = (gradSize + 4095) / 4096;
  bool ofGrad = blockIdx.x < groups;
  const float* x = ofGrad ? grad : v;
  unsigned begin = (ofGrad ? blockIdx.x : blockIdx.x - groups) * 4096, size = ofGrad ? gradSize : valueSize, most = 0;
#pragma unroll
  for (unsigned i = 0; i < 4096; i += THREADS)
    if (begin + i + threadIdx.x < size) most = max(most, __float_as_uint(x[begin + i + threadIdx.x]) & 0x7fffffffu);
  most = __reduce_max_sync(0xffffffffu, most);
  if (threadIdx.x % 32 == 0) atomicMax(largest + (ofGrad ? 0 : 1), most);
}

//# halfGrads
// grad [B, T, H, d], scaled, in f16; a row a warp. stats [B, H, padded, 2]: the second is its product with the row of the output,
// the mean of what the weights get.
extern "C" __global__ void halfGrads(const float* grad, const float* output, const unsigned* largest, unsigned short* half,
                                     float* stats, float* scales, unsigned rows, unsigned tokens, unsigned heads, unsigned size,
                                     unsigned padded) {
  unsigned row = blockIdx.x * (THREADS / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  float scale = gradScale(largest[0], false), sum = 0.0f;
#pragma unroll 4
  for (unsigned i = lane; i < size; i += 32) {
    unsigned g = halfPair(grad[(size_t)row * size + i] * scale, 0.0f);
    sum += __uint_as_float(bitsOfHalf(g)) * output[(size_t)row * size + i]; // rounded, as g v will be: where a row sees
    half[(size_t)row * size + i] = g;                                        // one key only, they cancel
  }
  sum = warpSum(sum);
  if (lane != 0) return;
  unsigned head = row % heads, token = row / heads % tokens, batch = row / heads / tokens;
  stats[((size_t)(batch * heads + head) * padded + token) * 2 + 1] = sum;
  if (row != 0) return;
  scales[0] = scale;
  scales[1] = gradScale(largest[0], true);
  scales[2] = changeScale(largest[1], false);
  scales[3] = changeScale(largest[1], true);
}
