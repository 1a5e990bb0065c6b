// Losses of rows of logits, a row a group. `check` is the number of the fault for a target outside.

#define LOWEST (-3.4028234e38f)

//# crossEntropy
extern "C" __global__ void crossEntropy(const float* logits, const int* targets, float* y, int* fault, unsigned width, int check) {
  const float* row = logits + (size_t)blockIdx.x * width;
  float top = LOWEST;
  double sum = 0.0;
  for (unsigned i = threadIdx.x; i < width; i += THREADS) {
    float x = row[i];
    if (x > top) {
      sum = sum * expf(top - x) + 1.0;
      top = x;
    } else {
      sum += expf(x - top);
    }
  }
  float highest = groupMax(top);
  double total = groupSum(sum * expf(top - highest));
  if (threadIdx.x > 0) return;
  int chosen = targets[blockIdx.x];
  if (chosen < 0 || chosen >= (int)width) {
    noteFault(fault, check, chosen, (int)blockIdx.x);
    y[blockIdx.x] = 0.0f;
  } else {
    y[blockIdx.x] = (float)(log(total) + ((double)highest - row[chosen]));
  }
}

//# klDivergence
extern "C" __global__ void klDivergence(const float* reference, const float* logits, float* y, unsigned width) {
  const float* p = reference + (size_t)blockIdx.x * width;
  const float* q = logits + (size_t)blockIdx.x * width;
  float largestP = LOWEST;
  float largestQ = LOWEST;
  for (unsigned i = threadIdx.x; i < width; i += THREADS) {
    largestP = fmaxf(largestP, p[i]);
    largestQ = fmaxf(largestQ, q[i]);
  }
  float topP = groupMax(largestP);
  float topQ = groupMax(largestQ);
  // Of the terms p (log p - log q), what does not hang on the sums: weighted by p' = p totalP. The differences to the tops are
  // exact where they count.
  double sumP = 0.0;
  double sumQ = 0.0;
  double sum = 0.0;
  for (unsigned i = threadIdx.x; i < width; i += THREADS) {
    float x = p[i] - topP;
    float z = q[i] - topQ;
    float weight = expf(x);
    sumP += weight;
    sumQ += expf(z);
    sum += (double)(weight * (x - z));
  }
  double totalP = groupSum(sumP);
  double totalQ = groupSum(sumQ);
  double total = groupSum(sum);
  if (threadIdx.x == 0) {
    double divergence = total / totalP + log(totalQ / totalP);
    y[blockIdx.x] = divergence < 0.0 ? 0.0f : (float)divergence;  // NaN stays
  }
}
