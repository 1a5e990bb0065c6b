// Four numbers a load and a store, where all operands lie at multiples of 16 bytes.

//# addFours
extern "C" __global__ void addFours(const float* a, const float* b, float* y, unsigned size) {
  unsigned i = (blockIdx.x * THREADS + threadIdx.x) * 4;
  if (i + 4 <= size) {
    float4 left = *(const float4*)(a + i), right = *(const float4*)(b + i);
    *(float4*)(y + i) = make_float4(left.x + right.x, left.y + right.y, left.z + right.z, left.w + right.w);
  } else
    for (; i < size; i++) y[i] = a[i] + b[i];
}

//# siluMultiplyFours
__device__ inline float siluOf(float g) {
  return g / (1.0f + expf(-g));
}

extern "C" __global__ void siluMultiplyFours(const float* gate, const float* up, float* y, unsigned size) {
  unsigned i = (blockIdx.x * THREADS + threadIdx.x) * 4;
  if (i + 4 <= size) {
    float4 g = *(const float4*)(gate + i), u = *(const float4*)(up + i);
    *(float4*)(y + i) = make_float4(siluOf(g.x) * u.x, siluOf(g.y) * u.y, siluOf(g.z) * u.z, siluOf(g.w) * u.w);
  } else
    for (; i < size; i++) y[i] = siluOf(gate[i]) * up[i];
}
