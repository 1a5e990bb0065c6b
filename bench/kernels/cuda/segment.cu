// Weighted sums by segments; sums [segments, length + 1] in f64, declared as f32 of twice the width, zeros before.

//# segmentAtomics
// Each product goes to its sum by an atomic addition: in another order, and so with other last bits, in each run.
extern "C" __global__ void segmentAtomics(const float* vectors, const float* weights, const int* indices, float* sums,
                                          unsigned count, unsigned length) {
  size_t id = (size_t)blockIdx.x * THREADS + threadIdx.x;
  if (id >= (size_t)count * (length + 1)) return;
  unsigned i = id / (length + 1), k = id % (length + 1);
  double value = k < length ? (double)weights[i] * vectors[(size_t)i * length + k] : (double)weights[i];
  atomicAdd((double*)sums + (size_t)indices[i] * (length + 1) + k, value);
}

//# segmentNarrow
extern "C" __global__ void segmentNarrow(const float* sums, float* y, float* totals, unsigned segments, unsigned length) {
  unsigned id = blockIdx.x * THREADS + threadIdx.x;
  if (id >= segments * (length + 1)) return;
  unsigned k = id % (length + 1), segment = id / (length + 1);
  float sum = (float)((const double*)sums)[id];
  if (k < length) y[(size_t)segment * length + k] = sum;
  else totals[segment] = sum;
}
