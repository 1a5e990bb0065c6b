// y [m, n] = a [m, k] b [n, k]^T, as a linear layer multiplies.

//# productPlain
// A thread an element: 16 x 16 of them a group. Each operand is read from memory (or a cache) for each product.
extern "C" __global__ void productPlain(const float* a, const float* b, float* y, unsigned m, unsigned n, unsigned k) {
  unsigned across = (n + 15) / 16;
  unsigned row = blockIdx.x / across * 16 + threadIdx.x / 16, column = blockIdx.x % across * 16 + threadIdx.x % 16;
  if (row >= m || column >= n) return;
  float sum = 0.0f;
  for (unsigned z = 0; z < k; z++) sum += a[(size_t)row * k + z] * b[(size_t)column * k + z];
  y[(size_t)row * n + column] = sum;
}

//# productTiles
// A tile of 64 x 64 a group, 4 x 4 a thread: 16 terms at a time lie in shared memory, where 64 products take each number, and 8
// numbers in registers serve 16 products.
extern "C" __global__ void productTiles(const float* a, const float* b, float* y, unsigned m, unsigned n, unsigned k) {
  __shared__ float left[16][65], right[16][65];  // a column to spare: they are written across
  unsigned across = (n + 63) / 64;
  unsigned row0 = blockIdx.x / across * 64, column0 = blockIdx.x % across * 64;
  unsigned t = threadIdx.x, row = t / 16 * 4, column = t % 16;
  float sums[4][4] = {};
  for (unsigned base = 0; base < k; base += 16) {
    for (unsigned e = t; e < 64 * 16; e += THREADS) {
      unsigned at = e / 16, z = base + e % 16;
      left[e % 16][at] = row0 + at < m && z < k ? a[(size_t)(row0 + at) * k + z] : 0.0f;
      right[e % 16][at] = column0 + at < n && z < k ? b[(size_t)(column0 + at) * k + z] : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (unsigned z = 0; z < 16; z++)
#pragma unroll
      for (unsigned i = 0; i < 4; i++)
#pragma unroll
        for (unsigned j = 0; j < 4; j++) sums[i][j] = fmaf(left[z][row + i], right[z][column + 16 * j], sums[i][j]);
    __syncthreads();
  }
  for (unsigned i = 0; i < 4; i++)
    for (unsigned j = 0; j < 4; j++) {
      unsigned r = row0 + row + i, c = column0 + column + 16 * j;
      if (r < m && c < n) y[(size_t)r * n + c] = sums[i][j];
    }
}
