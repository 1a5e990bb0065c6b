// Diagonals of [N, N]: `count` elements, `step` apart.

//# diagonal
extern "C" __global__ void diagonal(const float* a, float* y, unsigned count, unsigned step) {
  unsigned i = blockIdx.x * THREADS + threadIdx.x;
  if (i < count) y[i] = a[i * step];
}

//# addDiagonal
extern "C" __global__ void addDiagonal(float* a, unsigned count, unsigned step, float value) {
  unsigned i = blockIdx.x * THREADS + threadIdx.x;
  if (i < count) a[i * step] += value;
}
