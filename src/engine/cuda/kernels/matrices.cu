// Diagonals of [N, N].

//# diagonal
extern "C" __global__ void diagonal(const float* a, float* y, unsigned side) {
  unsigned i = blockIdx.x * THREADS + threadIdx.x;
  if (i < side) y[i] = a[i * side + i];
}

//# addDiagonal
extern "C" __global__ void addDiagonal(float* a, unsigned side, float value) {
  unsigned i = blockIdx.x * THREADS + threadIdx.x;
  if (i < side) a[i * side + i] += value;
}
