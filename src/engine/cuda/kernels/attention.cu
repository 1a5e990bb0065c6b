// Causal attention and its gradients in tiles, with a running maximum and sum (FlashAttention, arXiv 2205.14135, 2307.08691).
//
// A group has TILE rows (queries, or keys where the gradients of k and v are made) and goes in steps of STEP columns (the others)
// through what they see. 16 threads share ROWS rows: each has 4 columns of the products of rows and columns, and SIZE / 16 columns
// of the group's result. All is f32. With tensor cores `addProducts` and `addMix` would hold f16 fragments (mma.m16n8k16, twice
// as much with a split of each factor into two) in the place of the register tiles; the softmax around them would stay.

constexpr int TILE = 64;
constexpr int STEP = 64;
constexpr int DEPTH = 32;        // of a product's part in shared memory
constexpr int STRIDE = TILE + 4; // of its columns, and of the weights
constexpr int ROWS = TILE * 16 / THREADS;
constexpr int COLUMNS = SIZE / 16;
constexpr int RUN = COLUMNS < 4 ? COLUMNS : 4;                  // neighboring columns of a thread
constexpr int DEEP = 4096 / SIZE < STEP ? 4096 / SIZE : STEP;   // rows of a mix's part
constexpr int PARTS = 2 * DEPTH * STRIDE;
constexpr float UNSEEN = -1e30f;

/** Rows of one head: the first, from one to the next, and how many there are. */
struct Rows {
  const float* first;
  unsigned stride, count;
};

template <int COUNT> __device__ inline void loadRun(float* to, const float* from) {
  if constexpr (COUNT % 4 == 0) {
    for (int i = 0; i < COUNT; i += 4) {
      float4 four = *reinterpret_cast<const float4*>(from + i);
      to[i] = four.x;
      to[i + 1] = four.y;
      to[i + 2] = four.z;
      to[i + 3] = four.w;
    }
  } else {
    for (int i = 0; i < COUNT; i++) to[i] = from[i];
  }
}

/** Column of the result that is the c-th of a thread. */
__device__ inline unsigned columnOf(int c) { return c / RUN * 16 * RUN + threadIdx.x % 16 * RUN + c % RUN; }

/** DEPTH columns of up to 64 rows, transposed; zeros outside. A warp takes 8 columns of 4 rows: it writes to 32 banks. */
__device__ inline void loadColumns(float* part, Rows rows, unsigned first, unsigned size) {
#pragma unroll 4
  for (unsigned e = threadIdx.x; e < DEPTH * TILE; e += THREADS) {
    unsigned column = e % 8 + e / (8 * TILE) * 8, row = e / 8 % TILE;
    bool there = row < rows.count && first + column < size;
    part[column * STRIDE + row] = there ? rows.first[(size_t)row * rows.stride + first + column] : 0.0f;
  }
}

/** products[r][c] += the dot product of rows. Waits first for all that was done with shared memory. */
__device__ inline void addProducts(float (&products)[ROWS][4], Rows rows, Rows columns, unsigned size, float* parts) {
  for (unsigned first = 0; first < size; first += DEPTH) {
    __syncthreads();
    loadColumns(parts, rows, first, size);
    loadColumns(parts + DEPTH * STRIDE, columns, first, size);
    __syncthreads();
#pragma unroll 8
    for (int i = 0; i < DEPTH; i++) {
      float a[ROWS], b[4];
      loadRun<ROWS>(a, parts + i * STRIDE + threadIdx.x / 16 * ROWS);
      loadRun<4>(b, parts + (DEPTH + i) * STRIDE + threadIdx.x % 16 * 4);
      for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < 4; c++) products[r][c] += a[r] * b[c];
    }
  }
}

/** result[r] += the sum over a step of weights[j][r] times row j. Waits first for the weights. */
__device__ inline void addMix(float (&result)[ROWS][COLUMNS], const float* weights, Rows rows, unsigned size, float* parts) {
  for (unsigned first = 0; first < STEP && first < rows.count; first += DEEP) {
    __syncthreads();
#pragma unroll 4
    for (unsigned e = threadIdx.x; e < DEEP * SIZE; e += THREADS) {
      unsigned row = first + e / SIZE, column = e % SIZE;
      bool there = row < rows.count && column < size;
      parts[e] = there ? rows.first[(size_t)row * rows.stride + column] : 0.0f;
    }
    __syncthreads();
#pragma unroll 2
    for (int j = 0; j < DEEP; j++) {
      float a[ROWS], b[COLUMNS];
      loadRun<ROWS>(a, weights + (first + j) * STRIDE + threadIdx.x / 16 * ROWS);
      for (int c = 0; c < COLUMNS; c += RUN) loadRun<RUN>(b + c, parts + j * SIZE + columnOf(c));
      for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLUMNS; c++) result[r][c] += a[r] * b[c];
    }
  }
}

/** Weights of a step as `addMix` reads them, [column][row]. */
__device__ inline void storeWeights(float* weights, const float (&products)[ROWS][4]) {
  for (int c = 0; c < 4; c++) {
    float4* to = reinterpret_cast<float4*>(weights + (threadIdx.x % 16 * 4 + c) * STRIDE + threadIdx.x / 16 * ROWS);
    for (int r = 0; r < ROWS; r += 4)
      to[r / 4] = make_float4(products[r][c], products[r + 1][c], products[r + 2][c], products[r + 3][c]);
  }
}

struct Rule {
  unsigned window;
  float scale, slope;
};

/** Score of a key for the query at a position; UNSEEN behind it and outside its window. */
__device__ inline float scoreOf(float product, unsigned position, unsigned key, Rule rule) {
  bool seen = key <= position && key + rule.window > position;
  return seen ? product * rule.scale + rule.slope * (float)((int)key - (int)position) : UNSEEN;
}

/** Over the 16 threads of a row. */
__device__ inline float rowMax(float x) {
  for (int step = 8; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}
__device__ inline float rowSum(float x) {
  for (int step = 8; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

/**
 * A step of the running softmax of a row: products become weights by the new maximum; returns the factor of what was summed by
 * the old one. `sum` is this thread's part.
 */
__device__ inline float softmaxStep(float (&products)[4], float& top, float& sum, unsigned position, unsigned firstKey, Rule rule) {
  float next = top;
  for (int c = 0; c < 4; c++) {
    products[c] = scoreOf(products[c], position, firstKey + threadIdx.x % 16 * 4 + c, rule);
    next = fmaxf(next, products[c]);
  }
  next = rowMax(next);
  float factor = expf(top - next);
  top = next;
  sum *= factor;
  for (int c = 0; c < 4; c++) {
    products[c] = products[c] == UNSEEN ? 0.0f : expf(products[c] - next);
    sum += products[c];
  }
  return factor;
}

/** First step of keys that any of the queries from a position on sees. */
__device__ inline unsigned firstStep(unsigned position, unsigned window) {
  return position < window ? 0 : (position + 1 - window) / STEP * STEP;
}

//# attendTiles: 64 queries of a head a group; those that see the most keys come first
extern "C" __global__ void __launch_bounds__(THREADS) attendTiles(const float* q, const float* k, const float* v, const float* slopes, float* y, unsigned tokens, unsigned heads, unsigned keyHeads, unsigned size, unsigned capacity, unsigned keyLength, unsigned window, float scale, unsigned sloped) {
  __shared__ __align__(16) float parts[PARTS];
  __shared__ __align__(16) float weights[STEP * STRIDE];
  unsigned tiles = (tokens + TILE - 1) / TILE, all = gridDim.x / tiles; // heads of all batches
  unsigned firstQuery = (tiles - 1 - blockIdx.x / all) * TILE;
  unsigned batch = blockIdx.x % all / heads, head = blockIdx.x % all % heads;
  unsigned stride = heads * size, keyStride = keyHeads * size;
  size_t at = (size_t)(batch * tokens + firstQuery) * stride + head * size;
  size_t keyAt = (size_t)batch * capacity * keyStride + head / (heads / keyHeads) * size;
  Rows queries = {q + at, stride, tokens - firstQuery};
  Rule rule = {window, scale, sloped ? slopes[head] : 0.0f};
  unsigned row = threadIdx.x / 16 * ROWS, position = keyLength - tokens + firstQuery;

  float result[ROWS][COLUMNS] = {}, top[ROWS], sum[ROWS] = {};
  for (int r = 0; r < ROWS; r++) top[r] = UNSEEN;
  unsigned end = min(keyLength, position + TILE);
  for (unsigned key = firstStep(position, window); key < end; key += STEP) {
    float products[ROWS][4] = {};
    Rows keys = {k + keyAt + (size_t)key * keyStride, keyStride, keyLength - key};
    addProducts(products, queries, keys, size, parts);
    for (int r = 0; r < ROWS; r++) {
      float factor = softmaxStep(products[r], top[r], sum[r], position + row + r, key, rule);
      for (int c = 0; c < COLUMNS; c++) result[r][c] *= factor;
    }
    storeWeights(weights, products);
    addMix(result, weights, {v + keyAt + (size_t)key * keyStride, keyStride, keyLength - key}, size, parts);
  }
  for (int r = 0; r < ROWS; r++) {
    float total = rowSum(sum[r]);
    if (firstQuery + row + r < tokens)
      for (int c = 0; c < COLUMNS; c++)
        if (columnOf(c) < size) y[at + (size_t)(row + r) * stride + columnOf(c)] = result[r][c] / total;
  }
}

//# attendGradQueries: of 64 queries of a head a group; stats [B, H, T, 3]: maximum, 1 / sum, grad times output
extern "C" __global__ void __launch_bounds__(THREADS) attendGradQueries(const float* q, const float* k, const float* v, const float* output, const float* grad, const float* slopes, float* y, float* stats, unsigned tokens, unsigned heads, unsigned keyHeads, unsigned size, unsigned window, float scale, unsigned sloped) {
  __shared__ __align__(16) float parts[PARTS];
  __shared__ __align__(16) float weights[STEP * STRIDE];
  unsigned tiles = (tokens + TILE - 1) / TILE, all = gridDim.x / tiles;
  unsigned firstQuery = (tiles - 1 - blockIdx.x / all) * TILE;
  unsigned batch = blockIdx.x % all / heads, head = blockIdx.x % all % heads;
  unsigned stride = heads * size, keyStride = keyHeads * size;
  size_t at = (size_t)(batch * tokens + firstQuery) * stride + head * size;
  size_t keyAt = (size_t)batch * tokens * keyStride + head / (heads / keyHeads) * size;
  Rows queries = {q + at, stride, tokens - firstQuery}, grads = {grad + at, stride, tokens - firstQuery};
  Rule rule = {window, scale, sloped ? slopes[head] : 0.0f};
  unsigned row = threadIdx.x / 16 * ROWS, begin = firstStep(firstQuery, window), end = min(tokens, firstQuery + TILE);

  float top[ROWS], sum[ROWS] = {}, mean[ROWS] = {};
  for (int r = 0; r < ROWS; r++) top[r] = UNSEEN;
  for (unsigned key = begin; key < end; key += STEP) {
    float products[ROWS][4] = {};
    addProducts(products, queries, {k + keyAt + (size_t)key * keyStride, keyStride, tokens - key}, size, parts);
    for (int r = 0; r < ROWS; r++) softmaxStep(products[r], top[r], sum[r], firstQuery + row + r, key, rule);
  }
  for (int r = 0; r < ROWS; r++) {
    bool there = firstQuery + row + r < tokens;
    sum[r] = 1.0f / rowSum(sum[r]);
    size_t own = at + (size_t)(row + r) * stride;
    if (there)
      for (unsigned i = threadIdx.x % 16; i < size; i += 16) mean[r] += grad[own + i] * output[own + i];
    mean[r] = rowSum(mean[r]);
    if (!there || threadIdx.x % 16 != 0) continue;
    float* to = stats + ((size_t)(batch * heads + head) * tokens + firstQuery + row + r) * 3;
    to[0] = top[r];
    to[1] = sum[r];
    to[2] = mean[r];
  }

  float result[ROWS][COLUMNS] = {};
  for (unsigned key = begin; key < end; key += STEP) {
    float products[ROWS][4] = {}, changes[ROWS][4] = {}; // changes: gradients of the probabilities
    Rows keys = {k + keyAt + (size_t)key * keyStride, keyStride, tokens - key};
    Rows values = {v + keyAt + (size_t)key * keyStride, keyStride, tokens - key};
    addProducts(products, queries, keys, size, parts);
    addProducts(changes, grads, values, size, parts);
    for (int r = 0; r < ROWS; r++)
      for (int c = 0; c < 4; c++) {
        float score = scoreOf(products[r][c], firstQuery + row + r, key + threadIdx.x % 16 * 4 + c, rule);
        float weight = score == UNSEEN ? 0.0f : expf(score - top[r]) * sum[r];
        products[r][c] = weight * (changes[r][c] - mean[r]) * scale;
      }
    storeWeights(weights, products);
    addMix(result, weights, keys, size, parts);
  }
  for (int r = 0; r < ROWS; r++)
    if (firstQuery + row + r < tokens)
      for (int c = 0; c < COLUMNS; c++)
        if (columnOf(c) < size) y[at + (size_t)(row + r) * stride + columnOf(c)] = result[r][c];
}

//# attendGradKeys: of 64 keys and values a group, for one of the heads that share them; [B, T, H, d]
extern "C" __global__ void __launch_bounds__(THREADS) attendGradKeys(const float* q, const float* k, const float* v, const float* grad, const float* slopes, const float* stats, float* keyGrad, float* valueGrad, unsigned tokens, unsigned heads, unsigned keyHeads, unsigned size, unsigned window, float scale, unsigned sloped) {
  __shared__ __align__(16) float parts[PARTS];
  __shared__ __align__(16) float weights[STEP * STRIDE];
  unsigned tiles = (tokens + TILE - 1) / TILE, all = gridDim.x / tiles;
  unsigned firstKey = blockIdx.x / all * TILE; // the first ones are seen by the most queries
  unsigned batch = blockIdx.x % all / heads, head = blockIdx.x % all % heads;
  unsigned stride = heads * size, keyStride = keyHeads * size;
  size_t at = (size_t)batch * tokens * stride + head * size;
  size_t keyAt = (size_t)(batch * tokens + firstKey) * keyStride + head / (heads / keyHeads) * size;
  Rows keys = {k + keyAt, keyStride, tokens - firstKey}, values = {v + keyAt, keyStride, tokens - firstKey};
  Rule rule = {window, scale, sloped ? slopes[head] : 0.0f};
  unsigned row = threadIdx.x / 16 * ROWS;
  stats += (size_t)(batch * heads + head) * tokens * 3;

  float ofKeys[ROWS][COLUMNS] = {}, ofValues[ROWS][COLUMNS] = {};
  unsigned end = min(tokens, firstKey + TILE - 1 + window);
  for (unsigned first = firstKey; first < end; first += STEP) {
    float products[ROWS][4] = {}, changes[ROWS][4] = {};
    Rows queries = {q + at + (size_t)first * stride, stride, tokens - first};
    Rows grads = {grad + at + (size_t)first * stride, stride, tokens - first};
    addProducts(products, keys, queries, size, parts);
    for (int c = 0; c < 4; c++) {
      unsigned query = first + threadIdx.x % 16 * 4 + c;
      bool there = query < tokens;
      float top = there ? stats[query * 3] : 0.0f, inverse = there ? stats[query * 3 + 1] : 0.0f;
      for (int r = 0; r < ROWS; r++) {
        float score = scoreOf(products[r][c], query, firstKey + row + r, rule);
        products[r][c] = !there || score == UNSEEN ? 0.0f : expf(score - top) * inverse;
      }
    }
    storeWeights(weights, products);
    addMix(ofValues, weights, grads, size, parts);
    addProducts(changes, values, grads, size, parts); // waits until all have read the weights
    for (int c = 0; c < 4; c++) {
      unsigned query = first + threadIdx.x % 16 * 4 + c;
      float mean = query < tokens ? stats[query * 3 + 2] : 0.0f;
      for (int r = 0; r < ROWS; r++) products[r][c] *= (changes[r][c] - mean) * scale;
    }
    storeWeights(weights, products);
    addMix(ofKeys, weights, queries, size, parts);
  }
  for (int r = 0; r < ROWS; r++)
    if (firstKey + row + r < tokens)
      for (int c = 0; c < COLUMNS; c++)
        if (columnOf(c) < size) {
          size_t to = at + (size_t)(firstKey + row + r) * stride + columnOf(c);
          keyGrad[to] = ofKeys[r][c];
          valueGrad[to] = ofValues[r][c];
        }
}
