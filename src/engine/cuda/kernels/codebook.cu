// Nearest codewords of many vectors.

//# nearestTiled
// HELD vectors a thread, 256 apart, against all codewords, which pass through shared memory 256 at a time. Codewords are
// compared by the score s(c) = x.c - |c|^2 / 2 = (|x|^2 - d(c)) / 2 in fused arithmetic; of a run of RUN codewords only the
// greatest score counts. The best run is searched again in the steps of the contract, which gives codeword w and its distance.
//
// No codeword of another run has a distance as small as w's when the second best run's score is below the best by more than
//   bound = (v + 1) 2^-20 (|x|^2 + d(w)).
// With u = 2^-24, v <= 16, r = |x| + sqrt(d): a score is wrong by at most (2v + 1) u (|c|^2 / 2 + |x| |c|) (1 + 2^-18), fused or
// not, and a distance of the contract by (v + 2) u d. Let codeword b of another run have a distance of the contract at most that
// of the best score's a, then d(b) <= d(a) (1 + 2.01 (v + 2) u), |a| and |b| are at most r (1 + 2^-18), so that
//   score(a) - score(b) <= u (1.01 (v + 2) d(a) + 2 (2v + 1) 1.51 r^2) < (7.1 v + 5.1) u r^2,
// and 1.5 u r^2 more for rounding the test. r^2 <= 2 (|x|^2 + d(a)), and d(a) <= d(w) + 2^-12 (|x|^2 + d(w)), as a scored at
// least as well as w. All that is below (8v + 8) u 2 (|x|^2 + d(w)) = bound. 1e-30 is room for underflow; where |x|^2 + d is 1e36
// or more (or NaN) something might overflow. Vectors that fail the test are searched through by a warp each.
#define RUN 16

__device__ inline float contractDistance(const float* x, const float* codebook, unsigned c) {
  float sum = 0.0f;
#pragma unroll
  for (unsigned k = 0; k < LENGTH; k++) {
    float difference = __fsub_rn(x[k], codebook[(size_t)c * LENGTH + k]);
    sum = __fadd_rn(sum, __fmul_rn(difference, difference));
  }
  return sum;
}

/** A codeword out of shared memory, by the widest loads that its place allows. */
__device__ inline void readCodeword(const float* from, float* codeword) {
#if LENGTH % 4 == 0
#pragma unroll
  for (unsigned k = 0; k < LENGTH; k += 4) {
    float4 four = *(const float4*)(from + k);
    codeword[k] = four.x;
    codeword[k + 1] = four.y;
    codeword[k + 2] = four.z;
    codeword[k + 3] = four.w;
  }
#elif LENGTH % 2 == 0
#pragma unroll
  for (unsigned k = 0; k < LENGTH; k += 2) {
    float2 two = *(const float2*)(from + k);
    codeword[k] = two.x;
    codeword[k + 1] = two.y;
  }
#else
#pragma unroll
  for (unsigned k = 0; k < LENGTH; k++) codeword[k] = from[k];
#endif
}

extern "C" __global__ void nearestTiled(const float* vectors, const float* codebook, int* indices, float* distances,
                                        unsigned count, unsigned codewords) {
  __shared__ __align__(16) float tile[THREADS * LENGTH];
  __shared__ __align__(16) float starts[THREADS];  // -|c|^2 / 2
  __shared__ unsigned open, list[HELD * THREADS];  // vectors that fail the test
  const float infinite = __uint_as_float(0x7f800000u);
  unsigned t = threadIdx.x, first = blockIdx.x * (HELD * THREADS);
  float x[HELD][LENGTH], best[HELD], second[HELD];
  unsigned where[HELD];
#pragma unroll
  for (unsigned h = 0; h < HELD; h++) {
    unsigned i = first + h * THREADS + t;
#pragma unroll
    for (unsigned k = 0; k < LENGTH; k++) x[h][k] = i < count ? vectors[(size_t)i * LENGTH + k] : 0.0f;
    best[h] = second[h] = -infinite;
    where[h] = 0;
  }
  if (t == 0) open = 0;

  for (unsigned base = 0; base < codewords; base += THREADS) {
    __syncthreads();
    unsigned c = base + t;
    float norm = 0.0f;
#pragma unroll
    for (unsigned k = 0; k < LENGTH; k++) {
      float value = c < codewords ? codebook[(size_t)c * LENGTH + k] : 0.0f;
      tile[t * LENGTH + k] = value;
      norm = fmaf(value, value, norm);
    }
    starts[t] = c < codewords ? -0.5f * norm : -infinite;
    __syncthreads();
    unsigned have = min((unsigned)THREADS, codewords - base);
    for (unsigned run = 0; run < have; run += RUN) {
      float most[HELD];
#pragma unroll
      for (unsigned h = 0; h < HELD; h++) most[h] = -infinite;
#pragma unroll
      for (unsigned j = 0; j < RUN; j++) {
        float codeword[LENGTH];
        readCodeword(tile + (run + j) * LENGTH, codeword);
        float start = starts[run + j];
#pragma unroll
        for (unsigned h = 0; h < HELD; h++) {
          float score = start;
#pragma unroll
          for (unsigned k = 0; k < LENGTH; k++) score = fmaf(x[h][k], codeword[k], score);
          most[h] = fmaxf(most[h], score);
        }
      }
#pragma unroll
      for (unsigned h = 0; h < HELD; h++) {
        second[h] = fmaxf(second[h], fminf(best[h], most[h]));
        if (most[h] > best[h]) {
          best[h] = most[h];
          where[h] = base + run;
        }
      }
    }
  }

#pragma unroll
  for (unsigned h = 0; h < HELD; h++) {
    unsigned i = first + h * THREADS + t;
    if (i >= count) continue;
    float least = infinite, norm = 0.0f;
    unsigned index = 0;
    for (unsigned c = where[h]; c < min(where[h] + RUN, codewords); c++) {
      float distance = contractDistance(x[h], codebook, c);
      if (distance < least) {
        least = distance;
        index = c;
      }
    }
#pragma unroll
    for (unsigned k = 0; k < LENGTH; k++) norm = fmaf(x[h][k], x[h][k], norm);
    indices[i] = index;
    distances[i] = least;
    float size = norm + least;
    float bound = (LENGTH + 1) * 0x1p-20f * size + 1e-30f;
    if (!(size < 1e36f && second[h] < best[h] - bound)) list[atomicAdd(&open, 1u)] = i - first;
  }
  __syncthreads();

  for (unsigned place = t / 32; place < open; place += THREADS / 32) {
    unsigned i = first + list[place];
    float own[LENGTH];
#pragma unroll
    for (unsigned k = 0; k < LENGTH; k++) own[k] = vectors[(size_t)i * LENGTH + k];
    unsigned least = 0x7f800000u, index = ~0u;
    for (unsigned c = t % 32; c < codewords; c += 32) {
      unsigned distance = __float_as_uint(contractDistance(own, codebook, c));
      if (distance < least) {
        least = distance;
        index = c;
      }
    }
    unsigned nearest = __reduce_min_sync(0xffffffffu, least);
    index = __reduce_min_sync(0xffffffffu, least == nearest ? index : ~0u);
    if (t % 32 != 0) continue;
    if (index >= codewords) index = 0;
    indices[i] = index;
    distances[i] = contractDistance(own, codebook, index);
  }
}
