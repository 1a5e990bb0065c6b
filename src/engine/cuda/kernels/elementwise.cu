// Elementwise operations: 1024 elements a group.

//# add
extern "C" __global__ void add(const float* a, const float* b, float* y, unsigned size, unsigned repeat) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, size); i += THREADS) {
    y[i] = a[i] + b[repeat == size ? i : i % repeat];
  }
}

//# subtract
extern "C" __global__ void subtract(const float* a, const float* b, float* y, unsigned size, unsigned repeat) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, size); i += THREADS) {
    y[i] = a[i] - b[repeat == size ? i : i % repeat];
  }
}

//# multiply
extern "C" __global__ void multiply(const float* a, const float* b, float* y, unsigned size, unsigned repeat) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, size); i += THREADS) {
    y[i] = a[i] * b[repeat == size ? i : i % repeat];
  }
}

//# divide
extern "C" __global__ void divide(const float* a, const float* b, float* y, unsigned size, unsigned repeat) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, size); i += THREADS) {
    y[i] = a[i] / b[repeat == size ? i : i % repeat];
  }
}

//# expOf
extern "C" __global__ void expOf(const float* a, float* y, unsigned size) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, size); i += THREADS) {
    y[i] = expf(a[i]);
  }
}

//# relu
extern "C" __global__ void relu(const float* a, float* y, unsigned size) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, size); i += THREADS) {
    y[i] = a[i] > 0.0f ? a[i] : (a[i] != a[i] ? a[i] : 0.0f);
  }
}

//# gelu
extern "C" __global__ void gelu(const float* a, float* y, unsigned size) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, size); i += THREADS) {
    y[i] = a[i] * normcdff(a[i]);
  }
}

//# reluGrad
extern "C" __global__ void reluGrad(const float* a, const float* grad, float* y, unsigned size) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, size); i += THREADS) {
    y[i] = a[i] > 0.0f ? grad[i] : 0.0f;
  }
}

//# geluGrad
extern "C" __global__ void geluGrad(const float* a, const float* grad, float* y, unsigned size) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, size); i += THREADS) {
    float x = a[i];
    y[i] = grad[i] * (normcdff(x) + x * 0.398942280401432678f * expf(-0.5f * x * x));
  }
}

//# scale
extern "C" __global__ void scale(const float* a, float* y, unsigned size, float factor) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, size); i += THREADS) {
    y[i] = a[i] * factor;
  }
}

//# addInto
extern "C" __global__ void addInto(const float* a, float* y, unsigned size, float factor) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, size); i += THREADS) {
    y[i] += a[i] * factor;
  }
}

//# scaleRows
extern "C" __global__ void scaleRows(const float* a, const float* factors, float* y, unsigned size, unsigned width) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, size); i += THREADS) {
    y[i] = a[i] * factors[i / width];
  }
}

//# divideRows
extern "C" __global__ void divideRows(const float* a, const float* divisors, float* y, unsigned size, unsigned width) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, size); i += THREADS) {
    y[i] = a[i] / divisors[i / width];
  }
}

//# siluMultiply
extern "C" __global__ void siluMultiply(const float* gate, const float* up, float* y, unsigned size) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  auto load = [&](unsigned i) { return make_float2(gate[i], up[i]); };
  inBatches<4>(begin, min(begin + 1024, size), THREADS, load, [&](float2 own, unsigned i) {
    float g = own.x;
    y[i] = g / (1.0f + expf(-g)) * own.y;
  });
}

//# siluMultiplyGrad
extern "C" __global__ void siluMultiplyGrad(const float* gate, const float* up, const float* grad, float* gateGrad, float* upGrad, unsigned size) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  auto load = [&](unsigned i) { return make_float3(gate[i], up[i], grad[i]); };
  inBatches<4>(begin, min(begin + 1024, size), THREADS, load, [&](float3 own, unsigned i) {
    float g = own.x;
    float s = 1.0f / (1.0f + expf(-g));
    upGrad[i] = own.z * g * s;
    gateGrad[i] = own.z * own.y * s * (1.0f + g * (1.0f - s));
  });
}
