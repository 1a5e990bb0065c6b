// Walsh-Hadamard transform: for each bit of the index, (a, b) -> (a + b, a - b).

/** Of the lowest `bits` bits of the index of 16 values, of all four where `bits` is more. */
__device__ inline void butterflies(float (&v)[16], int bits) {
#pragma unroll
  for (int b = 0; b < 4; b++) {
    if (b >= bits) break;
#pragma unroll
    for (unsigned pair = 0; pair < 8; pair++) {
      unsigned low = (pair >> b << (b + 1)) | (pair & ((1u << b) - 1));
      unsigned high = low | (1u << b);
      float first = v[low], second = v[high];
      v[low] = first + second;
      v[high] = first - second;
    }
  }
}

//# hadamard: rows of 2^bits elements, one after the other; 4096 elements a group, or one longer row
// Bits 8..13 of the index in registers, 16 to 64 values a thread, 256 apart; bits 4..7 and 0..3 of 4096 elements at a time through
// shared memory.
constexpr unsigned CHUNK = 16 * THREADS;

/** Where an element of a chunk lies: 32 threads meet 32 banks in steps of 1, 16 and 256. */
__device__ inline unsigned placeOf(unsigned i) {
  return i ^ (i >> 4 & 15) ^ (i >> 4 & 16);
}

extern "C" __global__ void hadamard(const float* x, float* y, unsigned size, unsigned bits, float factor) {
  __shared__ float chunk[CHUNK];
  unsigned t = threadIdx.x;
  unsigned begin = blockIdx.x * (PARTS * CHUNK) + t;
  float values[PARTS][16];
#pragma unroll
  for (unsigned part = 0; part < PARTS; part++) {
#pragma unroll
    for (unsigned k = 0; k < 16; k++) {
      unsigned i = begin + part * CHUNK + k * THREADS;
      values[part][k] = i < size ? x[i] * factor : 0.0f;
    }
    butterflies(values[part], (int)bits - 8);
  }
#pragma unroll
  for (unsigned step = 1; step < PARTS; step *= 2)
#pragma unroll
    for (unsigned part = 0; part < PARTS; part++) {
      if (part & step) continue;
#pragma unroll
      for (unsigned k = 0; k < 16; k++) {
        float first = values[part][k], second = values[part + step][k];
        values[part][k] = first + second;
        values[part + step][k] = first - second;
      }
    }
  // 16 values in steps of 16 and of 1
  unsigned far = t / 16 * 256 + t % 16, near = t * 16;
#pragma unroll
  for (unsigned part = 0; part < PARTS; part++) {
    float v[16];
#pragma unroll
    for (unsigned k = 0; k < 16; k++) chunk[placeOf(t + k * THREADS)] = values[part][k];
    __syncthreads();
    if (bits > 4) {
#pragma unroll
      for (unsigned k = 0; k < 16; k++) v[k] = chunk[placeOf(far + 16 * k)];
      butterflies(v, (int)bits - 4);
#pragma unroll
      for (unsigned k = 0; k < 16; k++) chunk[placeOf(far + 16 * k)] = v[k];
      __syncthreads();
    }
#pragma unroll
    for (unsigned k = 0; k < 16; k++) v[k] = chunk[placeOf(near + k)];
    butterflies(v, (int)bits);
#pragma unroll
    for (unsigned k = 0; k < 16; k++) chunk[placeOf(near + k)] = v[k];
    __syncthreads();
#pragma unroll
    for (unsigned k = 0; k < 16; k++) {
      unsigned i = begin + part * CHUNK + k * THREADS;
      if (i < size) y[i] = chunk[placeOf(t + k * THREADS)];
    }
    __syncthreads();
  }
}

//# hadamardAcross: 1 to 4 bits of the index, in place: 2^bits values a thread, `stride` apart
extern "C" __global__ void hadamardAcross(float* y, unsigned columns, unsigned stride, unsigned bits) {
  unsigned column = blockIdx.x * THREADS + threadIdx.x;
  if (column >= columns) return;
  y += (size_t)(column / stride) * (stride << bits) + column % stride;
  float v[16];
#pragma unroll
  for (unsigned k = 0; k < 16; k++) v[k] = k < 1u << bits ? y[(size_t)k * stride] : 0.0f;
  butterflies(v, (int)bits);
#pragma unroll
  for (unsigned k = 0; k < 16; k++)
    if (k < 1u << bits) y[(size_t)k * stride] = v[k];
}
