// Conversions; f32 comes and goes by its bits. 1024 elements a group. KIND of 16 bits: 0 f16, 1 bf16, 2 u16.

__device__ inline unsigned bfloatOfBits(unsigned bits) {
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (bits >> 16) | 0x40u;  // a NaN must not round to infinity
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

/** f32 by its bits, truncated and saturated; 0 of NaN. */
__device__ inline int wholeOfBits(unsigned bits) {
  return (bits & 0x7fffffffu) > 0x7f800000u ? 0 : __float2int_rz(__uint_as_float(bits));
}

//# castFrom16
extern "C" __global__ void castFrom16(const unsigned short* a, unsigned* y, unsigned size) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, size); i += THREADS) {
    unsigned element = a[i];
    y[i] = KIND == 0 ? bitsOfHalf(element) : KIND == 1 ? element << 16 : __float_as_uint((float)element);
  }
}

//# castFrom8
extern "C" __global__ void castFrom8(const unsigned char* a, unsigned* y, unsigned size) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, size); i += THREADS) {
    y[i] = __float_as_uint((float)a[i]);
  }
}

//# castFromI32
extern "C" __global__ void castFromI32(const int* a, unsigned* y, unsigned size) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, size); i += THREADS) {
    y[i] = __float_as_uint(__int2float_rn(a[i]));
  }
}

//# castTo16
extern "C" __global__ void castTo16(const unsigned* a, unsigned short* y, unsigned size) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, size); i += THREADS) {
    unsigned bits = a[i];
    y[i] = KIND == 0 ? halfOfBits(bits) : KIND == 1 ? bfloatOfBits(bits) : min(max(wholeOfBits(bits), 0), 65535);
  }
}

//# castTo8
extern "C" __global__ void castTo8(const unsigned* a, unsigned char* y, unsigned size) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, size); i += THREADS) {
    y[i] = min(max(wholeOfBits(a[i]), 0), 255);
  }
}

//# castToI32
extern "C" __global__ void castToI32(const unsigned* a, int* y, unsigned size) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, size); i += THREADS) {
    y[i] = wholeOfBits(a[i]);
  }
}
