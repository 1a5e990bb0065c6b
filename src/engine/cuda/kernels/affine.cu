// Affine grids of weights [I, O], one column of W a row, in any groups of columns, and the column sweep on them.
// In `marks`, i32 [I], a column has 2 * its group, + 1 where its grid is taken when the sweep comes to it.

//# affineFit
// 32 rows a group of threads, 8 threads for each. `members`: where the columns of each group begin, [groups + 1], and the columns.
extern "C" __global__ void affineFit(const float* weights, const int* members, float* scale, float* zero, unsigned rows,
                                     unsigned count, unsigned first, unsigned levels, unsigned symmetric) {
  __shared__ float highs[256], lows[256];
  unsigned slabs = (rows + 31) / 32;
  unsigned group = first + blockIdx.x / slabs;
  unsigned row = blockIdx.x % slabs * 32 + threadIdx.x % 32;
  unsigned begin = members[group], end = members[group + 1];
  float high = 0.0f, low = 0.0f;
  if (row < rows) {
    for (unsigned at = begin + threadIdx.x / 32; at < end; at += 8) {
      float x = weights[(unsigned)members[count + 1 + at] * rows + row];
      high = fmaxf(high, x);
      low = fminf(low, x);
    }
  }
  highs[threadIdx.x] = high;
  lows[threadIdx.x] = low;
  __syncthreads();
  if (threadIdx.x >= 32 || row >= rows) return;
  for (unsigned other = threadIdx.x + 32; other < 256; other += 32) {
    high = fmaxf(high, highs[other]);
    low = fminf(low, lows[other]);
  }
  float step = stepOf(high, low, (float)levels, symmetric);
  scale[group * rows + row] = step;
  zero[group * rows + row] = zeroOf(low, step, (float)levels, symmetric);
}

//# affineRound
// Weights to codes and to what these stand for, in place. 4 codes, a word, a thread: the codes are a tensor of their own and
// begin at a word.
extern "C" __global__ void affineRound(const int* marks, const float* scale, const float* zero, unsigned char* codes, float* y,
                                       unsigned size, unsigned rows, unsigned levels) {
  unsigned word = blockIdx.x * THREADS + threadIdx.x;
  if (word >= size / 4 + (size % 4 > 0)) return;
  unsigned column = 4 * word / rows;
  unsigned row = 4 * word % rows;
  unsigned packed = 0;
  for (unsigned at = 4 * word; at < min(size, 4 * word + 4); at++) {
    unsigned on = (unsigned)(marks[column] >> 1) * rows + row;
    float step = scale[on];
    float shift = zero[on];
    float code = clampTo(roundedRatio(y[at], step) + shift, (float)levels);
    y[at] = (code - shift) * step;
    packed |= (unsigned)code << (8 * (at % 4));
    if (++row == rows) {
      row = 0;
      column++;
    }
  }
  ((unsigned*)codes)[word] = packed;
}

//# affineSweepBlock
// Columns [begin, begin + count) for 32 rows, 8 threads for each: thread r + 32 l has columns l, l + 8, .. of the block for row r,
// alone, so that a column costs one barrier, between its error and the use of it. Leaves what the codes stand for in `y` and the
// errors for the columns behind the block. `feedback` is rows begin .. of it.
#define BLOCK 64

extern "C" __global__ void affineSweepBlock(const float* feedback, const int* marks, float* y, float* errors, float* scale,
                                            float* zero, unsigned columns, unsigned rows, unsigned begin, unsigned count,
                                            unsigned levels, unsigned symmetric) {
  __shared__ float tile[BLOCK][32];
  __shared__ float error[2][32];       // of this column and of the last
  __shared__ float factors[2][BLOCK];  // and the rows of the feedback of both
  __shared__ float highs[256], lows[256];
  unsigned t = threadIdx.x;
  unsigned own = t % 32, lane = t / 32;
  unsigned row = blockIdx.x * 32 + own;
  bool within = row < rows;
  float top = (float)levels;
  const float* square = feedback + begin;
  for (unsigned j = lane; j < count; j += 8) tile[j][own] = within ? y[(begin + j) * rows + row] : 0.0f;
  float ahead = t < count ? square[t] : 0.0f;  // the next row of the feedback, on its way while a column has its turn
  int known = -1;  // the group whose grid this thread has
  float step = 1.0f, shift = 0.0f;
  for (unsigned i = 0; i < count; i++) {
    int mark = marks[begin + i];
    int group = mark >> 1;
    unsigned on = (unsigned)group * rows + row;
    if (mark & 1) {
      float high = 0.0f, low = 0.0f;
      for (unsigned j = lane; j < count; j += 8)
        if (j >= i && marks[begin + j] >> 1 == group) {
          high = fmaxf(high, tile[j][own]);
          low = fminf(low, tile[j][own]);
        }
      highs[t] = high;
      lows[t] = low;
      __syncthreads();
      for (unsigned other = own; other < 256; other += 32) {
        high = fmaxf(high, highs[other]);
        low = fminf(low, lows[other]);
      }
      known = group;
      step = stepOf(high, low, top, symmetric);
      shift = zeroOf(low, step, top, symmetric);
      if (lane == 0 && within) {
        scale[on] = step;
        zero[on] = shift;
      }
    }
    unsigned turn = i % 2;
    if (i % 8 == lane) {
      if (known != group && within) {
        known = group;
        step = scale[on];
        shift = zero[on];
      }
      float x = tile[i][own];
      float decoded = __fmul_rn(clampTo(roundedRatio(x, step) + shift, top) - shift, step);
      error[turn][own] = x - decoded;
      if (within) {
        y[(begin + i) * rows + row] = decoded;
        errors[i * rows + row] = x - decoded;
      }
    }
    if (t < BLOCK) {
      factors[turn][t] = ahead;
      ahead = t < count && i + 1 < count ? square[(size_t)(i + 1) * columns + t] : 0.0f;
    }
    __syncthreads();  // also for grids that one thread has taken and another needs
    float paid = error[turn][own];
    // the first column of this thread behind i
    for (unsigned j = i + 1 + (lane + 7 - i % 8) % 8; j < count; j += 8) tile[j][own] -= paid * factors[turn][j];
  }
}

//# affineFeedback
// y[j, row] -= sum of errors[i, row] feedback[i, j] over i < count, for the columns j from `end` on: tiles of 128 columns by
// 128 rows, 8 x 8 of them a thread, which are two runs of 4 each way.
__device__ inline float4 fourOf(const float* from, unsigned left) {
  return {left > 0 ? from[0] : 0.0f, left > 1 ? from[1] : 0.0f, left > 2 ? from[2] : 0.0f, left > 3 ? from[3] : 0.0f};
}

extern "C" __global__ void affineFeedback(const float* feedback, const float* errors, float* y, unsigned columns, unsigned rows,
                                          unsigned count, unsigned end) {
  __shared__ float4 left[8][32], right[8][32];  // feedback, errors
  unsigned t = threadIdx.x;
  unsigned across = (rows + 127) / 128;
  unsigned column0 = end + blockIdx.x / across * 128;
  unsigned row0 = blockIdx.x % across * 128;
  unsigned mine = t / 16;  // which columns of the tile
  unsigned its = t % 16;   // which rows
  // what this thread loads of each step
  unsigned j = column0 + t % 32 * 4, r = row0 + t % 32 * 4;
  unsigned leftColumns = j < columns ? columns - j : 0, leftRows = r < rows ? rows - r : 0;
  float sums[8][8] = {};
  for (unsigned k0 = 0; k0 < count; k0 += 8) {
    unsigned i = k0 + t / 32;
    left[t / 32][t % 32] = fourOf(feedback + (size_t)i * columns + j, i < count ? leftColumns : 0);
    right[t / 32][t % 32] = fourOf(errors + (size_t)i * rows + r, i < count ? leftRows : 0);
    __syncthreads();
#pragma unroll
    for (unsigned k = 0; k < 8; k++) {
      float4 a0 = left[k][mine], a1 = left[k][16 + mine];
      float4 b0 = right[k][its], b1 = right[k][16 + its];
      float a[8] = {a0.x, a0.y, a0.z, a0.w, a1.x, a1.y, a1.z, a1.w};
      float b[8] = {b0.x, b0.y, b0.z, b0.w, b1.x, b1.y, b1.z, b1.w};
#pragma unroll
      for (unsigned p = 0; p < 8; p++)
#pragma unroll
        for (unsigned q = 0; q < 8; q++) sums[p][q] += a[p] * b[q];
    }
    __syncthreads();
  }
#pragma unroll
  for (unsigned p = 0; p < 8; p++) {
    unsigned column = column0 + p / 4 * 64 + mine * 4 + p % 4;
    if (column >= columns) continue;
#pragma unroll
    for (unsigned q = 0; q < 8; q++) {
      unsigned row = row0 + q / 4 * 64 + its * 4 + q % 4;
      if (row < rows) y[column * rows + row] -= sums[p][q];
    }
  }
}
