// Causal attention and its gradients on the tensor cores (FlashAttention-2, arXiv 2307.08691): operands in f16, sums and softmax
// in f32.
//
// A warp has 16 rows (queries, or keys where the gradients of k and v are made) and goes in steps over the rows that they see, or
// that see them. Rows lie in shared memory in chunks of 8 f16, permuted so that ldmatrix reads all banks. Products stay where
// mma.m16n8k16 leaves them: lane l has rows l / 4 and l / 4 + 8 and, of each 8 columns, 2 (l % 4) and the next. Two such tiles
// side by side are a left operand of the next product.

typedef unsigned short Half;
constexpr int ROWS = THREADS / 2; // of a group
constexpr int CHUNKS = SIZE / 8;  // of a row
constexpr int DEPTH = SIZE / 16;  // products of a score
constexpr int STEP = 64;          // rows on the other side that are in shared memory at a time: either so many,
constexpr int SHORT = STEP / 2;   // or so many of two tensors
constexpr float UNSEEN = -1e30f;
constexpr float LOG2_E = 1.44269504f;

/** What a group works on: rows from `first` on, of a head of one of the batch. */
struct Place {
  unsigned first, batch, head;
};

/** The first groups get the last rows (or, counted from the other side, the first): those with the most to do. */
__device__ inline Place placeOf(unsigned tokens, unsigned heads, bool lastFirst) {
  unsigned tiles = (tokens + ROWS - 1) / ROWS, all = gridDim.x / tiles, tile = blockIdx.x / all; // heads of all batches
  return {(lastFirst ? tiles - 1 - tile : tile) * ROWS, blockIdx.x % all / heads, blockIdx.x % all % heads};
}

/** Rows of a head in global memory, `size` wide. */
struct Rows {
  const Half* first;
  unsigned stride, size;
};

/** Where a chunk of a row lies: 8 rows one below the other have it in 8 different places of 128 bytes. */
__device__ inline unsigned chunkAt(unsigned row, unsigned chunk) {
  return row * SIZE + (chunk ^ (CHUNKS % 8 == 0 ? row % 8 : row / 2 % 4)) * 8;
}

/** COUNT rows from `begin` on, zeros from `end` on and behind their size. */
template <int COUNT>
__device__ inline void loadRows(Half* to, Rows rows, unsigned begin, unsigned end) {
#pragma unroll
  for (unsigned e = threadIdx.x; e < COUNT * CHUNKS; e += THREADS) {
    unsigned row = e / CHUNKS, chunk = e % CHUNKS;
    bool there = begin + row < end && chunk * 8 < rows.size;
    copyEight(to + chunkAt(row, chunk), there ? rows.first + (size_t)(begin + row) * rows.stride + chunk * 8 : rows.first, there);
  }
}

/** Left operand: 16 rows, columns from 16 s on. */
__device__ inline void loadLeft(unsigned (&to)[4], const Half* rows, unsigned s) {
  unsigned lane = threadIdx.x % 32;
  loadMatrices(to, rows + chunkAt(lane % 16, 2 * s + lane / 16));
}

/** ROWS rows through shared memory to the lanes; the caller waits before it uses that again. */
__device__ inline void loadOwn(unsigned (&to)[DEPTH][4], Half* shared, Rows rows, unsigned begin, unsigned end) {
  loadRows<ROWS>(shared, rows, begin, end);
  waitCopies();
  __syncthreads();
#pragma unroll
  for (int s = 0; s < DEPTH; s++) loadLeft(to[s], shared + threadIdx.x / 32 * 16 * SIZE, s);
}

/** products += left times the transposed of 8 N rows, for columns from 16 s on of both. */
template <int N>
__device__ inline void addProducts(float (&products)[N][4], const unsigned (&left)[4], const Half* rows, unsigned s) {
  unsigned lane = threadIdx.x % 32;
#pragma unroll
  for (int n = 0; n < N; n += 2) {
    unsigned right[4];
    loadMatrices(right, rows + chunkAt(n * 8 + lane / 16 * 8 + lane % 8, 2 * s + lane / 8 % 2));
    multiplyAddHalf(products[n], left, right[0], right[1]);
    multiplyAddHalf(products[n + 1], left, right[2], right[3]);
  }
}

/** result += weights, rounded to f16, times 8 N rows. */
template <int N>
__device__ inline void addMix(float (&result)[CHUNKS][4], const float (&weights)[N][4], const Half* rows) {
  unsigned lane = threadIdx.x % 32;
#pragma unroll
  for (int j = 0; j < N; j += 2) {
    unsigned left[4] = {halfPair(weights[j][0], weights[j][1]), halfPair(weights[j][2], weights[j][3]),
                        halfPair(weights[j + 1][0], weights[j + 1][1]), halfPair(weights[j + 1][2], weights[j + 1][3])};
#pragma unroll
    for (int n = 0; n < CHUNKS; n += 2) {
      unsigned right[4];
      loadTransposed(right, rows + chunkAt(j * 8 + lane % 16, n + lane / 16));
      multiplyAddHalf(result[n], left, right[0], right[1]);
      multiplyAddHalf(result[n + 1], left, right[2], right[3]);
    }
  }
}

/** A warp's result to y [.., tokens, heads, size], both halves of its rows times a factor of their own. */
__device__ inline void storeResult(float* y, Place place, unsigned tokens, unsigned heads, unsigned size,
                                   const float (&result)[CHUNKS][4], float upper, float lower) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    unsigned row = place.first + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + half * 8;
    if (row >= tokens) continue;
    float factor = half == 0 ? upper : lower;
    float* to = y + (((size_t)place.batch * tokens + row) * heads + place.head) * size + threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < CHUNKS; n++)
      if (n * 8 < size) *(float2*)(to + n * 8) = make_float2(result[n][2 * half] * factor, result[n][2 * half + 1] * factor);
  }
}

// ---- scores and softmax, in powers of two

struct Rule {
  unsigned window;
  float scale, slope; // times log2 e
};

__device__ inline Rule ruleOf(unsigned window, float scale, const float* slopes, unsigned sloped, unsigned head) {
  return {window, scale * LOG2_E, sloped ? slopes[head] * LOG2_E : 0.0f};
}

/** Whether one of 16 queries or keys of a warp and `step` of the others must not meet. */
__device__ inline bool atEdge(unsigned query, unsigned queries, unsigned key, unsigned keys, unsigned window) {
  return key + keys > query + 1 || query + queries > key + window;
}

/** Products become scores, UNSEEN at an edge where a key is out of sight. `row` and `column` are the first of a lane. */
template <bool ROWS_ARE_KEYS, int N>
__device__ inline void scoreProducts(float (&products)[N][4], unsigned row, unsigned column, Rule rule, bool edge) {
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) products[n][i] *= rule.scale;
  if (!edge && rule.slope == 0.0f) return;
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      int behind = (int)(row + i / 2 * 8) - (int)(column + n * 8 + i % 2); // how far a query is behind a key
      if (ROWS_ARE_KEYS) behind = -behind;
      bool seen = behind >= 0 && behind < (int)rule.window;
      products[n][i] = seen ? products[n][i] - rule.slope * (float)behind : UNSEEN;
    }
}

/** Over the 4 lanes of a row. */
__device__ inline float rowMax(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ inline float rowSum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

/**
 * A step of the running softmax: scores become weights by the new maximum of their row, earlier ones shrink by `factor`; `sum` is
 * this lane's part. Weights of a row that has seen nothing yet are 1: the factor 0 will take them away.
 */
template <int N>
__device__ inline void softmaxStep(float (&scores)[N][4], float (&top)[2], float (&sum)[2], float (&factor)[2]) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float next = top[half], own = 0.0f;
#pragma unroll
    for (int n = 0; n < N; n++) next = fmaxf(next, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
    next = rowMax(next);
    factor[half] = powerOfTwo(top[half] - next);
    top[half] = next;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; i++) own += scores[n][i] = powerOfTwo(scores[n][i] - next);
    sum[half] = sum[half] * factor[half] + own;
  }
}

/** First step of keys that any of the queries from a position on sees. */
__device__ inline unsigned firstStep(unsigned position, unsigned window) {
  return position < window ? 0 : (position + 1 - window) / STEP * STEP;
}

//# attendTensor: ROWS queries of a head a group
extern "C" __global__ void __launch_bounds__(THREADS, 384 / THREADS)
    attendTensor(const Half* q, const Half* k, const Half* v, const float* slopes, float* y, unsigned tokens, unsigned heads,
                 unsigned keyHeads, unsigned size, unsigned capacity, unsigned keyLength, unsigned window, float scale,
                 unsigned sloped) {
  __shared__ __align__(16) Half shared[2 * STEP * SIZE];
  Half *keys = shared, *values = shared + STEP * SIZE;
  Place place = placeOf(tokens, heads, true);
  unsigned sharing = heads / keyHeads, keyStride = keyHeads * size;
  size_t keyAt = (size_t)place.batch * capacity * keyStride + place.head / sharing * size;
  Rows ofQ = {q + ((size_t)place.batch * tokens * heads + place.head) * size, heads * size, size};
  Rows ofK = {k + keyAt, keyStride, size}, ofV = {v + keyAt, keyStride, size};
  Rule rule = ruleOf(window, scale, slopes, sloped, place.head);

  unsigned queries[DEPTH][4];
  loadOwn(queries, shared, ofQ, place.first, tokens);
  __syncthreads();

  unsigned position = keyLength - tokens + place.first, own = position + threadIdx.x / 32 * 16, lane = threadIdx.x % 32;
  unsigned key = firstStep(position, window), end = min(keyLength, position + ROWS);
  float result[CHUNKS][4] = {}, top[2] = {UNSEEN, UNSEEN}, sum[2] = {}, factor[2];
  loadRows<STEP>(keys, ofK, key, keyLength);
#pragma unroll 1
  for (; key < end; key += STEP) {
    waitCopies();
    __syncthreads(); // these keys are there, the values before were used
    loadRows<STEP>(values, ofV, key, keyLength);
    float products[STEP / 8][4] = {};
#pragma unroll
    for (int s = 0; s < DEPTH; s++) addProducts(products, queries[s], keys, s);
    scoreProducts<false>(products, own + lane / 4, key + lane % 4 * 2, rule, atEdge(own, 16, key, STEP, window));
    softmaxStep(products, top, sum, factor);
#pragma unroll
    for (int n = 0; n < CHUNKS; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) result[n][i] *= factor[i / 2];
    waitCopies();
    __syncthreads(); // these values are there, the keys were used
    if (key + STEP < end) loadRows<STEP>(keys, ofK, key + STEP, keyLength);
    addMix(result, products, values);
  }
  storeResult(y, place, tokens, heads, size, result, 1.0f / rowSum(sum[0]), 1.0f / rowSum(sum[1]));
}

//# attendTensorGradQueries: of ROWS queries of a head a group; first the sums of their weights, then their gradients
// `grad`, `scales` and the means in stats [B, H, padded, 2] come from halfGrads (halfgrads.cu), where padded is tokens up to a
// multiple of ROWS; each query's log2 of the sum of its powers of two goes beside its mean.
extern "C" __global__ void __launch_bounds__(THREADS, 256 / THREADS)
    attendTensorGradQueries(const Half* q, const Half* k, const Half* v, const Half* grad, const float* slopes,
                            const float* scales, float* stats, float* y, unsigned tokens, unsigned heads, unsigned keyHeads,
                            unsigned size, unsigned padded, unsigned window, float scale, unsigned sloped) {
  __shared__ __align__(16) Half shared[2 * STEP * SIZE];
  Place place = placeOf(tokens, heads, true);
  unsigned sharing = heads / keyHeads, keyStride = keyHeads * size;
  size_t at = ((size_t)place.batch * tokens * heads + place.head) * size;
  size_t keyAt = (size_t)place.batch * tokens * keyStride + place.head / sharing * size;
  Rows ofK = {k + keyAt, keyStride, size}, ofV = {v + keyAt, keyStride, size};
  Rule rule = ruleOf(window, scale, slopes, sloped, place.head);

  unsigned queries[DEPTH][4], grads[DEPTH][4];
  loadOwn(queries, shared, {q + at, heads * size, size}, place.first, tokens);
  __syncthreads();
  loadOwn(grads, shared, {grad + at, heads * size, size}, place.first, tokens);
  __syncthreads();

  unsigned own = place.first + threadIdx.x / 32 * 16, lane = threadIdx.x % 32, row = own + lane / 4;
  unsigned begin = firstStep(place.first, window), end = min(tokens, place.first + ROWS);
  float top[2] = {UNSEEN, UNSEEN}, sum[2] = {}, factor[2], mean[2];
  loadRows<STEP>(shared, ofK, begin, tokens);
#pragma unroll 1
  for (unsigned key = begin, turn = 0; key < end; key += STEP, turn ^= 1) {
    waitCopies();
    __syncthreads(); // these keys are there, those before were used
    if (key + STEP < end) loadRows<STEP>(shared + (turn ^ 1) * STEP * SIZE, ofK, key + STEP, tokens);
    float products[STEP / 8][4] = {};
#pragma unroll
    for (int s = 0; s < DEPTH; s++) addProducts(products, queries[s], shared + turn * STEP * SIZE, s);
    scoreProducts<false>(products, row, key + lane % 4 * 2, rule, atEdge(own, 16, key, STEP, window));
    softmaxStep(products, top, sum, factor);
  }
  float2* of = (float2*)stats + (size_t)(place.batch * heads + place.head) * padded + row;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float total = rowSum(sum[half]);
    bool there = row + half * 8 < tokens; // the others must weigh nothing
    mean[half] = there ? of[half * 8].y : 0.0f;
    top[half] = there ? top[half] + log2f(total) : -UNSEEN;
  }
  __syncthreads();
  if (lane % 4 == 0) {
    of[0] = make_float2(top[0], mean[0]);
    of[8] = make_float2(top[1], mean[1]);
  }

  float result[CHUNKS][4] = {}, changeScale = scales[2];
  loadRows<SHORT>(shared, ofK, begin, tokens);
  loadRows<SHORT>(shared + SHORT * SIZE, ofV, begin, tokens);
#pragma unroll 1
  for (unsigned key = begin, turn = 0; key < end; key += SHORT, turn ^= 1) {
    waitCopies();
    __syncthreads();
    const Half *keys = shared + turn * STEP * SIZE, *values = keys + SHORT * SIZE;
    if (key + SHORT < end) {
      Half* next = shared + (turn ^ 1) * STEP * SIZE;
      loadRows<SHORT>(next, ofK, key + SHORT, tokens);
      loadRows<SHORT>(next + SHORT * SIZE, ofV, key + SHORT, tokens);
    }
    float products[SHORT / 8][4] = {}, changes[SHORT / 8][4] = {}; // changes: gradients of the weights
#pragma unroll
    for (int s = 0; s < DEPTH; s++) {
      addProducts(products, queries[s], keys, s);
      addProducts(changes, grads[s], values, s);
    }
    scoreProducts<false>(products, row, key + lane % 4 * 2, rule, atEdge(own, 16, key, SHORT, window));
#pragma unroll
    for (int n = 0; n < SHORT / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++)
        products[n][i] = powerOfTwo(products[n][i] - top[i / 2]) * (changes[n][i] - mean[i / 2]) * changeScale;
    addMix(result, products, keys);
  }
  float factorOfAll = scale * scales[1] * scales[3];
  storeResult(y, place, tokens, heads, size, result, factorOfAll, factorOfAll);
}

//# attendTensorGradKeys: of ROWS keys and values a group, for one of the heads that share them; [B, T, H, d]
extern "C" __global__ void __launch_bounds__(THREADS, 256 / THREADS)
    attendTensorGradKeys(const Half* q, const Half* k, const Half* v, const Half* grad, const float* slopes,
                         const float* scales, const float* stats, float* keyGrad, float* valueGrad, unsigned tokens,
                         unsigned heads, unsigned keyHeads, unsigned size, unsigned padded, unsigned window, float scale,
                         unsigned sloped) {
  __shared__ __align__(16) Half shared[(ROWS + 2 * STEP) * SIZE]; // own values, then twice SHORT queries and gradients
  Half *values = shared, *steps = shared + ROWS * SIZE;
  Place place = placeOf(tokens, heads, false);
  unsigned sharing = heads / keyHeads, keyStride = keyHeads * size;
  size_t at = ((size_t)place.batch * tokens * heads + place.head) * size;
  size_t keyAt = (size_t)place.batch * tokens * keyStride + place.head / sharing * size;
  Rows ofQ = {q + at, heads * size, size}, ofGrad = {grad + at, heads * size, size};
  Rule rule = ruleOf(window, scale, slopes, sloped, place.head);
  unsigned lane = threadIdx.x % 32, inTile = threadIdx.x / 32 * 16, own = place.first + inTile;
  unsigned end = min(tokens, place.first + ROWS - 1 + window);
  // of two neighboring queries: logarithm and mean of the one, of the other
  const float4* of = (const float4*)(stats + ((size_t)(place.batch * heads + place.head) * padded + lane % 4 * 2) * 2);

  unsigned keys[DEPTH][4];
  loadOwn(keys, steps, {k + keyAt, keyStride, size}, place.first, tokens);
  __syncthreads();
  float ofKeys[CHUNKS][4] = {}, ofValues[CHUNKS][4] = {}, changeScale = scales[2];
  loadRows<ROWS>(values, {v + keyAt, keyStride, size}, place.first, tokens);
  loadRows<SHORT>(steps, ofQ, place.first, tokens);
  loadRows<SHORT>(steps + SHORT * SIZE, ofGrad, place.first, tokens);
#pragma unroll 1
  for (unsigned query = place.first, turn = 0; query < end; query += SHORT, turn ^= 1) {
    waitCopies();
    __syncthreads(); // these queries are there, those before were used
    const Half *queries = steps + turn * STEP * SIZE, *grads = queries + SHORT * SIZE;
    if (query + SHORT < end) {
      Half* next = steps + (turn ^ 1) * STEP * SIZE;
      loadRows<SHORT>(next, ofQ, query + SHORT, tokens);
      loadRows<SHORT>(next + SHORT * SIZE, ofGrad, query + SHORT, tokens);
    }
    float4 rowStats[SHORT / 8];
#pragma unroll
    for (int n = 0; n < SHORT / 8; n++) rowStats[n] = of[(query + n * 8) / 2];
    float products[SHORT / 8][4] = {}, changes[SHORT / 8][4] = {};
#pragma unroll
    for (int s = 0; s < DEPTH; s++) {
      unsigned left[4];
      addProducts(products, keys[s], queries, s);
      loadLeft(left, values + inTile * SIZE, s);
      addProducts(changes, left, grads, s);
    }
    scoreProducts<true>(products, own + lane / 4, query + lane % 4 * 2, rule, atEdge(query, SHORT, own, 16, window));
#pragma unroll
    for (int n = 0; n < SHORT / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        float weight = powerOfTwo(products[n][i] - (i % 2 ? rowStats[n].z : rowStats[n].x));
        products[n][i] = weight;
        changes[n][i] = weight * (changes[n][i] - (i % 2 ? rowStats[n].w : rowStats[n].y)) * changeScale;
      }
    addMix(ofValues, products, grads);
    addMix(ofKeys, changes, queries);
  }
  float keyFactor = scale * scales[1] * scales[3];
  storeResult(keyGrad, place, tokens, heads, size, ofKeys, keyFactor, keyFactor);
  storeResult(valueGrad, place, tokens, heads, size, ofValues, scales[1], scales[1]);
}
