// Sums by segments in a fixed order: vectors are sorted stably by segment (chunks of them counted, then placed), and the sorted
// runs are summed in order, a long run in pieces.

/** Of the 256 segments in shared memory: how many before this thread's are equal to it, and how many in all. */
__device__ inline void countEquals(const unsigned* segments, unsigned own, unsigned& before, unsigned& all) {
  before = all = 0;
#pragma unroll 8
  for (unsigned j = 0; j < THREADS; j++) {
    unsigned equal = segments[j] == own;
    all += equal;
    before += j < threadIdx.x ? equal : 0u;
  }
}

//# segmentCount
// counts [chunks][segments] (zeros before), a chunk a group.
extern "C" __global__ void segmentCount(const int* indices, unsigned* counts, int* fault, unsigned size, unsigned segments,
                                        unsigned chunk, int check) {
  __shared__ unsigned window[THREADS];
  unsigned* mine = counts + (size_t)blockIdx.x * segments;
  unsigned end = min(size, (blockIdx.x + 1) * chunk);
  for (unsigned base = blockIdx.x * chunk; base < end; base += THREADS) {
    unsigned i = base + threadIdx.x;
    int index = i < end ? indices[i] : -1;
    bool valid = index >= 0 && index < (int)segments;
    if (i < end && !valid) noteFault(fault, check, index, i);
    unsigned own = valid ? (unsigned)index : ~0u;
    window[threadIdx.x] = own;
    __syncthreads();
    unsigned before, all;
    countEquals(window, own, before, all);
    if (valid && before == 0) mine[own] += all;
    __syncthreads();
  }
}

//# segmentOffsets
// counts become, for each chunk, the number of a segment's vectors in the chunks before; totals [segments] all of them.
extern "C" __global__ void segmentOffsets(unsigned* counts, unsigned* totals, unsigned segments, unsigned chunks) {
  unsigned segment = blockIdx.x * THREADS + threadIdx.x;
  if (segment >= segments) return;
  unsigned sum = 0;
  for (unsigned chunk = 0; chunk < chunks; chunk++) {
    unsigned* at = counts + (size_t)chunk * segments + segment;
    unsigned count = *at;
    *at = sum;
    sum += count;
  }
  totals[segment] = sum;
}

//# segmentFirsts
// firsts [segments + 1]: sums of the totals before. One group; a thread has a run of segments.
extern "C" __global__ void segmentFirsts(const unsigned* totals, unsigned* firsts, unsigned segments) {
  __shared__ unsigned sums[THREADS];
  unsigned t = threadIdx.x, span = (segments + THREADS - 1) / THREADS;
  unsigned begin = min(segments, t * span), end = min(segments, begin + span);
  unsigned sum = 0;
  for (unsigned s = begin; s < end; s++) sum += totals[s];
  sums[t] = sum;
  __syncthreads();
  unsigned at = 0;
  for (unsigned j = 0; j < t; j++) at += sums[j];
  for (unsigned s = begin; s < end; s++) {
    firsts[s] = at;
    at += totals[s];
  }
  if (t == THREADS - 1) firsts[segments] = at;
}

//# segmentPlace
// order [size]: the vectors' positions, sorted stably by segment. counts as `segmentOffsets` left them; they are used up.
extern "C" __global__ void segmentPlace(const int* indices, const unsigned* firsts, unsigned* counts, unsigned* order,
                                        unsigned size, unsigned segments, unsigned chunk) {
  __shared__ unsigned window[THREADS];
  unsigned* mine = counts + (size_t)blockIdx.x * segments;
  unsigned end = min(size, (blockIdx.x + 1) * chunk);
  for (unsigned base = blockIdx.x * chunk; base < end; base += THREADS) {
    unsigned i = base + threadIdx.x;
    int index = i < end ? indices[i] : -1;
    bool valid = index >= 0 && index < (int)segments;
    unsigned own = valid ? (unsigned)index : ~0u;
    window[threadIdx.x] = own;
    __syncthreads();
    unsigned before, all, placed = valid ? mine[own] : 0u;
    countEquals(window, own, before, all);
    if (valid) order[firsts[own] + placed + before] = i;
    __syncthreads();  // every thread has read `mine`
    if (valid && before == 0) mine[own] = placed + all;
  }
}

//# segmentAdd
// Sums of weight times element, and of weights (element v), over a piece of a segment; f64, kept as two f32.
// partial [segments][pieces][v + 1][2].
extern "C" __global__ void segmentAdd(const float* vectors, const float* weights, const unsigned* firsts,
                                      const unsigned* order, float* partial, unsigned segments, unsigned pieces,
                                      unsigned length) {
  size_t id = (size_t)blockIdx.x * THREADS + threadIdx.x;
  if (id >= (size_t)segments * pieces * (length + 1)) return;
  unsigned k = id % (length + 1), piece = id / (length + 1) % pieces, segment = id / (length + 1) / pieces;
  unsigned first = firsts[segment], count = firsts[segment + 1] - first;
  unsigned step = (count + pieces - 1) / pieces;
  unsigned begin = min(count, piece * step), end = min(count, begin + step);
  double sum = 0.0;
#pragma unroll 4
  for (unsigned j = first + begin; j < first + end; j++) {
    unsigned i = order[j];
    double factor = k < length ? vectors[(size_t)i * length + k] : 1.0f;
    sum += weights[i] * factor;
  }
  float high = (float)sum;
  partial[2 * id] = high;
  partial[2 * id + 1] = (float)(sum - high);
}

//# segmentReduce
extern "C" __global__ void segmentReduce(const float* partial, float* sums, float* totals, unsigned segments,
                                         unsigned pieces, unsigned length) {
  unsigned id = blockIdx.x * THREADS + threadIdx.x;
  if (id >= segments * (length + 1)) return;
  unsigned k = id % (length + 1), segment = id / (length + 1);
  double sum = 0.0;
  for (unsigned piece = 0; piece < pieces; piece++) {
    size_t at = 2 * (((size_t)segment * pieces + piece) * (length + 1) + k);
    sum += (double)partial[at] + partial[at + 1];
  }
  if (k < length) sums[(size_t)segment * length + k] = (float)sum;
  else totals[segment] = (float)sum;
}

//# segmentScan
// A segment a group, which looks through all indices: each thread adds its vectors of the segment in order, then the threads' sums
// are added in theirs. For few segments. A thread asks for several indices before it looks at the first: they are far away; and it
// collects its hits before it adds one (so no `inBatches`), for a hit of any thread stops its whole warp.
extern "C" __global__ void segmentScan(const float* vectors, const float* weights, const int* indices, float* sums, float* totals,
                                       int* fault, unsigned size, unsigned segments, int check) {
  unsigned segment = blockIdx.x;
  constexpr unsigned AHEAD = 8;
  double sum[LENGTH] = {}, total = 0.0;
  for (unsigned begin = threadIdx.x; begin < size; begin += AHEAD * THREADS) {
    int index[AHEAD];
#pragma unroll
    for (unsigned j = 0; j < AHEAD; j++) index[j] = indices[min(begin + j * THREADS, size - 1)];
    unsigned hits = 0;
#pragma unroll
    for (unsigned j = 0; j < AHEAD; j++)
      hits |= (begin + j * THREADS < size && index[j] == (int)segment ? 1u : 0u) << j;
    if (segment == 0)
      for (unsigned j = 0; j < AHEAD; j++)
        if (index[j] < 0 || index[j] >= (int)segments) noteFault(fault, check, index[j], (int)min(begin + j * THREADS, size - 1));
    for (; hits != 0; hits &= hits - 1) {
      unsigned i = begin + (__ffs(hits) - 1) * THREADS;
      double weight = weights[i];
      total += weight;
#pragma unroll
      for (unsigned k = 0; k < LENGTH; k++) sum[k] += weight * (double)vectors[(size_t)i * LENGTH + k];
    }
  }
  total = groupSum(total);
  if (threadIdx.x == 0) totals[segment] = (float)total;
#pragma unroll
  for (unsigned k = 0; k < LENGTH; k++) {
    double whole = groupSum(sum[k]);
    if (threadIdx.x == 0) sums[(size_t)segment * LENGTH + k] = (float)whole;
  }
}
