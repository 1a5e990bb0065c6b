// Searches by a group: its VECTORS vectors of LENGTH elements against all codewords of a stage, every THREADS-th of which is a
// thread's. Distances are those of the contract, each step rounded; they are compared by their bits, which order the numbers
// from 0 on and put NaN last. `books` is the C of each stage, then the stages' codebooks as columns, [LENGTH][C] (codebookColumns).

#define SLAB (VECTORS * LENGTH)
#define WARPS (THREADS / 32)
#define INFINITE 0x7f800000u
// long vectors do not fit the registers, and unrolled they would take seconds to compile
#if SLAB <= 64
#define UNROLL _Pragma("unroll")
#define AHEAD (SLAB <= 32 ? 4 : 2)
#define FILTERS 1
#else
#define UNROLL _Pragma("unroll 1")
#define AHEAD 1
#define FILTERS 0
#endif

/** Codewords found for the group's vectors. */
struct Found {
  unsigned distance[VECTORS];  // bits
  unsigned index[VECTORS];
};

/** What the choice of one codeword a stage needs, in shared memory. */
struct Choice {
  Found found;
  unsigned warpDistance[WARPS][VECTORS], warpIndex[WARPS][VECTORS];
  unsigned chosen[STAGES][VECTORS];
#if BEAM
  unsigned ownDistance[VECTORS][THREADS], ownIndex[VECTORS][THREADS];  // what each thread found
  unsigned spread[VECTORS][WARPS];  // a bit a thread: what may be among the nearest is not all in the batch of what it found
#endif
#if FILTERS
  float scores[WARPS][VECTORS], least[VECTORS];  // of `filterOwn`
#endif
  float rest[SLAB];    // what the stages so far left
  float vector[SLAB];  // sum of the chosen codewords
};

/** sum (x_t - c_t)^2 in order of t, each step rounded; c_t lies `stride` apart. */
__device__ inline float squaredDistance(const float* x, const float* c, size_t stride) {
  float sum = 0.0f;
UNROLL
  for (unsigned k = 0; k < LENGTH; k++) {
    float difference = __fsub_rn(x[k], c[k * stride]);
    sum = __fadd_rn(sum, __fmul_rn(difference, difference));
  }
  return sum;
}

/** Codeword c; NaN behind the last, which is nearer to nothing. */
__device__ inline void loadCodeword(float* to, const float* book, unsigned count, unsigned c) {
UNROLL
  for (unsigned k = 0; k < LENGTH; k++) to[k] = c < count ? book[(size_t)k * count + c] : __uint_as_float(0x7fc00000u);
}

/** The nearest of a thread's own codewords to each vector, by (distance, index). */
struct Own {
  unsigned distance[VECTORS];  // bits
  unsigned index[VECTORS];
};

/** Each thread's own nearest of `count` codewords to each vector of x (shared), the lowest of equals. */
__device__ void searchOwn(const float* book, unsigned count, const float* x, Own& own) {
  float vector[SLAB];
UNROLL
  for (unsigned k = 0; k < SLAB; k++) vector[k] = x[k];
UNROLL
  for (unsigned m = 0; m < VECTORS; m++) {
    own.distance[m] = INFINITE;
    own.index[m] = ~0u;
  }
  // codewords come from far: AHEAD of them are on their way while as many are compared
  float next[AHEAD][LENGTH];
  if (AHEAD > 1) {
UNROLL
    for (unsigned a = 0; a < AHEAD; a++) loadCodeword(next[a], book, count, threadIdx.x + a * THREADS);
  }
#pragma unroll 1
  for (unsigned first = threadIdx.x; first < count; first += AHEAD * THREADS) {
    float codewords[AHEAD][LENGTH];
    if (AHEAD == 1) loadCodeword(codewords[0], book, count, first);
    else {
UNROLL
      for (unsigned a = 0; a < AHEAD; a++) {
UNROLL
        for (unsigned k = 0; k < LENGTH; k++) codewords[a][k] = next[a][k];
        loadCodeword(next[a], book, count, first + (AHEAD + a) * THREADS);
      }
    }
UNROLL
    for (unsigned a = 0; a < AHEAD; a++) {
      unsigned c = first + a * THREADS;
UNROLL
      for (unsigned m = 0; m < VECTORS; m++) {
        unsigned distance = __float_as_uint(squaredDistance(vector + m * LENGTH, codewords[a], 1));
        if (distance >= own.distance[m]) continue;
        own.distance[m] = distance;
        own.index[m] = c;
      }
    }
  }
}

#if FILTERS
struct Codeword {
  float values[LENGTH];
};

/** What scores x.c - |c|^2 / 2 must be apart to tell which codeword is nearer: codebook.cu. `score` is the nearer one's. */
__device__ inline float scoreBound(float norm, float score) {
  return (LENGTH + 1) * 0x1.08p-20f * (norm + fmaxf(norm - 2.0f * score, 0.0f)) + 1e-30f;
}

/**
 * As searchOwn, but threads find nothing where none of their codewords can be among the `width` nearest of all. Scores take a third of
 * the arithmetic of distances. Only the greatest of AHEAD of them counts; the codewords behind it are looked at again in the steps
 * of the contract, or all of the thread's where a second one is too close.
 */
__device__ void filterOwn(const float* book, unsigned count, unsigned width, const float* x, Choice& choice, Own& own) {
  const float infinite = __uint_as_float(INFINITE);
  unsigned t = threadIdx.x, lane = t % 32;
  float vector[SLAB], norm[VECTORS], best[VECTORS], second[VECTORS];
  unsigned where[VECTORS];
UNROLL
  for (unsigned m = 0; m < VECTORS; m++) {
    norm[m] = 0.0f;
    best[m] = second[m] = -infinite;
    where[m] = t;
UNROLL
    for (unsigned k = 0; k < LENGTH; k++) {
      vector[m * LENGTH + k] = x[m * LENGTH + k];
      norm[m] = fmaf(x[m * LENGTH + k], x[m * LENGTH + k], norm[m]);
    }
  }
  float next[AHEAD][LENGTH];
UNROLL
  for (unsigned a = 0; a < AHEAD; a++) loadCodeword(next[a], book, count, t + a * THREADS);
#pragma unroll 1
  for (unsigned first = t; first < count; first += AHEAD * THREADS) {
    float codewords[AHEAD][LENGTH], starts[AHEAD];
UNROLL
    for (unsigned a = 0; a < AHEAD; a++) {
      float square = 0.0f;
UNROLL
      for (unsigned k = 0; k < LENGTH; k++) {
        codewords[a][k] = next[a][k];
        square = fmaf(next[a][k], next[a][k], square);
      }
      starts[a] = -0.5f * square;
      loadCodeword(next[a], book, count, first + (AHEAD + a) * THREADS);
    }
UNROLL
    for (unsigned m = 0; m < VECTORS; m++) {
      float most = -infinite;
UNROLL
      for (unsigned a = 0; a < AHEAD; a++) {
        float score = starts[a];
UNROLL
        for (unsigned k = 0; k < LENGTH; k++) score = fmaf(vector[m * LENGTH + k], codewords[a][k], score);
        most = fmaxf(most, score);
      }
      second[m] = fmaxf(second[m], fminf(best[m], most));
      if (most > best[m]) where[m] = first;
      best[m] = fmaxf(best[m], most);
    }
  }

  // the `width` greatest of the threads' best scores: codewords as near as all of these have at least about the least of them
#if BEAM
UNROLL
  for (unsigned m = 0; m < VECTORS; m++) choice.ownDistance[m][t] = __float_as_uint(best[m]);
  __syncthreads();
  if (t / 32 < VECTORS) {
    float values[WARPS], least = infinite;
#pragma unroll
    for (unsigned j = 0; j < WARPS; j++) values[j] = __uint_as_float(choice.ownDistance[t / 32][32 * j + lane]);
#pragma unroll 1
    for (unsigned candidate = 0; candidate < width; candidate++) {
      float most = -infinite;
#pragma unroll
      for (unsigned j = 0; j < WARPS; j++) most = fmaxf(most, values[j]);
      least = warpMax(most);
      unsigned holders = __ballot_sync(0xffffffffu, most == least);
      bool mine = lane == (unsigned)__ffs(holders) - 1;
#pragma unroll
      for (unsigned j = 0; j < WARPS; j++)
        if (mine && values[j] == least) {
          values[j] = -infinite;
          mine = false;
        }
    }
    if (lane == 0) choice.least[t / 32] = least;
  }
#else
UNROLL
  for (unsigned m = 0; m < VECTORS; m++) {
    float top = warpMax(best[m]);
    if (lane == 0) choice.scores[t / 32][m] = top;
  }
  __syncthreads();
  if (t < VECTORS) {
    float top = choice.scores[0][t];
    for (unsigned warp = 1; warp < WARPS; warp++) top = fmaxf(top, choice.scores[warp][t]);
    choice.least[t] = top;
  }
#endif
  __syncthreads();

UNROLL
  for (unsigned m = 0; m < VECTORS; m++) {
    own.distance[m] = INFINITE;
    own.index[m] = ~0u;
    float least = choice.least[m];
    bool known = norm[m] + fmaxf(norm[m] - 2.0f * least, 0.0f) < 1e36f;
    float enough = least - scoreBound(norm[m], least);
    bool alone = known && second[m] < best[m] - scoreBound(norm[m], best[m]);
#if BEAM
    unsigned spread = __ballot_sync(0xffffffffu, !(alone && second[m] < enough));
    if (lane == 0) choice.spread[m][t / 32] = spread;
#endif
    if (known && best[m] < enough) continue;
    unsigned begin = alone ? where[m] : t, end = alone ? min(count, where[m] + AHEAD * THREADS) : count;
    auto load = [&](unsigned c) {
      Codeword codeword;
UNROLL
      for (unsigned k = 0; k < LENGTH; k++) codeword.values[k] = book[(size_t)k * count + c];
      return codeword;
    };
    inBatches<AHEAD>(begin, end, THREADS, load, [&](const Codeword& codeword, unsigned c) {
      unsigned distance = __float_as_uint(squaredDistance(vector + m * LENGTH, codeword.values, 1));
      if (distance >= own.distance[m]) return;
      own.distance[m] = distance;
      own.index[m] = c;
    });
  }
}
#endif

/** Codebooks of more than so many codewords a thread are worth a filter. */
#define FEW 8

/** What of a thread's own codewords may be among the `width` nearest of all; its own nearest, or nothing. */
__device__ inline void findOwn(const float* book, unsigned count, unsigned width, const float* x, Choice& choice, Own& own) {
#if FILTERS
  if (count > FEW * THREADS) {
    filterOwn(book, count, width, x, choice, own);
    return;
  }
#endif
#if BEAM
  if (threadIdx.x < VECTORS * WARPS) choice.spread[threadIdx.x / WARPS][threadIdx.x % WARPS] = ~0u;
#endif
  searchOwn(book, count, x, own);
}

/** The nearest of all threads' own, in `found`. Codeword 0 at an infinite distance where there is none. */
__device__ void settle(unsigned count, Choice& choice, const Own& own) {
UNROLL
  for (unsigned m = 0; m < VECTORS; m++) {
    unsigned distance = __reduce_min_sync(0xffffffffu, own.distance[m]);
    unsigned index = __reduce_min_sync(0xffffffffu, own.distance[m] == distance ? own.index[m] : ~0u);
    if (threadIdx.x % 32 == 0) {
      choice.warpDistance[threadIdx.x / 32][m] = distance;
      choice.warpIndex[threadIdx.x / 32][m] = index;
    }
  }
  __syncthreads();
  if (threadIdx.x < VECTORS) {
    unsigned m = threadIdx.x, distance = choice.warpDistance[0][m], index = choice.warpIndex[0][m];
    for (unsigned warp = 1; warp < WARPS; warp++) {
      unsigned other = choice.warpDistance[warp][m];
      if (other > distance || (other == distance && choice.warpIndex[warp][m] >= index)) continue;
      distance = other;
      index = choice.warpIndex[warp][m];
    }
    choice.found.distance[m] = distance;
    choice.found.index[m] = index < count ? index : 0u;
  }
  __syncthreads();
}

/** The nearest of `count` codewords to each vector of x (shared), the lowest of equals, in `found`. */
__device__ void nearestOf(const float* book, unsigned count, const float* x, Choice& choice) {
  Own own;
  findOwn(book, count, 1, x, choice, own);
  settle(count, choice, own);
}

#if BEAM
/** The least (distance, index) of a warp, in all its threads. */
__device__ inline void leastOfWarp(unsigned& distance, unsigned& index) {
  unsigned least = __reduce_min_sync(0xffffffffu, distance);
  index = __reduce_min_sync(0xffffffffu, distance == least ? index : ~0u);
  distance = least;
}

/**
 * The `width` nearest codewords of the first stage to each vector of x (shared), nearest first, each continued greedily through
 * the later stages; the least distance after the last stage wins, the first of equals. All threads search the first codebook;
 * then a warp has a vector to itself: it takes the nearest of what the threads found, and looks through the codewords of that
 * thread, or of the batch that it is in, for the one behind it. Threads that found nothing have no codeword that can be one of them.
 */
__device__ void chooseAmong(const float* books, unsigned width, const float* x, Choice& choice) {
  unsigned t = threadIdx.x, m = t / 32, lane = t % 32, count = books[0];
  const float* book = books + STAGES;
  {
    Own own;
    findOwn(book, count, width, x, choice, own);
UNROLL
    for (unsigned v = 0; v < VECTORS; v++) {
      choice.ownDistance[v][t] = own.distance[v];
      choice.ownIndex[v][t] = own.index[v];
    }
  }
  __syncthreads();
  if (m < VECTORS) {
    const float* vector = x + m * LENGTH;
    float* rest = choice.rest + m * LENGTH;
    unsigned distances[WARPS], indices[WARPS], trial[STAGES], leastTotal = 0;
#pragma unroll
    for (unsigned j = 0; j < WARPS; j++) {
      distances[j] = choice.ownDistance[m][32 * j + lane];
      indices[j] = choice.ownIndex[m][32 * j + lane];
    }
#pragma unroll 1
    for (unsigned candidate = 0; candidate < width; candidate++) {
      unsigned distance = INFINITE, index = ~0u;
#pragma unroll
      for (unsigned j = 0; j < WARPS; j++) {
        if (distances[j] > distance || (distances[j] == distance && indices[j] >= index)) continue;
        distance = distances[j];
        index = indices[j];
      }
      leastOfWarp(distance, index);
      if (index >= count) index = 0;  // there is none
      trial[0] = index;
      unsigned total = distance;
      const float* later = book;
      unsigned before = count;
      for (unsigned k = lane; k < LENGTH; k += 32) rest[k] = vector[k] - book[(size_t)k * count + index];
#pragma unroll
      for (unsigned stage = 1; stage < STAGES; stage++) {
        __syncwarp();
        later += (size_t)LENGTH * before;
        before = books[stage];
        unsigned nearest = INFINITE, where = ~0u;
#pragma unroll 4
        for (unsigned c = lane; c < before; c += 32) {
          unsigned own = __float_as_uint(squaredDistance(rest, later + c, before));
          if (own >= nearest) continue;
          nearest = own;
          where = c;
        }
        leastOfWarp(nearest, where);
        if (where >= before) where = 0;
        trial[stage] = where;
        total = nearest;
        __syncwarp();
        for (unsigned k = lane; k < LENGTH; k += 32) rest[k] -= later[(size_t)k * before + where];
      }
      if (candidate == 0 || total < leastTotal) {
        leastTotal = total;
        if (lane == 0)
          for (unsigned stage = 0; stage < STAGES; stage++) choice.chosen[stage][m] = trial[stage];
      }
      unsigned next = INFINITE, where = ~0u, thread = index % THREADS, first = thread, end = count;
      if (!(choice.spread[m][thread / 32] >> thread % 32 & 1)) {
        first += index / (AHEAD * THREADS) * (AHEAD * THREADS);
        end = min(count, first + AHEAD * THREADS);
      }
#pragma unroll 4
      for (unsigned c = first + THREADS * lane; c < end; c += THREADS * 32) {
        unsigned own = __float_as_uint(squaredDistance(vector, book + c, count));
        bool behind = own > distance || (own == distance && c > index);
        if (!behind || own >= next) continue;
        next = own;
        where = c;
      }
      leastOfWarp(next, where);
#pragma unroll
      for (unsigned j = 0; j < WARPS; j++)
        if (thread == 32 * j + lane) {
          distances[j] = next;
          indices[j] = where;
        }
    }
  }
  __syncthreads();
}
#endif

/** One codeword a stage for each vector of x (shared), greedily or with `width` candidates. Leaves `chosen` and `vector`. */
__device__ void chooseStages(const float* books, unsigned width, const float* x, Choice& choice) {
  unsigned t = threadIdx.x;
#if BEAM
  chooseAmong(books, width, x, choice);
#else
  const float* searching = books + STAGES;
  unsigned before = 0;
  const float* searched = x;
#pragma unroll 1
  for (unsigned stage = 0; stage < STAGES; stage++) {
    if (stage > 0) {
      for (unsigned e = t; e < SLAB; e += THREADS)
        choice.rest[e] = searched[e] - searching[(size_t)(e % LENGTH) * before + choice.found.index[e / LENGTH]];
      searched = choice.rest;
      __syncthreads();
    }
    searching += (size_t)LENGTH * before;
    before = books[stage];
    nearestOf(searching, before, searched, choice);
    if (t < VECTORS) choice.chosen[stage][t] = choice.found.index[t];
  }
#endif
  __syncthreads();
  for (unsigned e = t; e < SLAB; e += THREADS) {
    const float* book = books + STAGES;
    float sum = 0.0f;
    for (unsigned stage = 0; stage < STAGES; stage++) {
      unsigned count = books[stage];
      sum += book[(size_t)(e % LENGTH) * count + choice.chosen[stage][e / LENGTH]];
      book += (size_t)LENGTH * count;
    }
    choice.vector[e] = sum;
  }
  __syncthreads();
}

/** The nearest codeword of the group's vector m, found by `nearestOf`, to place i of the results. */
__device__ inline void storeNearest(const float* book, unsigned count, const float* x, const Choice& choice, unsigned m, unsigned i,
                                    int* indices, float* distances) {
  unsigned index = choice.found.index[m], distance = choice.found.distance[m];
  indices[i] = index;
  distances[i] = distance < INFINITE ? __uint_as_float(distance) : squaredDistance(x + m * LENGTH, book + index, count);
}

//# nearestGroups
// VECTORS vectors a group.
extern "C" __global__ void nearestGroups(const float* vectors, const float* books, int* indices, float* distances,
                                         unsigned count, unsigned codewords) {
  __shared__ Choice choice;
  __shared__ float x[SLAB];
  unsigned first = blockIdx.x * VECTORS;
  for (unsigned e = threadIdx.x; e < SLAB; e += THREADS)
    x[e] = first + e / LENGTH < count ? vectors[(size_t)first * LENGTH + e] : 0.0f;
  __syncthreads();
  nearestOf(books + 1, codewords, x, choice);
  unsigned m = threadIdx.x;
  if (m < VECTORS && first + m < count) storeNearest(books + 1, codewords, x, choice, m, first + m, indices, distances);
}

//# nearestListed
// The vectors of a list, VECTORS a group at a time. The list is in no fixed order, and a vector's result does not depend on its place.
extern "C" __global__ void nearestListed(const float* vectors, const float* books, const int* list, const unsigned* listed,
                                         int* indices, float* distances, unsigned codewords) {
  __shared__ Choice choice;
  __shared__ float x[SLAB];
  unsigned count = *listed, m = threadIdx.x;
  for (unsigned first = blockIdx.x * VECTORS; first < count; first += gridDim.x * VECTORS) {
    for (unsigned e = threadIdx.x; e < SLAB; e += THREADS)
      x[e] = first + e / LENGTH < count ? vectors[(size_t)list[first + e / LENGTH] * LENGTH + e % LENGTH] : 0.0f;
    __syncthreads();
    nearestOf(books + 1, codewords, x, choice);
    if (m < VECTORS && first + m < count)
      storeNearest(books + 1, codewords, x, choice, m, list[first + m], indices, distances);
    __syncthreads();
  }
}

//# sweepBlock
// Columns [start, stop) of the segment [begin, end), one after the other, in the rows of the group's vectors; feedback is rows start ..
// of it. What a column left goes to the block's later columns here, and to `errors` [stop - start, P] for those after the block.
extern "C" __global__ void __launch_bounds__(THREADS, 512 / THREADS)
    sweepBlock(const float* books, const float* feedback, float* running, float* quantized, float* errors, int* indices,
               unsigned columns, unsigned rows, unsigned begin, unsigned end, unsigned start, unsigned stop, unsigned width) {
  __shared__ Choice choice;
  __shared__ float tile[COLUMNS * SLAB];  // [stop - start][SLAB]
  __shared__ float factors[COLUMNS], error[SLAB];
  unsigned t = threadIdx.x, first = blockIdx.x * SLAB;
  unsigned own = min((unsigned)SLAB, rows - first);
  for (unsigned k = t; k < (stop - start) * SLAB; k += THREADS) {
    unsigned e = k % SLAB;
    tile[k] = e < own ? running[(size_t)(start + k / SLAB) * rows + first + e] : 0.0f;
  }
  for (unsigned i = start; i < stop; i++) {
    for (unsigned k = i - start + 1 + t; k < stop - start; k += THREADS)
      factors[k] = feedback[(size_t)(i - start) * columns + start + k];
    __syncthreads();
    const float* x = tile + (i - start) * SLAB;
    chooseStages(books, width, x, choice);
    for (unsigned e = t; e < SLAB; e += THREADS) {
      float q = choice.vector[e];
      error[e] = x[e] - q;
      if (e >= own) continue;
      size_t at = (size_t)i * rows + first + e;
      quantized[at] = q;
      running[at] = x[e];
      errors[(size_t)(i - start) * rows + first + e] = error[e];
    }
    for (unsigned k = t; k < STAGES * VECTORS; k += THREADS) {
      unsigned m = k % VECTORS, stage = k / VECTORS;
      if (m * LENGTH >= own) continue;
      size_t column = (size_t)stage * (end - begin) + i - begin;
      indices[column * (rows / LENGTH) + first / LENGTH + m] = choice.chosen[stage][m];
    }
    __syncthreads();
    for (unsigned k = (i - start + 1) * SLAB + t; k < (stop - start) * SLAB; k += THREADS)
      tile[k] -= error[k % SLAB] * factors[k / SLAB];
    __syncthreads();
  }
}

//# coordinateBlock
// As sweepBlock, for coordinate descent, with rows start .. of the Hessian: gradient [stop - start, P] holds H E of the block's
// columns before it; a change of E goes to the block's later columns here, and to `error`.
extern "C" __global__ void __launch_bounds__(THREADS, 512 / THREADS)
    coordinateBlock(const float* books, const float* weights, const float* hessian, const float* gradient, float* quantized,
                    float* error, int* indices, unsigned columns, unsigned rows, unsigned begin, unsigned end, unsigned start,
                    unsigned stop, unsigned width) {
  __shared__ Choice choice;
  __shared__ float tile[COLUMNS * SLAB];  // [stop - start][SLAB]
  __shared__ float factors[COLUMNS], wanted[SLAB], now[SLAB], change[SLAB];
  __shared__ bool adopted[VECTORS];
  unsigned t = threadIdx.x, first = blockIdx.x * SLAB;
  unsigned own = min((unsigned)SLAB, rows - first);
  for (unsigned k = t; k < (stop - start) * SLAB; k += THREADS) {
    unsigned e = k % SLAB;
    tile[k] = e < own ? gradient[(size_t)(k / SLAB) * rows + first + e] : 0.0f;
  }
  __syncthreads();
  for (unsigned i = start; i < stop; i++) {
    float curvature = hessian[(size_t)(i - start) * columns + i];
    if (!(curvature > 0.0f)) continue;
    for (unsigned k = i - start + 1 + t; k < stop - start; k += THREADS)
      factors[k] = hessian[(size_t)(i - start) * columns + start + k];
    for (unsigned e = t; e < SLAB; e += THREADS) {
      now[e] = e < own ? quantized[(size_t)i * rows + first + e] : 0.0f;
      wanted[e] = now[e] + tile[(i - start) * SLAB + e] / curvature;
    }
    __syncthreads();
    chooseStages(books, width, wanted, choice);
    if (t < VECTORS)
      adopted[t] = t * LENGTH < own && squaredDistance(wanted + t * LENGTH, choice.vector + t * LENGTH, 1) <
                                           squaredDistance(wanted + t * LENGTH, now + t * LENGTH, 1);
    __syncthreads();
    for (unsigned e = t; e < SLAB; e += THREADS) {
      change[e] = 0.0f;
      if (!adopted[e / LENGTH]) continue;
      size_t at = (size_t)i * rows + first + e;
      float after = weights[at] - choice.vector[e];
      change[e] = after - error[at];
      error[at] = after;
      quantized[at] = choice.vector[e];
    }
    for (unsigned k = t; k < STAGES * VECTORS; k += THREADS) {
      unsigned m = k % VECTORS, stage = k / VECTORS;
      if (!adopted[m]) continue;
      size_t column = (size_t)stage * (end - begin) + i - begin;
      indices[column * (rows / LENGTH) + first / LENGTH + m] = choice.chosen[stage][m];
    }
    __syncthreads();
    for (unsigned k = (i - start + 1) * SLAB + t; k < (stop - start) * SLAB; k += THREADS)
      tile[k] += change[k % SLAB] * factors[k / SLAB];
    __syncthreads();
  }
}
