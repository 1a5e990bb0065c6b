
//# mirror
// Copies the lower triangle of a [n, n] over the upper.
extern "C" __global__ void mirror(float* a, unsigned n) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, n * n); i += THREADS) {
    unsigned row = i / n, column = i % n;
    if (column > row) a[i] = a[(size_t)column * n + row];
  }
}

//# halves
// f32 to f16, 1024 elements a group; a finite number that f16 cannot hold is noted.
extern "C" __global__ void halves(const float* x, unsigned short* y, int* overflow, unsigned size) {
  unsigned begin = blockIdx.x * 1024;
  if (begin + 1024 <= size && (unsigned long long)x % 16 == 0) {
    unsigned i = begin + threadIdx.x * 4;
    float4 v = *(const float4*)(x + i);
    unsigned h0, h1;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(h0) : "f"(v.y), "f"(v.x));
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(h1) : "f"(v.w), "f"(v.z));
    *(uint2*)(y + i) = make_uint2(h0, h1);
    float most = fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
    if (most >= 65520.0f && most < __int_as_float(0x7f800000)) *overflow = 1;
    return;
  }
  for (unsigned i = begin + threadIdx.x; i < min(begin + 1024, size); i += THREADS) {
    float v = x[i];
    unsigned short h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(v));
    y[i] = h;
    if (fabsf(v) >= 65520.0f && fabsf(v) < __int_as_float(0x7f800000)) *overflow = 1;
  }
}
