// 1024 elements a group. kept = 1 - rate decay, rate and inverse2 with the corrections of the moments in them.

//# adamwStep
extern "C" __global__ void adamwStep(const float* gradient, float* parameter, float* first, float* second, unsigned size, float beta1,
                                     float rest1, float beta2, float rest2, float kept, float rate, float inverse2, float epsilon) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  auto load = [&](unsigned i) { return make_float4(gradient[i], first[i], second[i], parameter[i]); };
  inBatches<4>(begin, min(begin + 1024, size), THREADS, load, [&](float4 own, unsigned i) {
    float g = own.x;
    float m = beta1 * own.y + rest1 * g;
    float v = beta2 * own.z + rest2 * g * g;
    first[i] = m;
    second[i] = v;
    parameter[i] = own.w * kept - rate * m / (sqrtf(v * inverse2) + epsilon);
  });
}
