// Sums in double, in an order that the shape alone decides.

/** What f32 leaves of a double, as f32; nothing of an infinite one. */
__device__ inline float restOf(double x) {
  float rest = (float)(x - (double)(float)x);
  return isfinite(rest) ? rest : 0.0f;
}

//# dotParts
// sums[2g], [2g + 1]: both parts of the sum over the elements of group g
extern "C" __global__ void dotParts(const float* a, const float* b, float* sums, unsigned size, unsigned part) {
  double sum = 0.0;
  unsigned begin = blockIdx.x * part;
  for (unsigned i = begin + threadIdx.x; i < min(begin + part, size); i += THREADS) sum += (double)a[i] * b[i];
  sum = groupSum(sum);
  if (threadIdx.x == 0) {
    sums[2 * blockIdx.x] = (float)sum;
    sums[2 * blockIdx.x + 1] = restOf(sum);
  }
}

//# finiteParts
// flags[g]: 1 where group g has an element whose exponent is all ones
extern "C" __global__ void finiteParts(const unsigned* a, int* flags, unsigned size, unsigned part) {
  int spoiled = 0;
  unsigned begin = blockIdx.x * part;
  for (unsigned i = begin + threadIdx.x; i < min(begin + part, size); i += THREADS) {
    spoiled |= (a[i] & 0x7f800000u) == 0x7f800000u;
  }
  spoiled = __syncthreads_or(spoiled);
  if (threadIdx.x == 0) flags[blockIdx.x] = spoiled != 0;
}

//# argmax
// one row a group; numbers in the order of their keys, NaN last of all
__device__ inline unsigned keyOf(unsigned bits) {
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0u;
  if ((bits & 0x7fffffffu) == 0u) return 0x80000000u;  // both zeros
  return bits >= 0x80000000u ? ~bits : bits | 0x80000000u;
}

extern "C" __global__ void argmax(const unsigned* a, int* y, unsigned width) {
  const unsigned* row = a + (size_t)blockIdx.x * width;
  // the key above the place from the end, so that the larger one is the first of equals
  unsigned long long best = 0;
  for (unsigned i = threadIdx.x; i < width; i += THREADS) {
    unsigned long long other = (unsigned long long)keyOf(row[i]) << 32 | (0xffffffffu - i);
    if (other > best) best = other;
  }
  __shared__ unsigned long long all[THREADS];
  all[threadIdx.x] = best;
  for (int step = THREADS / 2; step > 0; step /= 2) {
    __syncthreads();
    if (threadIdx.x < step && all[threadIdx.x + step] > all[threadIdx.x]) all[threadIdx.x] = all[threadIdx.x + step];
  }
  // nothing is above a first NaN
  if (threadIdx.x == 0) y[blockIdx.x] = keyOf(row[0]) == 0u ? 0 : 0xffffffffu - (unsigned)all[0];
}

//# rowDots
// TEAM threads a row: 32 or all
extern "C" __global__ void rowDots(const float* a, const float* b, float* y, unsigned rows, unsigned width) {
  unsigned row = blockIdx.x * (THREADS / TEAM) + threadIdx.x / TEAM;
  unsigned lane = threadIdx.x % TEAM;
  double sum = 0.0;
  if (row < rows) {
    size_t begin = (size_t)row * width;
    for (unsigned i = lane; i < width; i += TEAM) sum += (double)a[begin + i] * b[begin + i];
  }
  sum = TEAM == 32 ? warpSum(sum) : groupSum(sum);
  if (lane == 0 && row < rows) y[row] = (float)sum;
}

//# sumColumns
// A group has 32 columns and `part` rows, 8 at a time. FROM_PARTS, TO_PARTS: a, y are [2, rows or blocks, width], both parts of
// double-floats
extern "C" __global__ void sumColumns(const float* a, float* y, unsigned rows, unsigned width, unsigned part) {
  unsigned chunks = (width + 31) / 32;
  unsigned column = blockIdx.x % chunks * 32 + threadIdx.x % 32;
  unsigned block = blockIdx.x / chunks;
  double sum = 0.0;
  if (column < width) {
    for (unsigned row = block * part + threadIdx.x / 32; row < min((block + 1) * part, rows); row += 8) {
      size_t at = (size_t)row * width + column;
      sum += a[at];
      if (FROM_PARTS) sum += a[at + (size_t)rows * width];
    }
  }
  __shared__ double all[THREADS];
  all[threadIdx.x] = sum;
  for (int step = THREADS / 2; step >= 32; step /= 2) {
    __syncthreads();
    if (threadIdx.x < step) all[threadIdx.x] += all[threadIdx.x + step];
  }
  if (threadIdx.x < 32 && column < width) {
    size_t at = (size_t)block * width + column;
    sum = all[threadIdx.x];
    y[at] = (float)sum;
    if (TO_PARTS) y[at + (size_t)(gridDim.x / chunks) * width] = restOf(sum);
  }
}

//# absMaxColumns
// as sumColumns; magnitudes by their bits, so that a NaN is above all
extern "C" __global__ void absMaxColumns(const unsigned* a, unsigned* y, unsigned rows, unsigned width, unsigned part) {
  unsigned chunks = (width + 31) / 32;
  unsigned column = blockIdx.x % chunks * 32 + threadIdx.x % 32;
  unsigned block = blockIdx.x / chunks;
  unsigned top = 0;
  if (column < width) {
    for (unsigned row = block * part + threadIdx.x / 32; row < min((block + 1) * part, rows); row += 8) {
      top = max(top, a[(size_t)row * width + column] & 0x7fffffffu);
    }
  }
  __shared__ unsigned all[THREADS];
  all[threadIdx.x] = top;
  for (int step = THREADS / 2; step >= 32; step /= 2) {
    __syncthreads();
    if (threadIdx.x < step) all[threadIdx.x] = max(all[threadIdx.x], all[threadIdx.x + step]);
  }
  if (threadIdx.x < 32 && column < width) y[(size_t)block * width + column] = all[threadIdx.x];
}
