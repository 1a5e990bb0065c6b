// Weights [O, I] times factors of rows and columns, fake-quantized on the clipped grid of each run of `width` columns, and the
// gradients of factors and logits. `lanes` threads work on a run. The sigmoids of a group's runs, which are f64 and slow, are made
// by neighboring threads, one a run, while the elements are on their way: up to HELD of a thread stay in its registers.
#define HELD 4
#define BATCH 8

/** As `multiply` and `scaleRows` round it. */
__device__ inline float scaledBy(float x, float ofColumn, float ofRow) {
  return __fmul_rn(__fmul_rn(x, ofColumn), ofRow);
}

/** As `clipped` of the library, with the sigmoid known. */
__device__ inline float clippedBy(float x, double shrink) {
  if (x == 0.0f) return 0.0f;
  float y = (float)(shrink * (double)x);
  return x > 0.0f ? fmaxf(y, 1.17549435e-38f) : fminf(y, -1.17549435e-38f);
}

/** sigmoid(upper) and sigmoid(lower) of each run of a group; 1 without logits. All threads call it; a barrier must follow. */
__device__ inline void shrinkRuns(double2* shrinks, const float* upper, const float* lower, unsigned first, unsigned runs,
                                  unsigned perGroup, bool withLogits) {
  unsigned mine = first + threadIdx.x;
  if (threadIdx.x >= perGroup || mine >= runs) return;
  shrinks[threadIdx.x] = withLogits ? make_double2(sigmoid(upper[mine]), sigmoid(lower[mine])) : make_double2(1.0, 1.0);
}

/** The elements of a run behind those that its threads hold. */
template <typename Load, typename Use>
__device__ inline void eachMore(Run range, unsigned lane, unsigned lanes, Load load, Use use) {
  inBatches<BATCH>(range.begin + lane + HELD * lanes, range.end, lanes, load, use);
}

//# clippedFakeQuantize
extern "C" __global__ void clippedFakeQuantize(const float* __restrict__ weights, const float* __restrict__ rowFactors,
                                               const float* __restrict__ columnFactors, const float* upper, const float* lower,
                                               float* __restrict__ y, unsigned runs, unsigned columns, unsigned width,
                                               unsigned perRow, unsigned levels, unsigned symmetric, unsigned withRows,
                                               unsigned withColumns, unsigned withLogits, unsigned lanes) {
  __shared__ double2 shrinks[THREADS];
  unsigned perGroup = THREADS / lanes, own = threadIdx.x / lanes, lane = threadIdx.x % lanes;
  unsigned first = blockIdx.x * perGroup;
  unsigned run = first + own;
  Run range = elementsOf(run, runs, columns, width, perRow);
  unsigned row = run / perRow;
  unsigned begin = row * columns;
  float top = (float)levels;
  float ofRow = withRows && run < runs ? rowFactors[row] : 1.0f;
  bool held = width <= HELD * lanes;
  float x[HELD], ofColumn[HELD];
#pragma unroll
  for (unsigned k = 0; k < HELD; k++) {
    unsigned at = range.begin + lane + k * lanes;
    bool there = at < range.end;
    x[k] = there ? weights[at] : 0.0f;
    ofColumn[k] = there && withColumns ? columnFactors[at - begin] : 1.0f;
  }
  shrinkRuns(shrinks, upper, lower, first, runs, perGroup, withLogits);
  float high = 0.0f, low = 0.0f;
#pragma unroll
  for (unsigned k = 0; k < HELD; k++) {
    x[k] = scaledBy(x[k], ofColumn[k], ofRow);
    high = fmaxf(high, x[k]);
    low = fminf(low, x[k]);
  }
  auto loadMore = [&](unsigned at) { return scaledBy(weights[at], withColumns ? columnFactors[at - begin] : 1.0f, ofRow); };
  if (!held)
    eachMore(range, lane, lanes, loadMore, [&](float more, unsigned) {
      high = fmaxf(high, more);
      low = fminf(low, more);
    });
  high = laneMax(high, lanes);
  low = -laneMax(-low, lanes);
  __syncthreads();
  if (run >= runs) return;
  if (withLogits) {
    high = clippedBy(high, shrinks[own].x);
    low = clippedBy(low, shrinks[own].y);
  }
  float step = stepOf(high, low, top, symmetric), shift = zeroOf(low, step, top, symmetric);
#pragma unroll
  for (unsigned k = 0; k < HELD; k++) {
    unsigned at = range.begin + lane + k * lanes;
    if (at < range.end) y[at] = (clampTo(roundedRatio(x[k], step) + shift, top) - shift) * step;
  }
  if (held) return;
  eachMore(range, lane, lanes, loadMore,
           [&](float more, unsigned at) { y[at] = (clampTo(roundedRatio(more, step) + shift, top) - shift) * step; });
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
  __shared__ double2 shrinks[THREADS];
  unsigned perGroup = THREADS / lanes, own = threadIdx.x / lanes, lane = threadIdx.x % lanes;
  unsigned first = blockIdx.x * perGroup;
  unsigned run = first + own;
  Run range = elementsOf(run, runs, columns, width, perRow);
  unsigned row = run / perRow;
  unsigned begin = row * columns;
  float top = (float)levels;
  float ofRow = withRows && run < runs ? rowFactors[row] : 1.0f;
  bool held = width <= HELD * lanes;
  float x[HELD], given[HELD], ofColumn[HELD];
#pragma unroll
  for (unsigned k = 0; k < HELD; k++) {
    unsigned at = range.begin + lane + k * lanes;
    bool there = at < range.end;
    x[k] = there ? weights[at] : 0.0f;
    given[k] = there ? grad[at] : 0.0f;
    ofColumn[k] = there && withColumns ? columnFactors[at - begin] : 1.0f;
  }
  shrinkRuns(shrinks, upper, lower, first, runs, perGroup, withLogits);
  // the extremes of this thread's elements and the first places of them, a 0 never
  float high = 0.0f, low = 0.0f;
  unsigned highAt = NONE, lowAt = NONE;
  auto look = [&](float value, unsigned at) {
    if (value > high) {
      high = value;
      highAt = at;
    }
    if (value < low) {
      low = value;
      lowAt = at;
    }
  };
#pragma unroll
  for (unsigned k = 0; k < HELD; k++) {
    x[k] = scaledBy(x[k], ofColumn[k], ofRow);
    look(x[k], range.begin + lane + k * lanes);
  }
  auto loadMore = [&](unsigned at) { return scaledBy(weights[at], withColumns ? columnFactors[at - begin] : 1.0f, ofRow); };
  if (!held) eachMore(range, lane, lanes, loadMore, look);
  float most = laneMax(high, lanes);
  float least = -laneMax(-low, lanes);
  if (withRows || withColumns) {
    highAt = laneLeastWord(high == most ? highAt : NONE, lanes);
    lowAt = laneLeastWord(low == least ? lowAt : NONE, lanes);
  }
  __syncthreads();
  double2 shrink = shrinks[own];
  high = withLogits && run < runs ? clippedBy(most, shrink.x) : most;
  low = withLogits && run < runs ? clippedBy(least, shrink.y) : least;
  float step = stepOf(high, low, top, symmetric), shift = zeroOf(low, step, top, symmetric);
  float ofStep = 0.0f;
  auto add = [&](float value, float gradient) {
    float ratio = __fdiv_rn(value, step);
    float whole = rintf(ratio);
    float place = whole + shift;
    float code = clampTo(place, top);
    ofStep += gradient * (place == code ? whole - ratio : code - shift);
  };
#pragma unroll
  for (unsigned k = 0; k < HELD; k++)
    if (range.begin + lane + k * lanes < range.end) add(x[k], given[k]);
  if (!held)
    eachMore(range, lane, lanes, [&](unsigned at) { return make_float2(loadMore(at), grad[at]); },
             [&](float2 more, unsigned) { add(more.x, more.y); });
  ofStep = laneSum(ofStep, lanes);
  if (lane != 0 || run >= runs) return;
  float ofMost = 0.0f, ofLeast = 0.0f, ofUpper = 0.0f, ofLower = 0.0f;
  float exact = __fdiv_rn(rangeOf(high, low, symmetric), top);
  // clamped where it rounds to 0 or to infinity; the ties at both ends round there
  if (exact > 2.98023223876953125e-8f && exact < 65520.0f) {
    double ofRange = (symmetric ? 2.0 : 1.0) * ofStep / levels;
    if (most > 0.0f && (!symmetric || high >= -low)) {
      ofMost = (float)(ofRange * shrink.x);
      ofUpper = (float)(ofRange * shrink.x * (1.0 - shrink.x) * most);
    }
    if (least < 0.0f && (!symmetric || high < -low)) {
      ofLeast = (float)(-ofRange * shrink.y);
      ofLower = (float)(-ofRange * shrink.y * (1.0 - shrink.y) * least);
    }
  }
  if (withLogits) {
    logits[run] = ofUpper;
    logits[runs + run] = ofLower;
  }
  if (withRows || withColumns) {
    state[run] = __float_as_uint(step);
    state[runs + run] = __float_as_uint(shift);
    state[2 * runs + run] = highAt;
    state[3 * runs + run] = lowAt;
    state[4 * runs + run] = __float_as_uint(ofMost);
    state[5 * runs + run] = __float_as_uint(ofLeast);
  }
}
