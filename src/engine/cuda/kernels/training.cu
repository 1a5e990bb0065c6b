// 1024 elements a group. kept = 1 - rate decay, rate and inverse2 with the corrections of the moments in them.

//# adamwStep
extern "C" __global__ void adamwStep(const float* gradient, float* parameter, float* first, float* second, unsigned size, float beta1,
                                     float rest1, float beta2, float rest2, float kept, float rate, float inverse2, float epsilon) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, size); i += THREADS) {
    float g = gradient[i];
    float m = beta1 * first[i] + rest1 * g;
    float v = beta2 * second[i] + rest2 * g * g;
    first[i] = m;
    second[i] = v;
    parameter[i] = parameter[i] * kept - rate * m / (sqrtf(v * inverse2) + epsilon);
  }
}
