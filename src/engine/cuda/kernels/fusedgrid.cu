// Weights [O, I] times factors of rows and columns, fake-quantized on the clipped grid of each run of `width` columns, and the
// gradients of factors and logits. `lanes` threads work on a run. Grids are made by neighboring threads, one a run: the sigmoids
// of a run would take a warp as long as its elements do.

/** As `multiply` and `scaleRows` round it. */
__device__ inline float scaledBy(float x, float ofColumn, float ofRow) {
  return __fmul_rn(__fmul_rn(x, ofColumn), ofRow);
}

//# clippedFakeQuantize
extern "C" __global__ void clippedFakeQuantize(const float* __restrict__ weights, const float* __restrict__ rowFactors,
                                               const float* __restrict__ columnFactors, const float* upper, const float* lower,
                                               float* __restrict__ y, unsigned runs, unsigned columns, unsigned width,
                                               unsigned perRow, unsigned levels, unsigned symmetric, unsigned withRows,
                                               unsigned withColumns, unsigned withLogits, unsigned lanes) {
  __shared__ float2 pairs[THREADS];  // of each run of the group: its extremes, then its scale and zero
  unsigned perGroup = THREADS / lanes, own = threadIdx.x / lanes, lane = threadIdx.x % lanes;
  unsigned first = blockIdx.x * perGroup;
  unsigned run = first + own;
  Run range = elementsOf(run, runs, columns, width, perRow);
  unsigned row = run / perRow;
  unsigned begin = row * columns;
  float ofRow = withRows && run < runs ? rowFactors[row] : 1.0f;
  float high = 0.0f, low = 0.0f;
#pragma unroll 4
  for (unsigned at = range.begin + lane; at < range.end; at += lanes) {
    float x = scaledBy(weights[at], withColumns ? columnFactors[at - begin] : 1.0f, ofRow);
    high = fmaxf(high, x);
    low = fminf(low, x);
  }
  high = laneMax(high, lanes);
  low = -laneMax(-low, lanes);
  if (lane == 0) pairs[own] = make_float2(high, low);
  __syncthreads();
  if (threadIdx.x < perGroup && first + threadIdx.x < runs) {
    high = pairs[threadIdx.x].x;
    low = pairs[threadIdx.x].y;
    if (withLogits) {
      high = clipped(high, upper[first + threadIdx.x]);
      low = clipped(low, lower[first + threadIdx.x]);
    }
    float step = stepOf(high, low, (float)levels, symmetric);
    pairs[threadIdx.x] = make_float2(step, zeroOf(low, step, (float)levels, symmetric));
  }
  __syncthreads();
  float step = pairs[own].x, shift = pairs[own].y;
#pragma unroll 4
  for (unsigned at = range.begin + lane; at < range.end; at += lanes) {
    float x = scaledBy(weights[at], withColumns ? columnFactors[at - begin] : 1.0f, ofRow);
    y[at] = (clampTo(roundedRatio(x, step) + shift, (float)levels) - shift) * step;
  }
}

//# clippedFakeQuantizeGrad
// logits [2, runs]: gradients of upper and lower. state [6, runs], for factorGrads: scale, zero, places of the most and the least
// element (none: the largest word), and what these two get through the scale.
extern "C" __global__ void clippedFakeQuantizeGrad(const float* __restrict__ weights, const float* __restrict__ rowFactors,
                                                   const float* __restrict__ columnFactors, const float* upper,
                                                   const float* lower, const float* __restrict__ grad, float* logits,
                                                   unsigned* state, unsigned runs, unsigned columns, unsigned width,
                                                   unsigned perRow, unsigned levels, unsigned symmetric, unsigned withRows,
                                                   unsigned withColumns, unsigned withLogits, unsigned lanes) {
  const unsigned NONE = 0xffffffffu;
  __shared__ float2 pairs[THREADS];  // of each run of the group: its extremes, its scale and zero, the gradient of its scale
  unsigned perGroup = THREADS / lanes, own = threadIdx.x / lanes, lane = threadIdx.x % lanes;
  unsigned first = blockIdx.x * perGroup;
  unsigned run = first + own;
  Run range = elementsOf(run, runs, columns, width, perRow);
  unsigned row = run / perRow;
  unsigned begin = row * columns;
  float top = (float)levels;
  float ofRow = withRows && run < runs ? rowFactors[row] : 1.0f;
  // the extremes of this thread's elements and the first places of them, a 0 never
  float high = 0.0f, low = 0.0f;
  unsigned highAt = NONE, lowAt = NONE;
#pragma unroll 4
  for (unsigned at = range.begin + lane; at < range.end; at += lanes) {
    float x = scaledBy(weights[at], withColumns ? columnFactors[at - begin] : 1.0f, ofRow);
    if (x > high) {
      high = x;
      highAt = at;
    }
    if (x < low) {
      low = x;
      lowAt = at;
    }
  }
  float most = laneMax(high, lanes);
  float least = -laneMax(-low, lanes);
  if (withRows || withColumns) {
    highAt = laneLeastWord(high == most ? highAt : NONE, lanes);
    lowAt = laneLeastWord(low == least ? lowAt : NONE, lanes);
    if (lane == 0 && run < runs) {
      state[2 * runs + run] = highAt;
      state[3 * runs + run] = lowAt;
    }
  }
  if (lane == 0) pairs[own] = make_float2(most, least);
  __syncthreads();
  // from here on the extremes of the run whose grid is this thread's
  unsigned mine = first + threadIdx.x;
  bool hasGrid = threadIdx.x < perGroup && mine < runs;
  float step = 1.0f, shift = 0.0f;
  if (hasGrid) {
    most = high = pairs[threadIdx.x].x;
    least = low = pairs[threadIdx.x].y;
    if (withLogits) {
      high = clipped(most, upper[mine]);
      low = clipped(least, lower[mine]);
    }
    step = stepOf(high, low, top, symmetric);
    shift = zeroOf(low, step, top, symmetric);
    if (withRows || withColumns) {
      state[mine] = __float_as_uint(step);
      state[runs + mine] = __float_as_uint(shift);
    }
    pairs[threadIdx.x] = make_float2(step, shift);
  }
  __syncthreads();
  step = pairs[own].x;
  shift = pairs[own].y;
  float ofStep = 0.0f;
#pragma unroll 4
  for (unsigned at = range.begin + lane; at < range.end; at += lanes) {
    float x = scaledBy(weights[at], withColumns ? columnFactors[at - begin] : 1.0f, ofRow);
    float ratio = __fdiv_rn(x, step);
    float whole = rintf(ratio);
    float place = whole + shift;
    float code = clampTo(place, top);
    ofStep += grad[at] * (place == code ? whole - ratio : code - shift);
  }
  ofStep = laneSum(ofStep, lanes);
  __syncthreads();
  if (lane == 0) pairs[own].x = ofStep;
  __syncthreads();
  if (!hasGrid) return;
  float ofMost = 0.0f, ofLeast = 0.0f, ofUpper = 0.0f, ofLower = 0.0f;
  float exact = __fdiv_rn(rangeOf(high, low, symmetric), top);
  // clamped where it rounds to 0 or to infinity; the ties at both ends round there
  if (exact > 2.98023223876953125e-8f && exact < 65520.0f) {
    double shrinkHigh = withLogits ? sigmoid(upper[mine]) : 1.0;
    double shrinkLow = withLogits ? sigmoid(lower[mine]) : 1.0;
    double ofRange = (symmetric ? 2.0 : 1.0) * pairs[threadIdx.x].x / levels;
    if (most > 0.0f && (!symmetric || high >= -low)) {
      ofMost = (float)(ofRange * shrinkHigh);
      ofUpper = (float)(ofRange * shrinkHigh * (1.0 - shrinkHigh) * most);
    }
    if (least < 0.0f && (!symmetric || high < -low)) {
      ofLeast = (float)(-ofRange * shrinkLow);
      ofLower = (float)(-ofRange * shrinkLow * (1.0 - shrinkLow) * least);
    }
  }
  if (withLogits) {
    logits[mine] = ofUpper;
    logits[runs + mine] = ofLower;
  }
  if (withRows || withColumns) {
    state[4 * runs + mine] = __float_as_uint(ofMost);
    state[5 * runs + mine] = __float_as_uint(ofLeast);
  }
}
