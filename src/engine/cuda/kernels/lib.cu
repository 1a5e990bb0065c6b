// Shared by all kernels. Before this text stand THREADS and the constants of the kernel as #define.

// ---- sums and extremes over threads, in a fixed order; every thread gets the result. THREADS is a multiple of 32.

/** Over the 32 threads of a warp, for float and double. */
template <class T>
__device__ inline T warpSum(T x) {
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

__device__ inline float warpMax(float x) {
  for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}

__device__ inline float warpMin(float x) {
  return -warpMax(-x);
}

/** Over all threads of a group, for float and double; all threads must call it. */
template <class T>
__device__ inline T groupSum(T x) {
  __shared__ T parts[(THREADS + 31) / 32];
  x = warpSum(x);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  T total = parts[0];
  for (int warp = 1; warp < THREADS / 32; warp++) total += parts[warp];
  __syncthreads();
  return total;
}

__device__ inline float groupMax(float x) {
  __shared__ float parts[(THREADS + 31) / 32];
  x = warpMax(x);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  float largest = parts[0];
  for (int warp = 1; warp < THREADS / 32; warp++) largest = fmaxf(largest, parts[warp]);
  __syncthreads();
  return largest;
}

__device__ inline float groupMin(float x) {
  return -groupMax(-x);
}

/** Notes what an element must not be: { number of the check, value, position }; the first to come stays. */
__device__ inline void noteFault(int* fault, int check, int value, int at) {
  if (atomicCAS(fault, 0, check) != 0) return;
  fault[1] = value;
  fault[2] = at;
}

// ---- over `lanes` neighboring threads, a power of 2 that divides THREADS and is the same for the whole group: each such run of
// threads gets a result of its own, in a fixed order. All threads of the group must call them.

template <class T, class Combine>
__device__ inline T laneReduce(T x, unsigned lanes, Combine combine) {
  for (unsigned step = (lanes < 32 ? lanes : 32) / 2; step > 0; step /= 2)
    x = combine(x, __shfl_xor_sync(0xffffffffu, x, step));
  if (lanes <= 32) return x;
  __shared__ T parts[(THREADS + 31) / 32];
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  unsigned first = threadIdx.x / lanes * (lanes / 32);
  x = parts[first];
  for (unsigned warp = 1; warp < lanes / 32; warp++) x = combine(x, parts[first + warp]);
  __syncthreads();
  return x;
}

__device__ inline float laneSum(float x, unsigned lanes) {
  return laneReduce(x, lanes, [](float a, float b) { return a + b; });
}

__device__ inline float laneMax(float x, unsigned lanes) {
  return laneReduce(x, lanes, [](float a, float b) { return fmaxf(a, b); });
}

__device__ inline unsigned laneLeastWord(unsigned x, unsigned lanes) {
  return laneReduce(x, lanes, [](unsigned a, unsigned b) { return a < b ? a : b; });
}

// ---- f16 by its bits, to nearest even

__device__ inline unsigned halfOfBits(unsigned bits) {
  unsigned sign = (bits >> 16) & 0x8000u;
  unsigned magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7e00u | ((magnitude >> 13) & 0x1ffu);
  if (magnitude >= 0x477ff000u) return sign | 0x7c00u;  // 65520 and above
  if (magnitude >= 0x38800000u) {
    unsigned rebased = magnitude - 0x38000000u;
    return sign | ((rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13);
  }
  if (magnitude < 0x33000000u) return sign;  // below half of the least subnormal
  unsigned dropped = 126u - (magnitude >> 23);  // 14..24 bits
  unsigned mantissa = (magnitude & 0x7fffffu) | 0x800000u;
  unsigned odd = (mantissa >> dropped) & 1u;
  return sign | ((mantissa + (1u << (dropped - 1)) - 1u + odd) >> dropped);
}

__device__ inline unsigned bitsOfHalf(unsigned half) {
  unsigned sign = (half & 0x8000u) << 16;
  unsigned magnitude = half & 0x7fffu;
  if (magnitude >= 0x7c00u) return sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13);
  if (magnitude >= 0x400u) return sign | ((magnitude << 13) + 0x38000000u);
  if (magnitude == 0u) return sign;
  unsigned lead = 31u - (unsigned)__clz((int)magnitude);  // magnitude times 2^-24
  return sign | ((lead + 103u) << 23) | ((magnitude << (23u - lead)) & 0x7fffffu);
}

/** x rounded to f16, as f32. */
__device__ inline float roundToHalf(float x) {
  return __uint_as_float(bitsOfHalf(halfOfBits(__float_as_uint(x))));
}

// ---- affine grids

/** round(x / h), ties to even, of the quotient as IEEE rounds it. */
__device__ inline float roundedRatio(float x, float h) {
  return rintf(__fdiv_rn(x, h));
}

/** 0 .. high; NaN stays. */
__device__ inline float clampTo(float x, float high) {
  return x < 0.0f ? 0.0f : (x > high ? high : x);
}

/** The nearest f16 that is neither 0 (2^-14 instead, the least normal one) nor infinite. */
__device__ inline float f16Scale(float x) {
  float rounded = roundToHalf(x);
  return rounded == 0.0f ? 0.00006103515625f : (rounded > 65504.0f ? 65504.0f : rounded);
}

/** Zero of a grid with codes 0 .. levels from its least value, at most 0. */
__device__ inline float zeroOf(float low, float step, float levels, bool symmetric) {
  return symmetric ? 0.5f * (levels + 1.0f) : clampTo(roundedRatio(-low, step), levels);
}

/** Width of what a grid covers. */
__device__ inline float rangeOf(float high, float low, bool symmetric) {
  return symmetric ? 2.0f * fmaxf(high, -low) : high - low;
}

/** Scale of a grid with codes 0 .. levels from its extremes, 0 among them. */
__device__ inline float stepOf(float high, float low, float levels, bool symmetric) {
  float range = rangeOf(high, low, symmetric);
  return range == 0.0f ? 1.0f : f16Scale(__fdiv_rn(range, levels));
}

// ---- runs of `width` consecutive columns of a row: perRow of them a row, `runs` in all

struct Run {
  unsigned begin, end;
};

/** Elements of a run; none behind the last. */
__device__ inline Run elementsOf(unsigned run, unsigned runs, unsigned columns, unsigned width, unsigned perRow) {
  if (run >= runs) return {0, 0};
  unsigned row = run / perRow * columns;
  unsigned first = run % perRow * width;
  return {row + first, row + min(columns, first + width)};
}

__device__ inline double sigmoid(float x) {
  return 1.0 / (1.0 + exp(-(double)x));
}

/** x sigmoid(logit), rounded to f32 once; of the sign of x, never 0 unless x is. */
__device__ inline float clipped(float x, float logit) {
  if (x == 0.0f) return 0.0f;
  float y = (float)(sigmoid(logit) * (double)x);
  return x > 0.0f ? fmaxf(y, 1.17549435e-38f) : fminf(y, -1.17549435e-38f);
}

/**
 * `use` of what `load` gives for begin, begin + stride .. below end, in this order; loads for BATCH of them come first. The compiler
 * loads nothing ahead of a division or a store, and each load would be waited for.
 */
template <unsigned BATCH, class Load, class Use>
__device__ inline void inBatches(unsigned begin, unsigned end, unsigned stride, Load load, Use use) {
  for (unsigned first = begin; first < end; first += BATCH * stride) {
    decltype(load(0u)) loaded[BATCH];
#pragma unroll
    for (unsigned j = 0; j < BATCH; j++) loaded[j] = load(min(first + j * stride, end - 1));
#pragma unroll
    for (unsigned j = 0; j < BATCH; j++)
      if (first + j * stride < end) use(loaded[j], first + j * stride);
  }
}

// ---- tensor cores, f16 operands (PTX ISA, "Warp Level Matrix Instructions"), and copies that run beside arithmetic

/** d += a b: [16, 16] times [16, 8]. */
__device__ inline void multiplyAddHalf(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/** Four matrices of 8 rows of 8 f16 in shared memory; lane l gives the address of row l % 8 of matrix l / 8. */
__device__ inline void loadMatrices(unsigned (&to)[4], const unsigned short* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"((unsigned)__cvta_generic_to_shared(row))
               : "memory");
}

/** The same, each matrix transposed. */
__device__ inline void loadTransposed(unsigned (&to)[4], const unsigned short* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"((unsigned)__cvta_generic_to_shared(row))
               : "memory");
}

/** Copies 8 f16 to shared memory, zeros where they are not there; all at multiples of 16 bytes. They come with `waitCopies`. */
__device__ inline void copyEight(unsigned short* to, const unsigned short* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((unsigned)__cvta_generic_to_shared(to)), "l"(from),
               "r"(there ? 16 : 0)
               : "memory");
}

/** Waits for all copies of this thread; __syncthreads must follow before others read them. */
__device__ inline void waitCopies() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

/** f16 of both, `low` in the low half. */
__device__ inline unsigned halfPair(float low, float high) {
  unsigned pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

/** 2^x within 2 units in the last place; 0 below the normal numbers. */
__device__ inline float powerOfTwo(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
