// Matrices of doubles [n, n]; the tensors that hold them are declared as f32 [n, 2n].

//# widenLower
// The lower triangle in f64, zeros above.
extern "C" __global__ void widenLower(const float* a, float* d, unsigned n) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, n * n); i += THREADS)
    ((double*)d)[i] = i % n <= i / n ? (double)a[i] : 0.0;
}

//# narrowLower
extern "C" __global__ void narrowLower(const float* d, float* a, unsigned n) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, n * n); i += THREADS)
    a[i] = i % n <= i / n ? (float)((const double*)d)[i] : 0.0f;
}

//# identity
// The identity in f64; a 0 on the diagonal of `lower` is noted.
extern "C" __global__ void identity(const float* lower, float* d, int* fault, unsigned n, int check) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, n * n); i += THREADS) {
    bool diagonal = i / n == i % n;
    ((double*)d)[i] = diagonal ? 1.0 : 0.0;
    if (diagonal && lower[i] == 0.0f) {
      fault[0] = check;
      fault[1] = 0;
      fault[2] = i / n;
    }
  }
}

//# choleskyBlock
// Factors the block [size, size] at (begin, begin) in place, a row a thread, in shared memory.
extern "C" __global__ void choleskyBlock(float* d, int* fault, unsigned n, unsigned begin, unsigned size, int check) {
  __shared__ double a[THREADS][THREADS + 1];
  double* from = (double*)d + (size_t)begin * n + begin;
  unsigned row = threadIdx.x;
  for (unsigned r = 0; r < size; r++)
    if (row < size) a[r][row] = from[(size_t)r * n + row];
  __syncthreads();
  bool failed = false;
  for (unsigned k = 0; k < size; k++) {
    double pivot = a[k][k];
    if (!(pivot > 0.0 && pivot < 1.0 / 0.0) && !failed) {
      failed = true;
      // the first pivot that failed is the one to name
      if (row == 0 && fault[0] != check) {
        fault[0] = check;
        fault[1] = __float_as_int((float)pivot);
        fault[2] = begin + k;
      }
    }
    double root = sqrt(pivot);
    __syncthreads();
    if (row == k) a[k][k] = root;
    if (row > k && row < size) a[row][k] /= root;
    __syncthreads();
    if (row > k && row < size) {
      double factor = a[row][k];
      for (unsigned j = k + 1; j <= row; j++) a[row][j] -= factor * a[j][k];
    }
    __syncthreads();
  }
  for (unsigned r = 0; r < size; r++)
    if (row <= r && row < size) from[(size_t)r * n + row] = a[r][row];
}
