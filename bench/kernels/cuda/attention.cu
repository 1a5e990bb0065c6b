// Causal attention of [tokens, heads, size], SIZE >= size a multiple of 32; keys and values [tokens, keyHeads, size].

//# attendWarps
// A warp a query with a running maximum and sum; it reads every key and value that it sees itself. Queries that stand next to
// each other share a group, so that caches serve some of it.
extern "C" __global__ void attendWarps(const float* q, const float* k, const float* v, float* y, unsigned tokens,
                                       unsigned heads, unsigned keyHeads, unsigned size, float scale) {
  unsigned lane = threadIdx.x % 32, blocks = (tokens + 7) / 8;
  unsigned head = blockIdx.x / blocks, t = blockIdx.x % blocks * 8 + threadIdx.x / 32;
  if (t >= tokens) return;
  unsigned keyHead = head / (heads / keyHeads);
  size_t own = ((size_t)t * heads + head) * size;
  float query[SIZE / 32], mixed[SIZE / 32] = {};
#pragma unroll
  for (unsigned p = 0; p < SIZE / 32; p++) query[p] = p * 32 + lane < size ? q[own + p * 32 + lane] * scale : 0.0f;
  float largest = -3.4028234e38f, total = 0.0f;
  for (unsigned s = 0; s <= t; s++) {
    size_t at = ((size_t)s * keyHeads + keyHead) * size;
    float score = 0.0f;
#pragma unroll
    for (unsigned p = 0; p < SIZE / 32; p++)
      if (p * 32 + lane < size) score += query[p] * k[at + p * 32 + lane];
    score = warpSum(score);
    float above = fmaxf(largest, score);
    float kept = expf(largest - above), weight = expf(score - above);
    total = total * kept + weight;
#pragma unroll
    for (unsigned p = 0; p < SIZE / 32; p++) {
      float value = p * 32 + lane < size ? v[at + p * 32 + lane] : 0.0f;
      mixed[p] = mixed[p] * kept + weight * value;
    }
    largest = above;
  }
#pragma unroll
  for (unsigned p = 0; p < SIZE / 32; p++)
    if (p * 32 + lane < size) y[own + p * 32 + lane] = mixed[p] / total;
}
