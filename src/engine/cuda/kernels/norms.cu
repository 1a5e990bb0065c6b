// Norms over the last axis, their gradients, and the rotary embedding. LANES threads share a row: a warp, or the whole group.

// Squares are summed twice, the second time of numbers times FAR: those above 1e18 would overflow.
constexpr float FAR = 0x1p-80f;

/** 1 / sqrt(squares / width - rest^2 + epsilon). */
__device__ inline float inverseSize(float squares, float far, float rest, float width, float epsilon) {
  if (far > 1e-12f) return FAR / sqrtf(far / width - rest * FAR * (rest * FAR)); // beside 1e36 no epsilon counts
  return 1.0f / sqrtf(squares / width - rest * rest + epsilon);
}

struct Moments {
  /** The mean is their sum: what rounding took from the first is in the second. */
  float mean, rest;
  /** 1 / sqrt(variance + epsilon). */
  float inverse;
};

__device__ inline Moments rowMoments(const float* x, unsigned lane, unsigned lanes, unsigned width, float epsilon) {
  float sum = 0.0f;
  for (unsigned i = lane; i < width; i += lanes) sum += x[i];
  float mean = laneSum(sum, lanes) / width;
  float rest = 0.0f, squares = 0.0f, far = 0.0f;
  for (unsigned i = lane; i < width; i += lanes) {
    float apart = x[i] - mean;
    rest += apart;
    squares += apart * apart;
    far += apart * FAR * (apart * FAR);
  }
  rest = laneSum(rest, lanes) / width;
  squares = laneSum(squares, lanes);
  far = laneSum(far, lanes);
  return {mean, rest, inverseSize(squares, far, rest, width, epsilon)};
}

//# rmsNorm
extern "C" __global__ void rmsNorm(const float* x, const float* weight, float* y, unsigned rows, unsigned width, float epsilon) {
  unsigned row = blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES, lane = threadIdx.x % LANES;
  if (row >= rows) return; // a warp as one
  x += (size_t)row * width;
  y += (size_t)row * width;
  float squares = 0.0f, far = 0.0f;
  for (unsigned i = lane; i < width; i += LANES) {
    squares += x[i] * x[i];
    far += x[i] * FAR * (x[i] * FAR);
  }
  squares = laneSum(squares, LANES);
  float inverse = inverseSize(squares, laneSum(far, LANES), 0.0f, width, epsilon);
  for (unsigned i = lane; i < width; i += LANES) y[i] = x[i] * inverse * weight[i];
}

//# layerNorm
extern "C" __global__ void layerNorm(const float* x, const float* weight, const float* bias, float* y, unsigned rows, unsigned width, float epsilon) {
  unsigned row = blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES, lane = threadIdx.x % LANES;
  if (row >= rows) return;
  x += (size_t)row * width;
  y += (size_t)row * width;
  Moments moments = rowMoments(x, lane, LANES, width, epsilon);
  for (unsigned i = lane; i < width; i += LANES)
    y[i] = (x[i] - moments.mean - moments.rest) * moments.inverse * weight[i] + bias[i];
}

//# rmsNormGrad
extern "C" __global__ void rmsNormGrad(const float* x, const float* weight, const float* grad, float* y, float* inverses, unsigned rows, unsigned width, float epsilon) {
  unsigned row = blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES, lane = threadIdx.x % LANES;
  if (row >= rows) return;
  x += (size_t)row * width;
  grad += (size_t)row * width;
  y += (size_t)row * width;
  float squares = 0.0f, far = 0.0f, along = 0.0f; // the gradient of x / size, along x
  for (unsigned i = lane; i < width; i += LANES) {
    squares += x[i] * x[i];
    far += x[i] * FAR * (x[i] * FAR);
    along += grad[i] * weight[i] * x[i];
  }
  squares = laneSum(squares, LANES);
  float inverse = inverseSize(squares, laneSum(far, LANES), 0.0f, width, epsilon);
  float back = laneSum(along, LANES) * inverse * inverse / width;
  for (unsigned i = lane; i < width; i += LANES) y[i] = (grad[i] * weight[i] - x[i] * back) * inverse;
  if (lane == 0) inverses[row] = inverse;
}

//# layerNormGrad
extern "C" __global__ void layerNormGrad(const float* x, const float* weight, const float* grad, float* y, float* moments, unsigned rows, unsigned width, float epsilon) {
  unsigned row = blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES, lane = threadIdx.x % LANES;
  if (row >= rows) return;
  x += (size_t)row * width;
  grad += (size_t)row * width;
  y += (size_t)row * width;
  Moments own = rowMoments(x, lane, LANES, width, epsilon);
  float total = 0.0f, along = 0.0f; // of the gradient of the normalized row, and along it
  for (unsigned i = lane; i < width; i += LANES) {
    float given = grad[i] * weight[i];
    total += given;
    along += given * ((x[i] - own.mean - own.rest) * own.inverse);
  }
  total = laneSum(total, LANES) / width;
  along = laneSum(along, LANES) / width;
  for (unsigned i = lane; i < width; i += LANES) {
    float normalized = (x[i] - own.mean - own.rest) * own.inverse;
    y[i] = (grad[i] * weight[i] - total - normalized * along) * own.inverse;
  }
  if (lane == 0) {
    moments[2 * row] = own.mean + own.rest;
    moments[2 * row + 1] = own.inverse;
  }
}

//# rmsWeightGrad: [slabs, width], a column a thread
extern "C" __global__ void rmsWeightGrad(const float* x, const float* grad, const float* inverses, float* sums, unsigned rows, unsigned width, unsigned slab) {
  unsigned blocks = (width + THREADS - 1) / THREADS;
  unsigned place = blockIdx.x / blocks, column = blockIdx.x % blocks * THREADS + threadIdx.x;
  if (column >= width) return;
  float sum = 0.0f;
#pragma unroll 4
  for (unsigned row = place * slab; row < min((place + 1) * slab, rows); row++) {
    size_t at = (size_t)row * width + column;
    sum += grad[at] * x[at] * inverses[row];
  }
  sums[(size_t)place * width + column] = sum;
}

//# layerWeightGrad
extern "C" __global__ void layerWeightGrad(const float* x, const float* grad, const float* moments, float* sums, float* biasSums, unsigned rows, unsigned width, unsigned slab) {
  unsigned blocks = (width + THREADS - 1) / THREADS;
  unsigned place = blockIdx.x / blocks, column = blockIdx.x % blocks * THREADS + threadIdx.x;
  if (column >= width) return;
  float sum = 0.0f, biasSum = 0.0f;
#pragma unroll 4
  for (unsigned row = place * slab; row < min((place + 1) * slab, rows); row++) {
    size_t at = (size_t)row * width + column;
    sum += grad[at] * ((x[at] - moments[2 * row]) * moments[2 * row + 1]);
    biasSum += grad[at];
  }
  sums[(size_t)place * width + column] = sum;
  biasSums[(size_t)place * width + column] = biasSum;
}

//# sumSlabs: 32 columns a group, each by 8 threads
extern "C" __global__ void sumSlabs(const float* sums, float* y, unsigned slabs, unsigned width) {
  __shared__ float parts[THREADS];
  unsigned column = blockIdx.x * 32 + threadIdx.x % 32;
  float sum = 0.0f;
  if (column < width)
    for (unsigned place = threadIdx.x / 32; place < slabs; place += 8) sum += sums[(size_t)place * width + column];
  parts[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x >= 32 || column >= width) return;
  for (unsigned part = 1; part < 8; part++) sum += parts[part * 32 + threadIdx.x];
  y[column] = sum;
}

//# rope: 1024 elements a group
extern "C" __global__ void rope(const float* x, const float* cos, const float* sin, float* y, unsigned size, unsigned tokens, unsigned heads, unsigned width, unsigned pairs, unsigned start) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  // an element, the other of its pair, and the angle's cosine and sine
  auto load = [&](unsigned i) {
    unsigned row = i / width, place = i % width; // row of [B, T, H]
    if (place >= 2 * pairs) return make_float4(x[i], 0.0f, 1.0f, 0.0f);
    unsigned angle = (start + row / heads % tokens) * pairs + (place < pairs ? place : place - pairs);
    return make_float4(x[i], x[place < pairs ? i + pairs : i - pairs], cos[angle], sin[angle]);
  };
  inBatches<4>(begin, min(begin + 1024, size), THREADS, load, [&](float4 own, unsigned i) {
    unsigned place = i % width;
    if (place >= 2 * pairs) y[i] = own.x;
    else y[i] = place < pairs ? own.x * own.z - own.y * own.w : own.x * own.z + own.y * own.w;
  });
}
