// Products of the column sweeps.

//# slabProduct
// y [m, n] = (keep ? y : 0) + factor a^T b: a [k, m] with rows `stride` apart, b [k, n]. A group makes a tile of 64 x 64, a
// thread 4 x 4 of it. Sums of 64 terms are added up: as exact as a short sum.
extern "C" __global__ void slabProduct(const float* a, const float* b, float* y, unsigned m, unsigned n, unsigned k,
                                       unsigned stride, unsigned keep, float factor) {
  __shared__ float left[16][64], right[16][64];
  unsigned t = threadIdx.x, across = (n + 63) / 64;
  unsigned row0 = blockIdx.x / across * 64, column0 = blockIdx.x % across * 64;
  unsigned row = t / 16 * 4, column = t % 16;  // columns 16 apart: neighboring threads write neighboring elements
  float total[4][4] = {}, part[4][4] = {};
  for (unsigned base = 0; base < k; base += 16) {
    for (unsigned e = t; e < 16 * 64; e += THREADS) {
      unsigned z = base + e / 64, at = e % 64;
      left[e / 64][at] = z < k && row0 + at < m ? a[(size_t)z * stride + row0 + at] : 0.0f;
      right[e / 64][at] = z < k && column0 + at < n ? b[(size_t)z * n + column0 + at] : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (unsigned z = 0; z < 16; z++)
#pragma unroll
      for (unsigned i = 0; i < 4; i++)
#pragma unroll
        for (unsigned j = 0; j < 4; j++) part[i][j] = fmaf(left[z][row + i], right[z][column + 16 * j], part[i][j]);
    __syncthreads();
    if (base % 64 != 48 && base + 16 < k) continue;
#pragma unroll
    for (unsigned i = 0; i < 4; i++)
#pragma unroll
      for (unsigned j = 0; j < 4; j++) {
        total[i][j] += part[i][j];
        part[i][j] = 0.0f;
      }
  }
  for (unsigned i = 0; i < 4; i++)
    for (unsigned j = 0; j < 4; j++) {
      unsigned r = row0 + row + i, c = column0 + column + 16 * j;
      if (r >= m || c >= n) continue;
      size_t at = (size_t)r * n + c;
      y[at] = keep ? y[at] + factor * total[i][j] : factor * total[i][j];
    }
}
