//# rmsNormThreads
// A thread a row: neighboring threads read numbers a row apart, and there are only as many threads as rows.
extern "C" __global__ void rmsNormThreads(const float* x, const float* weight, float* y, unsigned rows, unsigned width,
                                          float epsilon) {
  unsigned row = blockIdx.x * THREADS + threadIdx.x;
  if (row >= rows) return;
  x += (size_t)row * width;
  y += (size_t)row * width;
  float squares = 0.0f;
  for (unsigned i = 0; i < width; i++) squares += x[i] * x[i];
  float inverse = 1.0f / sqrtf(squares / width + epsilon);
  for (unsigned i = 0; i < width; i++) y[i] = x[i] * inverse * weight[i];
}
