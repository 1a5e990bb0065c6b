// Affine grids of runs of `width` consecutive columns of weights [O, I], and their gradients. `lanes` threads work on one run,
// or 1024 elements of one row are a group.

//# clippedGrid
extern "C" __global__ void clippedGrid(const float* weights, const float* upper, const float* lower, float* scale, float* zero,
                                       unsigned runs, unsigned columns, unsigned width, unsigned perRow, unsigned levels,
                                       unsigned symmetric, unsigned withLogits, unsigned lanes) {
  unsigned run = blockIdx.x * (THREADS / lanes) + threadIdx.x / lanes;
  Run range = elementsOf(run, runs, columns, width, perRow);
  unsigned lane = threadIdx.x % lanes;
  float high = 0.0f, low = 0.0f;
  for (unsigned at = range.begin + lane; at < range.end; at += lanes) {
    high = fmaxf(high, weights[at]);
    low = fminf(low, weights[at]);
  }
  high = laneMax(high, lanes);
  low = -laneMax(-low, lanes);
  if (lane > 0 || run >= runs) return;
  if (withLogits) {
    high = clipped(high, upper[run]);
    low = clipped(low, lower[run]);
  }
  float step = stepOf(high, low, (float)levels, symmetric);
  scale[run] = step;
  zero[run] = zeroOf(low, step, (float)levels, symmetric);
}

//# clippedGridGrad
extern "C" __global__ void clippedGridGrad(const float* weights, const float* upper, const float* lower, const float* scaleGrad,
                                           float* weightsGrad, float* upperGrad, float* lowerGrad, unsigned wanted, unsigned runs,
                                           unsigned columns, unsigned width, unsigned perRow, unsigned levels, unsigned symmetric,
                                           unsigned withLogits, unsigned lanes) {
  const unsigned NONE = 0xffffffffu;
  unsigned run = blockIdx.x * (THREADS / lanes) + threadIdx.x / lanes;
  Run range = elementsOf(run, runs, columns, width, perRow);
  unsigned lane = threadIdx.x % lanes;
  // the extremes of this thread's elements and the first places of them, a 0 never
  float high = 0.0f, low = 0.0f;
  unsigned highAt = NONE, lowAt = NONE;
  for (unsigned at = range.begin + lane; at < range.end; at += lanes) {
    float x = weights[at];
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
  highAt = laneLeastWord(high == most ? highAt : NONE, lanes);
  lowAt = laneLeastWord(low == least ? lowAt : NONE, lanes);
  float ofMost = 0.0f, ofLeast = 0.0f;
  if (lane == 0 && run < runs) {
    // factors of the extremes
    double shrinkHigh = 1.0, shrinkLow = 1.0;
    high = most;
    low = least;
    if (withLogits) {
      shrinkHigh = sigmoid(upper[run]);
      shrinkLow = sigmoid(lower[run]);
      high = clipped(most, upper[run]);
      low = clipped(least, lower[run]);
    }
    float exact = __fdiv_rn(rangeOf(high, low, symmetric), (float)levels);
    float ofUpper = 0.0f, ofLower = 0.0f;
    // clamped where it rounds to 0 or to infinity; the ties at both ends round there
    if (exact > 2.98023223876953125e-8f && exact < 65520.0f) {
      double ofRange = (symmetric ? 2.0 : 1.0) * scaleGrad[run] / levels;
      if (most > 0.0f && (!symmetric || high >= -low)) {
        ofMost = (float)(ofRange * shrinkHigh);
        ofUpper = (float)(ofRange * shrinkHigh * (1.0 - shrinkHigh) * most);
      }
      if (least < 0.0f && (!symmetric || high < -low)) {
        ofLeast = (float)(-ofRange * shrinkLow);
        ofLower = (float)(-ofRange * shrinkLow * (1.0 - shrinkLow) * least);
      }
    }
    upperGrad[run] = ofUpper;
    lowerGrad[run] = ofLower;
  }
  if (!wanted) return;
  ofMost = laneSum(ofMost, lanes);  // of lane 0
  ofLeast = laneSum(ofLeast, lanes);
  for (unsigned at = range.begin + lane; at < range.end; at += lanes)
    weightsGrad[at] = at == highAt ? ofMost : (at == lowAt ? ofLeast : 0.0f);
}

//# fakeQuantize
extern "C" __global__ void fakeQuantize(const float* weights, const float* scale, const float* zero, float* y, unsigned rows,
                                        unsigned columns, unsigned width, unsigned perRow, unsigned levels) {
  unsigned pieces = (columns + 1023) / 1024;
  unsigned row = blockIdx.x / pieces;
  unsigned first = blockIdx.x % pieces * 1024;
  auto load = [&](unsigned column) {
    unsigned run = row * perRow + column / width;
    return make_float3(weights[row * columns + column], scale[run], zero[run]);
  };
  inBatches<4>(first + threadIdx.x, min(first + 1024, columns), THREADS, load, [&](float3 own, unsigned column) {
    float step = own.y, shift = clampTo(rintf(own.z), (float)levels);
    y[row * columns + column] = (clampTo(roundedRatio(own.x, step) + shift, (float)levels) - shift) * step;
  });
}

//# fakeQuantizeGrad
extern "C" __global__ void fakeQuantizeGrad(const float* weights, const float* scale, const float* zero, const float* grad,
                                            float* weightsGrad, float* scaleGrad, float* zeroGrad, unsigned wanted, unsigned runs,
                                            unsigned columns, unsigned width, unsigned perRow, unsigned levels, unsigned lanes) {
  unsigned run = blockIdx.x * (THREADS / lanes) + threadIdx.x / lanes;
  Run range = elementsOf(run, runs, columns, width, perRow);
  unsigned lane = threadIdx.x % lanes;
  unsigned on = min(run, runs - 1);
  float top = (float)levels;
  float step = scale[on];
  float origin = zero[on];
  float shift = clampTo(rintf(origin), top);
  float ofStep = 0.0f, outside = 0.0f;
  auto load = [&](unsigned at) { return make_float2(weights[at], grad[at]); };
  inBatches<8>(range.begin + lane, range.end, lanes, load, [&](float2 own, unsigned at) {
    float given = own.y;
    float ratio = __fdiv_rn(own.x, step);
    float whole = rintf(ratio);
    float place = whole + shift;
    float code = clampTo(place, top);
    bool inside = place == code;
    if (wanted) weightsGrad[at] = inside ? given : 0.0f;
    ofStep += given * (inside ? whole - ratio : code - shift);
    outside += inside ? 0.0f : given;
  });
  ofStep = laneSum(ofStep, lanes);
  outside = laneSum(outside, lanes);
  if (lane == 0 && run < runs) {
    scaleGrad[run] = ofStep;
    zeroGrad[run] = origin >= 0.0f && origin <= top ? -outside * step : 0.0f;
  }
}

//# affineCodes
// 4 codes, a word, a thread: the result is a tensor of its own and begins at a word.
extern "C" __global__ void affineCodes(const float* weights, const float* scale, const float* zero, unsigned char* codes,
                                       unsigned size, unsigned columns, unsigned width, unsigned perRow, unsigned levels) {
  unsigned word = blockIdx.x * THREADS + threadIdx.x;
  if (word >= size / 4 + (size % 4 > 0)) return;
  unsigned row = 4 * word / columns;
  unsigned column = 4 * word % columns;
  unsigned packed = 0;
  for (unsigned at = 4 * word; at < min(size, 4 * word + 4); at++) {
    unsigned run = row * perRow + column / width;
    float shift = clampTo(rintf(zero[run]), (float)levels);
    float code = clampTo(roundedRatio(weights[at], scale[run]) + shift, (float)levels);
    packed |= (unsigned)code << (8 * (at % 4));
    if (++column == columns) {
      column = 0;
      row++;
    }
  }
  ((unsigned*)codes)[word] = packed;
}
