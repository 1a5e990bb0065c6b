//# hadamardBit
// One bit of the index, in place: y passes through memory once for each.
extern "C" __global__ void hadamardBit(float* y, unsigned pairs, unsigned bit, float factor) {
  unsigned pair = blockIdx.x * THREADS + threadIdx.x;
  if (pair >= pairs) return;
  unsigned low = (pair >> bit << (bit + 1)) | (pair & ((1u << bit) - 1)), high = low | (1u << bit);
  float first = y[low] * factor, second = y[high] * factor;
  y[low] = first + second;
  y[high] = first - second;
}
