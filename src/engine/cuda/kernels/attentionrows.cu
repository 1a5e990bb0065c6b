// Attention of few queries over a long cache: what bounds it is the reading of keys and values, so the ROWS query rows of a group
// (tokens of the heads that share a key head) read them together, and the positions are cut into parts for more groups.

//# attendRows: group = ((batch, key head), block of rows, part of the positions); stats [parts, B, T, H, 2]: maximum, sum
constexpr int KEYS = 64;     // of a step
constexpr int DEPTH = 32;    // columns of keys in shared memory
constexpr int STRIDE = KEYS + 1;
constexpr int SHARES = THREADS / KEYS;   // threads that share a score
constexpr int SPLITS = THREADS / SIZE;   // threads that share a column of the result
constexpr float UNSEEN = -1e30f;

extern "C" __global__ void __launch_bounds__(THREADS) attendRows(const float* q, const float* k, const float* v, const float* slopes, float* y, float* stats, unsigned tokens, unsigned heads, unsigned keyHeads, unsigned size, unsigned capacity, unsigned keyLength, unsigned window, unsigned first, unsigned range, unsigned parts, float scale, unsigned sloped) {
  __shared__ __align__(16) float queries[SIZE * ROWS];           // [column][row]
  __shared__ __align__(16) float pool[THREADS * 8 + DEPTH];      // keys [column][key], then shares of scores, in the end of results
  __shared__ __align__(16) float weights[KEYS * ROWS];           // [key][row]
  __shared__ float tops[ROWS], sums[ROWS], factors[ROWS];
  static_assert(DEPTH * STRIDE <= THREADS * 8 + DEPTH && KEYS * SHARES * ROWS <= THREADS * 8, "fits");

  unsigned t = threadIdx.x, sharing = heads / keyHeads, rows = tokens * sharing; // rows of a key head
  unsigned blocks = (rows + ROWS - 1) / ROWS;
  unsigned part = blockIdx.x % parts, firstRow = blockIdx.x / parts % blocks * ROWS;
  unsigned batch = blockIdx.x / parts / blocks / keyHeads, keyHead = blockIdx.x / parts / blocks % keyHeads;
  unsigned keyStride = keyHeads * size;
  size_t keyAt = (size_t)batch * capacity * keyStride + keyHead * size;
  unsigned begin = first + part * range, end = min(keyLength, begin + range);

  for (unsigned e = t; e < SIZE * ROWS; e += THREADS) {
    unsigned row = firstRow + e / SIZE, column = e % SIZE;
    size_t at = ((size_t)(batch * tokens + row / sharing) * heads + keyHead * sharing + row % sharing) * size + column;
    queries[column * ROWS + e / SIZE] = row < rows && column < size ? q[at] : 0.0f;
  }
  if (t < ROWS) {
    tops[t] = UNSEEN;
    sums[t] = 0.0f;
  }

  float result[ROWS] = {};
  for (unsigned start = begin; start < end; start += KEYS) {
    float scores[ROWS] = {};
    for (unsigned from = 0; from < size; from += DEPTH) {
      __syncthreads();
#pragma unroll
      for (int j = 0; j < DEPTH * KEYS / THREADS; j++) {
        unsigned e = j * THREADS + t;
        unsigned column = from + e % DEPTH, key = start + e / DEPTH;
        bool there = column < size && key < end;
        pool[e % DEPTH * STRIDE + e / DEPTH] = there ? k[keyAt + (size_t)key * keyStride + column] : 0.0f;
      }
      __syncthreads();
#pragma unroll
      for (int j = 0; j < DEPTH / SHARES; j++) {
        unsigned i = j * SHARES + t / KEYS;
        float own = pool[i * STRIDE + t % KEYS];
        for (int r = 0; r < ROWS; r++) scores[r] += queries[(from + i) * ROWS + r] * own;
      }
    }
    __syncthreads();
    for (int r = 0; r < ROWS; r++) pool[t * ROWS + r] = scores[r];
    __syncthreads();

    unsigned own = t / 32, lane = t % 32; // a warp does the softmax of a row
    if (own < ROWS) {
      unsigned row = firstRow + own, position = keyLength - tokens + row / sharing;
      float slope = sloped && row < rows ? slopes[keyHead * sharing + row % sharing] : 0.0f;
      float found[2], top = tops[own], sum = 0.0f;
      for (int half = 0; half < 2; half++) {
        unsigned key = start + lane + 32 * half;
        float product = 0.0f;
        for (int share = 0; share < SHARES; share++) product += pool[(share * KEYS + lane + 32 * half) * ROWS + own];
        bool seen = key < end && key <= position && key + window > position;
        found[half] = seen ? product * scale + slope * (float)((int)key - (int)position) : UNSEEN;
        top = fmaxf(top, found[half]);
      }
      top = warpMax(top);
      for (int half = 0; half < 2; half++) {
        float weight = found[half] == UNSEEN ? 0.0f : expf(found[half] - top);
        weights[(lane + 32 * half) * ROWS + own] = weight;
        sum += weight;
      }
      sum = warpSum(sum);
      if (lane == 0) {
        factors[own] = expf(tops[own] - top);
        sums[own] = sums[own] * factors[own] + sum;
        tops[own] = top;
      }
    }
    __syncthreads();

    unsigned column = t % SIZE, count = min(end - start, (unsigned)KEYS);
    for (int r = 0; r < ROWS; r++) result[r] *= factors[r];
    if (column < size) {
#pragma unroll 8
      for (unsigned key = t / SIZE; key < count; key += SPLITS) {
        float value = v[keyAt + (size_t)(start + key) * keyStride + column];
        for (int r = 0; r < ROWS; r++) result[r] += weights[key * ROWS + r] * value;
      }
    }
  }

  __syncthreads();
  for (int r = 0; r < ROWS; r++) pool[r * THREADS + t] = result[r];
  __syncthreads();
  for (unsigned e = t; e < SIZE * ROWS; e += THREADS) {
    unsigned r = e / SIZE, row = firstRow + r, column = e % SIZE;
    if (row >= rows || column >= size) continue;
    float sum = 0.0f;
    for (int split = 0; split < SPLITS; split++) sum += pool[r * THREADS + split * SIZE + column];
    size_t all = (size_t)gridDim.x / (parts * blocks * keyHeads) * tokens * heads;
    size_t at = (size_t)(batch * tokens + row / sharing) * heads + keyHead * sharing + row % sharing;
    y[(part * all + at) * size + column] = parts == 1 ? sum / sums[r] : sum;
    if (column > 0) continue;
    stats[(part * all + at) * 2] = tops[r];
    stats[(part * all + at) * 2 + 1] = sums[r];
  }
}

//# joinParts: [parts, rows, d] -> [rows, d]; 256 elements a group
extern "C" __global__ void joinParts(const float* sums, const float* stats, float* y, unsigned rows, unsigned size, unsigned parts) {
  unsigned i = blockIdx.x * THREADS + threadIdx.x;
  if (i >= rows * size) return;
  unsigned row = i / size;
  float top = stats[row * 2];
  for (unsigned part = 1; part < parts; part++) top = fmaxf(top, stats[((size_t)part * rows + row) * 2]);
  float total = 0.0f, sum = 0.0f;
  for (unsigned part = 0; part < parts; part++) {
    size_t at = (size_t)part * rows + row;
    float factor = expf(stats[at * 2] - top); // sum and total of a part without keys are 0
    total += factor * stats[at * 2 + 1];
    sum += factor * sums[(size_t)part * rows * size + i];
  }
  y[i] = sum / total;
}

//# sumHeads: [rows, H, d] -> [rows, K, d] of two tensors, always in the same order; 256 elements a group
extern "C" __global__ void sumHeads(const float* a, const float* b, float* y, float* z, unsigned count, unsigned size, unsigned sharing) {
  unsigned i = blockIdx.x * THREADS + threadIdx.x;
  if (i >= count) return;
  size_t at = (size_t)(i / size) * sharing * size + i % size;
  float sum = 0.0f, other = 0.0f;
  for (unsigned head = 0; head < sharing; head++) {
    sum += a[at + (size_t)head * size];
    other += b[at + (size_t)head * size];
  }
  y[i] = sum;
  z[i] = other;
}
